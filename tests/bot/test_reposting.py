"""Re-roll and Post again below the pictures of /history: what they do, who may, and where."""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

import discord
import pytest
from simcord import ChannelHandle, InteractionResult, MemberActor

from bot.client import create_bot
from bot.cogs.reposting import _is_restricted
from bot.delivery.upload import largest_fitting
from bot.servers.policy import Action, Rule
from tests.bot.conftest import Stage, said, text_of
from tests.bot.keepers import enter
from tests.bot.test_looking import Eye


async def history(
    stage: Stage, *, at: ChannelHandle | None = None, by: MemberActor | None = None, **options: Any
) -> Any:
    """The page that the person sees."""
    result = await (by or stage.alice).slash(at or stage.channel, "history", **options)
    assert result.response is not None
    return result.response


async def post_again(
    stage: Stage, *, job: int = 1, at: ChannelHandle | None = None, by: MemberActor | None = None
) -> InteractionResult:
    return await (by or stage.alice).click(await history(stage, at=at), custom_id=f"repost:{job}")


def gallery(stage: Stage, **overwrites: Any) -> ChannelHandle:
    return stage.guild.create_text_channel("gallery", **overwrites)


def bob_of(stage: Stage) -> MemberActor:
    return stage.guild.add_member(stage.env.create_user("bob"))


def restrict(stage: Stage, channel: ChannelHandle) -> None:
    found = stage.bot.get_channel(channel.id)
    assert isinstance(found, discord.TextChannel)
    found.nsfw = True  # simcord has no age-restricted channels


async def test_my_picture_is_posted_again_where_i_am_and_pings_nobody(stage: Stage) -> None:
    await stage.imagine("a red house seed:5")
    room = gallery(stage)
    await post_again(stage, at=room)
    (again,) = stage.pictures(room)
    assert "a red house" in again.content
    assert "seed `5`" in again.content
    assert again.attachments[0].size == stage.pictures()[0].attachments[0].size
    assert (again.attachments[0].description or "").startswith("AI-generated picture: a red house")
    assert stage.notified(again) == set()
    assert "job:1:reroll" in str([row.to_dict() for row in again.components])


async def test_show_recipe_and_remix_know_the_job_of_a_picture_that_was_posted_again(stage: Stage) -> None:
    await stage.imagine("a red house seed:5")
    room = gallery(stage)
    await post_again(stage, at=room)
    (again,) = stage.pictures(room)
    assert "job 1, asked for by" in said(await bob_of(stage).context_menu(room, "Show recipe", again))
    shown = await stage.alice.context_menu(room, "Remix", again)
    assert shown.modal is not None
    assert shown.modal["custom_id"] == "job:1:remixed"


async def test_of_a_private_picture_that_was_posted_again_others_read_the_file_alone(stage: Stage) -> None:
    await stage.imagine("a red house seed:5", private=True)
    room = gallery(stage)
    await post_again(stage, at=room)
    (again,) = stage.pictures(room)
    words = said(await bob_of(stage).context_menu(room, "Show recipe", again))
    assert "asked for by" not in words


async def test_it_works_after_a_restart(stage: Stage) -> None:
    await stage.imagine()
    room = gallery(stage)
    page = await history(stage, at=room)
    await stage.env.restart_bot(create_bot(stage.kiln))
    await stage.alice.click(page, custom_id="repost:1")
    assert len(stage.pictures(room)) == 1


async def test_deleting_a_picture_takes_every_message_of_it_away(stage: Stage) -> None:
    await stage.imagine()
    room = gallery(stage)
    await post_again(stage, at=room)
    await post_again(stage, at=room)
    await stage.alice.click(stage.pictures(room)[0], custom_id="job:1:delete")
    assert stage.pictures(room) == stage.pictures() == []
    assert await stage.kiln.reposts.take(1) == ()


async def test_a_re_roll_from_history_is_a_new_job_in_the_channel_where_i_am(stage: Stage) -> None:
    await stage.imagine("a red house seed:5")
    room = gallery(stage)
    await stage.alice.click(await history(stage, at=room), custom_id="job:1:reroll")
    (again,) = stage.pictures(room)
    assert "a red house" in again.content
    assert "seed `7`" in again.content


async def test_of_anothers_picture_i_can_make_a_child_but_not_post_it_again(stage: Stage) -> None:
    bob = bob_of(stage)
    await stage.imagine("a red house")
    page = await history(stage, by=bob, user=stage.alice)
    names = str(page.components)
    assert ("job:1:reroll" in names, "repost:1" in names) == (True, False)
    stored = stage.env.backend.get_message(stage.channel.id, page.id)
    button = {"type": 2, "style": 2, "label": "x", "custom_id": "repost:1"}  # as a modified client might press it
    stored.components = [{"type": 1, "components": [button]}]
    refused = await bob.click(page, custom_id="repost:1")
    assert said(refused) == "You have no job 1."


