"""*Report picture*: from a message's menu to the moderators, once a person and picture."""

from __future__ import annotations

import pytest
from simcord import InteractionResult

from bot.client import create_bot
from tests.bot.conftest import Stage, said
from tests.bot.keepers import Keepers, enter


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
    assert f"<@{keepers.stage.alice.id}> reports [a picture](" in post.content
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
