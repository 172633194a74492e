"""*Report picture*: from a message's menu to the moderators, once a person and picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simcord import InteractionResult

from bot.client import create_bot
from bot.language import say_in
from bot.panel.log_channel import _words
from bot.servers.server import Act, Entry, Standing
from tests.bot.conftest import Stage, said
from tests.bot.keepers import Keepers, enter
from tests.bot.test_cards import JOB
from tests.bot.test_reposting import post_again


@pytest.fixture
def keepers(stage: Stage) -> Keepers:
    return enter(stage)


async def report(keepers: Keepers, reason: str = "") -> InteractionResult:
    (picture,) = keepers.stage.pictures()
    dialog = await keepers.stage.alice.context_menu(keepers.stage.channel, "Report picture", picture)
    assert dialog.modal is not None
    control = dialog.modal["components"][0]["component"]["custom_id"]
    return await keepers.stage.alice.submit_modal(dialog, {control: reason} if reason else {})


async def test_the_moderators_hear_of_it_with_a_link_and_nobody_is_pinged(keepers: Keepers) -> None:
    await keepers.change(log_channel_id=keepers.log.id)
    await keepers.stage.imagine()
    (picture,) = keepers.stage.pictures()
    assert "It is noted for the moderators of this server" in said(await report(keepers, "@here *ugly*"))
    *_, post = keepers.log.history()
    assert picture.jump_url in post.content
    assert f"<@{keepers.stage.alice.id}> reports [the picture](" in post.content
    assert f"of job 1 by <@{keepers.stage.alice.id}> (`{keepers.stage.alice.id}`): " in post.content
    assert "**a red house**" in post.content
    assert r"\*ugly\*" in post.content
    assert "@here" not in post.content
    assert keepers.stage.notified(post) == set()


async def test_a_dialog_from_before_a_restart_says_so(keepers: Keepers) -> None:
    stage = keepers.stage
    await stage.imagine()
    dialog = await stage.alice.context_menu(stage.channel, "Report picture", stage.pictures()[0])
    await stage.env.restart_bot(create_bot(stage.kiln))
    assert "Please open this dialog again" in said(await stage.alice.submit_modal(dialog, {}))


async def test_the_same_picture_is_reported_once_a_person(keepers: Keepers) -> None:
    await keepers.stage.imagine()
    await report(keepers)
    assert "You have reported this picture already" in said(await report(keepers))


async def test_only_pictures_of_kilns_can_be_reported(keepers: Keepers) -> None:
    stage = keepers.stage
    message = await stage.alice.send(stage.channel, "hello")
    result = await stage.alice.context_menu(stage.channel, "Report picture", message)
    assert "Only pictures of Kiln's can be reported here." in said(result)


async def report_card(keepers: Keepers, number: int = 0) -> InteractionResult:
    stage = keepers.stage
    cards = [message for message in stage.messages() if not message.attachments]
    return await stage.alice.context_menu(stage.channel, "Report picture", cards[number])


async def test_a_card_without_a_picture_says_that_there_is_none(keepers: Keepers) -> None:
    stage = keepers.stage
    await stage.kiln.keepers.moderation.stand(stage.guild.id, Standing.PAUSED, actor_id=1)
    await stage.imagine()
    assert "Job 1 has no picture to report: it is held." in said(await report_card(keepers))
    await stage.alice.slash(stage.channel, "cancel", job=1)
    assert "Job 1 has no picture to report: it is cancelled." in said(await report_card(keepers))


async def test_the_card_of_a_failed_job_says_that_there_is_no_picture(keepers: Keepers) -> None:
    await keepers.stage.imagine("a bug")
    assert "Job 1 has no picture to report: it is failed." in said(await report_card(keepers))


async def test_a_card_stands_for_its_picture_which_is_reported_once(keepers: Keepers) -> None:
    stage = keepers.stage
    await keepers.change(log_channel_id=keepers.log.id)
    await stage.imagine()
    (picture,) = stage.pictures()
    await stage.alice.submit_modal(await report_card(keepers), {})
    *_, post = keepers.log.history()
    assert picture.jump_url in post.content
    assert "You have reported this picture already" in said(await report(keepers))


async def test_the_card_of_a_deleted_picture_says_so(keepers: Keepers) -> None:
    await keepers.stage.imagine()
    await keepers.stage.kiln.queue.removal.remove(1)
    assert "The picture of job 1 was deleted." in said(await report_card(keepers))


async def test_a_picture_that_was_posted_again_is_known_by_its_job(keepers: Keepers) -> None:
    stage = keepers.stage
    await keepers.change(log_channel_id=keepers.log.id)
    await stage.imagine()
    await post_again(stage)
    again = stage.pictures()[-1]
    await stage.alice.submit_modal(await stage.alice.context_menu(stage.channel, "Report picture", again), {})
    *_, post = keepers.log.history()
    assert again.jump_url in post.content
    assert f"of job 1 by <@{stage.alice.id}>" in post.content


def test_nothing_of_a_private_prompt_is_told_with_a_report() -> None:
    entry = Entry(act=Act.REPORT, guild_id=3, actor_id=9, user_id=2, job_id=17, message_id=8, values={"reason": "x"})
    assert "red house" in _words(say_in("en"), entry, JOB)
    told = _words(say_in("en"), entry, replace(JOB, private=True))
    assert "red house" not in told
    assert "of job 17 by <@2> (`2`): x" in told