async def test_who_may_not_post_files_here_cannot_let_kiln_do_it(stage: Stage) -> None:
    await stage.imagine()
    forbidden = discord.PermissionOverwrite(attach_files=False)
    room = gallery(stage, overwrites={stage.alice: forbidden})
    assert "You may not post files" in said(await post_again(stage, at=room))
    assert stage.pictures(room) == []


async def test_where_kiln_may_not_post_it_says_what_is_missing(stage: Stage) -> None:
    await stage.imagine()
    room = gallery(stage, overwrites={stage.bot.user: discord.PermissionOverwrite(attach_files=False)})
    assert "I lack Attach Files" in said(await post_again(stage, at=room))


async def test_a_picture_of_an_age_restricted_channel_stays_in_such(stage: Stage) -> None:
    await stage.imagine()
    room, adults = gallery(stage), stage.guild.create_text_channel("adults")
    for channel in (stage.channel, adults):
        restrict(stage, channel)
    assert "age-restricted" in said(await post_again(stage, at=room))
    await post_again(stage, at=adults)
    assert (len(stage.pictures(room)), len(stage.pictures(adults))) == (0, 1)


async def test_who_is_banned_by_now_posts_nothing_again(stage: Stage) -> None:
    await stage.imagine()
    page = await history(stage)
    moderator = enter(stage).moderator
    await moderator.slash(stage.channel, "mod ban", user=stage.alice, reason="spam")
    assert "You may not use Kiln in this server. Reason: spam" in said(
        await stage.alice.click(page, custom_id="repost:1")
    )
    assert len(stage.pictures()) == 1


async def test_where_kiln_does_not_answer_it_posts_nothing_again_nor_words_that_are_refused_by_now(
    stage: Stage,
) -> None:
    keepers, room = enter(stage), gallery(stage)
    await stage.imagine("a red house")
    await keepers.change(channel_ids=(stage.channel.id,))
    assert "draws in other channels" in said(await post_again(stage, at=room))
    rule = Rule(words="red house", action=Action.REFUSE)
    await stage.kiln.keepers.servers.add_rule(stage.guild.id, rule, actor_id=keepers.keeper.id)
    assert "A rule of this server refuses these words here: red house" in said(await post_again(stage))
    assert (len(stage.pictures()), stage.pictures(room)) == (1, [])


async def test_what_a_classifier_hid_stays_hidden(stage: Stage) -> None:
    stage.kiln.keepers.looking.use(Eye("nsfw"))
    await stage.imagine()
    assert "picture-1.webp" not in str((await history(stage)).components)
    await post_again(stage)
    assert [one.attachments[0].filename[:13] for one in stage.pictures()] == ["SPOILER_kiln-"] * 2


async def test_what_takes_longer_than_discord_waits_is_posted_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.imagine()
    usual, deferred = largest_fitting, list[bool]()

    async def late(interaction: discord.Interaction, work: Coroutine[Any, Any, Any], *, alone: bool) -> Any:
        await interaction.response.defer(ephemeral=alone, thinking=True)
        deferred.append(True)
        return await work

    def made_smaller(png: bytes, **options: Any) -> Any:
        assert deferred, "Discord waits three seconds, and a large file takes longer"
        return usual(png, **options)

    monkeypatch.setattr("bot.cogs.reposting.in_time", late)
    monkeypatch.setattr("bot.cogs.reposting.largest_fitting", made_smaller)
    await post_again(stage)
    assert len(stage.pictures()) == 2


def test_a_channel_that_is_gone_counts_as_age_restricted() -> None:
    assert _is_restricted(None)


async def test_a_picture_of_another_server_has_no_buttons_and_stays_there(stage: Stage) -> None:
    await stage.imagine("a red house")
    page = await history(stage)
    with closing(sqlite3.connect(stage.settings.database)) as raw, raw:
        raw.execute("UPDATE jobs SET guild_id = 99")
    assert "from another server" in said(await stage.alice.click(page, custom_id="repost:1"))
    later = await history(stage)
    assert ("a red house" in text_of(later), "repost:" in str(later.components)) == (True, False)


@pytest.mark.parametrize("lost", ["file", "picture"])
async def test_what_is_not_there_any_more_is_said(stage: Stage, lost: str) -> None:
    await stage.imagine()
    page = await history(stage)
    if lost == "picture":
        await stage.kiln.queue.removal.remove(1)
    else:
        for file in (stage.settings.data / "pictures").rglob("*.png"):
            file.unlink()
    words = said(await stage.alice.click(page, custom_id="repost:1"))
    assert ("was deleted" if lost == "picture" else "not kept any more") in words
    assert text_of(page) != ""
