"""/mod and /host: each act by whom it is for, done at once, told, written down and heard in the log channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
import pytest
from simcord import InteractionResult, MemberActor

from bot.client import create_bot
from bot.errors import Refusal
from bot.language import LOCALES, say_in
from bot.panel.acts import CONTENT_CHARACTERS, job_words, listed, parse_length
from bot.panel.log_channel import MESSAGE_CHARACTERS, _words, channel_problem
from bot.queue.job import Job, JobStatus
from bot.servers.policy import Action, Rule
from bot.servers.server import EVERYWHERE, Act, Entry
from tests.bot.conftest import Stage, open_stage, said, text_of
from tests.bot.keepers import Keepers, allow, enter
from tests.bot.test_cards import JOB
from tests.fakes import image_request

ID = 2**63 - 1  # a snowflake of nineteen digits

MOD_COMMANDS: dict[str, tuple[str, ...]] = {
    "ban": ("user", "reason"),
    "unban": ("user",),
    "bans": (),
    "pause": (),
    "drain": (),
    "resume": (),
    "wipe": ("user",),
    "reset": ("user",),
    "job": ("job",),
    "held": (),
    "log": (),
}
HOST_COMMANDS: dict[str, tuple[str, ...]] = {
    "pause": (),
    "drain": (),
    "resume": (),
    "ban": ("user", "reason"),
    "unban": ("user",),
    "wipe": ("user",),
    "log": (),
}


@pytest.fixture
def keepers(stage: Stage) -> Keepers:
    return enter(stage)


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Keepers]:
    """A stage whose moderator is the host's owner, and may see /host."""
    async with open_stage(tmp_path / "data") as first:
        owner = enter(first).moderator.id
    async with open_stage(tmp_path / "data", owner_ids=frozenset({owner})) as stage:
        keepers = enter(stage)
        await allow(stage, "host", keepers.moderator)
        yield keepers


async def mod(keepers: Keepers, name: str, by: MemberActor | None = None, **options: Any) -> InteractionResult:
    return await (by or keepers.moderator).slash(keepers.stage.channel, f"mod {name}", **options)


async def host(keepers: Keepers, name: str, by: MemberActor | None = None, **options: Any) -> InteractionResult:
    return await (by or keepers.moderator).slash(keepers.stage.channel, f"host {name}", **options)


async def acts(keepers: Keepers, guild_id: int | None = None) -> list[Act]:
    guild_id = keepers.stage.guild.id if guild_id is None else guild_id
    return [entry.act for entry in reversed(await keepers.stage.kiln.keepers.audit.of_server(guild_id, limit=50))]


def values(keepers: Keepers, names: tuple[str, ...]) -> dict[str, Any]:
    chosen = {"user": keepers.stage.alice, "reason": "because", "job": 1}
    return {name: chosen[name] for name in names}


# Who may


@pytest.mark.parametrize("name", MOD_COMMANDS)
async def test_a_member_may_do_nothing_of_a_moderators_even_where_the_server_shows_it(
    keepers: Keepers, name: str
) -> None:
    assert not [found for found in keepers.stage.alice.available_commands(keepers.stage.channel) if "mod" in found]
    await allow(keepers.stage, "mod", keepers.stage.alice)
    result = await mod(keepers, name, keepers.stage.alice, **values(keepers, MOD_COMMANDS[name]))
    assert "You need the permission Timeout Members" in said(result)
    assert await acts(keepers) == []


@pytest.mark.parametrize("name", HOST_COMMANDS)
async def test_nobody_but_the_owners_of_the_settings_does_what_is_the_hosts(keepers: Keepers, name: str) -> None:
    admin_role = keepers.stage.guild.create_role("admins", permissions=discord.Permissions(administrator=True))
    admin = keepers.stage.guild.add_member(keepers.stage.env.create_user("admin"), roles=[admin_role])
    result = await host(keepers, name, admin, **values(keepers, HOST_COMMANDS[name]))
    assert "That is for the host of this Kiln alone." in said(result)
    assert await acts(keepers, EVERYWHERE) == []


async def test_a_keeper_is_a_moderator_too(keepers: Keepers) -> None:
    await allow(keepers.stage, "mod", keepers.keeper)
    assert "Nobody is banned" in said(await mod(keepers, "bans", keepers.keeper))


# Bans


async def test_a_ban_holds_is_told_with_its_reason_listed_and_lifted(keepers: Keepers) -> None:
    await keepers.change(log_channel_id=keepers.log.id)
    result = await mod(keepers, "ban", user=keepers.stage.alice, reason="@everyone **spam**", length="2h")
    assert f"<@{keepers.stage.alice.id}> is banned until <t:" in said(result)
    refused = said(await keepers.stage.imagine())
    assert "You may not use Kiln in this server before <t:" in refused
    assert r"\*\*spam\*\*" in refused
    assert "@everyone" not in refused
    assert r"\*\*spam\*\*" in said(await mod(keepers, "bans"))
    await mod(keepers, "unban", user=keepers.stage.alice)
    await keepers.stage.imagine()
    assert len(keepers.stage.pictures()) == 1
    assert await acts(keepers) == [Act.SETTINGS, Act.BAN, Act.WIPE, Act.UNBAN]
    heard = keepers.posts()
    assert len(heard) == 4
    assert f"<@{keepers.moderator.id}> banned <@{keepers.stage.alice.id}> until <t:" in heard[1]
    assert not any(stage_pings(keepers, post) for post in keepers.log.history())


def stage_pings(keepers: Keepers, post: discord.Message) -> set[int]:
    return keepers.stage.notified(post)


async def test_a_ban_without_a_length_is_for_ever_and_a_wrong_length_bans_nobody(keepers: Keepers) -> None:
    assert "up to 3660 days, like 2h or 3d; it is soon" in said(
        await mod(keepers, "ban", user=keepers.stage.alice, reason="x", length="soon")
    )
    assert await acts(keepers) == []
    assert "is banned for ever" in said(await mod(keepers, "ban", user=keepers.stage.alice, reason="x"))
    assert "You may not use Kiln in this server. Reason: x" in said(await keepers.stage.imagine())


async def test_nobody_bans_themselves_and_no_moderator_bans_a_keeper(keepers: Keepers) -> None:
    assert "You cannot ban yourself" in said(await mod(keepers, "ban", user=keepers.moderator, reason="x"))
    assert "may manage this server" in said(await mod(keepers, "ban", user=keepers.keeper, reason="x"))
    assert await acts(keepers) == []


async def test_unbanning_somebody_who_is_not_banned_is_said(keepers: Keepers) -> None:
    assert "is not banned here" in said(await mod(keepers, "unban", user=keepers.stage.alice))


@pytest.mark.parametrize("command", ["mod ban", "host ban"])
async def test_usual_lengths_are_offered(hosted: Keepers, command: str) -> None:
    offered = await hosted.moderator.autocomplete(hosted.stage.channel, command, "length", "d")
    assert [choice["value"] for choice in offered] == ["1d", "3d"]


@pytest.mark.parametrize(("text", "hours"), [("2h", 2), (" 3 D ", 72), ("1w", 168), ("30min", 0.5), ("2 天", 48)])
def test_lengths_that_are_understood(text: str, hours: float) -> None:
    assert parse_length(text).total_seconds() == hours * 3600


@pytest.mark.parametrize("text", ["", "0h", "2", "h", "-1h", "99999w", "1h30m", "²h", "1 h\n2"])
def test_lengths_that_are_not(text: str) -> None:
    with pytest.raises(Refusal, match="up to 3660 days"):
        parse_length(text)


# Pause, drain, resume


async def test_a_pause_is_seen_on_the_cards_and_ends_with_resume(keepers: Keepers) -> None:
    stage = keepers.stage
    await mod(keepers, "pause")
    result = await stage.imagine()
    assert "Held: This server is paused" in text_of(result.response)
    assert "held" in said(await stage.alice.slash(stage.channel, "queue"))
    assert "It is paused already." in said(await mod(keepers, "pause"))
    await mod(keepers, "resume")
    card, picture = stage.messages()
    assert picture.attachments
    assert "Done in" in text_of(card)
    assert "Nothing is paused or drained here." in said(await mod(keepers, "resume"))


async def test_a_drain_refuses_new_pictures_in_words(keepers: Keepers) -> None:
    await mod(keepers, "drain")
    assert "takes no new pictures for now, say its moderators" in said(await keepers.stage.imagine())
    await mod(keepers, "resume")
    await keepers.stage.imagine()
    assert len(keepers.stage.pictures()) == 1


async def test_the_hosts_pause_outlives_a_restart_and_its_owner_ends_it(hosted: Keepers) -> None:
    stage = hosted.stage
    assert "nothing more is begun" in said(await host(hosted, "pause"))
    await stage.env.restart_bot(create_bot(stage.kiln))
    await stage.imagine()
    assert stage.pictures() == []
    await host(hosted, "resume")
    assert len(stage.pictures()) == 1
    assert await acts(hosted, EVERYWHERE) == [Act.PAUSE, Act.RESUME]


async def test_the_hosts_drain_ban_and_wipe_hold_everywhere(hosted: Keepers) -> None:
    stage = hosted.stage
    await host(hosted, "drain")
    assert "Kiln takes no new pictures for now" in said(await stage.imagine())
    await host(hosted, "resume")
    await host(hosted, "ban", user=stage.alice, reason="bot")
    assert "You may not use Kiln everywhere. Reason: bot" in said(await stage.imagine())
    await host(hosted, "unban", user=stage.alice)
    await host(hosted, "pause")
    await stage.imagine()
    assert "cancelled: 1." in said(await host(hosted, "wipe", user=stage.alice))
    assert "paused Kiln" in said(await host(hosted, "log"))


MODERATORS_WORDS = {
    "ban": "is banned for ever",
    "unban": "is not banned here",
    "bans": "Nobody is banned.",
    "pause": "Paused",
    "drain": "Draining",
    "resume": "Nothing is paused",
    "wipe": "cancelled: 0",
    "reset": "again.",
    "job": "Job 1 of",
    "held": "No job waits",
    "log": "Nothing was done yet.",
}
HOSTS_WORDS = {
    "pause": "Paused",
    "drain": "Draining",
    "resume": "Nothing is paused",
    "ban": "is banned for ever",
    "unban": "is not banned here",
    "wipe": "cancelled: 0",
    "log": "Nothing was done yet.",
}


def test_every_command_of_keepers_is_tried_after_a_restart() -> None:
    assert (set(MODERATORS_WORDS), set(HOSTS_WORDS)) == (set(MOD_COMMANDS), set(HOST_COMMANDS))


@pytest.mark.parametrize("name", MODERATORS_WORDS)
async def test_every_command_of_moderators_works_after_a_restart(keepers: Keepers, name: str) -> None:
    await keepers.stage.imagine()
    await keepers.stage.env.restart_bot(create_bot(keepers.stage.kiln))
    assert MODERATORS_WORDS[name] in said(await mod(keepers, name, **values(keepers, MOD_COMMANDS[name])))


@pytest.mark.parametrize("name", HOSTS_WORDS)
async def test_every_command_of_the_host_works_after_a_restart(hosted: Keepers, name: str) -> None:
    await hosted.stage.env.restart_bot(create_bot(hosted.stage.kiln))
    assert HOSTS_WORDS[name] in said(await host(hosted, name, **values(hosted, HOST_COMMANDS[name])))


# Wipe, reset, look


async def test_wiped_jobs_say_so_on_their_cards(keepers: Keepers) -> None:
    await mod(keepers, "pause")
    await keepers.stage.imagine()
    assert f"Waiting jobs of <@{keepers.stage.alice.id}> cancelled: 1." in said(
        await mod(keepers, "wipe", user=keepers.stage.alice)
    )
    (card,) = keepers.stage.messages()
    assert "Cancelled: A moderator cancelled it." in text_of(card)


async def test_reset_lets_somebody_ask_again(tmp_path: Path) -> None:
    async with open_stage(tmp_path / "data", burst=1, pictures_per_hour=1) as stage:
        keepers = enter(stage)
        await stage.imagine()
        assert "an hour are yours here" in said(await stage.imagine())
        await mod(keepers, "reset", user=stage.alice)
        await stage.imagine()
        assert len(stage.pictures()) == 2
        assert "has never asked for a picture" in said(await mod(keepers, "reset", user=keepers.keeper))


async def test_a_moderator_looks_at_a_job_and_that_is_noted(keepers: Keepers) -> None:
    await keepers.stage.imagine("a *red* house")
    words = said(await mod(keepers, "job", job=1))
    assert r"a \*red\* house" in words
    assert f"Job 1 of <@{keepers.stage.alice.id}>, delivered" in words
    assert await acts(keepers) == [Act.LOOK]
    assert "This server has no job 99." in said(await mod(keepers, "job", job=99))


async def test_what_waits_for_a_decision_is_listed_and_decided_without_a_log_channel(keepers: Keepers) -> None:
    rule = Rule(words="fox", action=Action.HOLD)
    await keepers.stage.kiln.keepers.servers.add_rule(keepers.stage.guild.id, rule, actor_id=1)
    assert "No job waits" in said(await mod(keepers, "held"))
    await keepers.stage.imagine("a fox")
    assert "`1` of <@" in said(await mod(keepers, "held"))
    look = await mod(keepers, "job", job=1)
    assert look.response is not None
    await keepers.moderator.click(look.response, custom_id="review:1:approve")
    assert len(keepers.stage.pictures()) == 1


async def test_the_log_is_shown_newest_first(keepers: Keepers) -> None:
    assert "Nothing was done yet." in said(await mod(keepers, "log"))
    await mod(keepers, "pause")
    await mod(keepers, "resume")
    words = said(await mod(keepers, "log"))
    assert words.index("resumed Kiln") < words.index("paused Kiln")


def longest_job(**changes: Any) -> Job:
    """A job whose every word takes as much room as it can."""
    words = image_request("*" * 999 + "a", seed=2**32 - 1, width=2048, height=2048, steps=50)
    changes = {"request": words, "status": JobStatus.FAILED, "reason": "*" * 500, **changes}
    return replace(JOB, id=2**53 - 1, user_id=ID, guild_id=ID, channel_id=ID, card_message_id=ID, **changes)


@pytest.mark.parametrize("locale", LOCALES)
async def test_whatever_a_moderator_is_shown_fits_into_a_message(keepers: Keepers, locale: str) -> None:
    stage, say = keepers.stage, say_in(locale)
    looked = job_words(say, longest_job(result_message_id=ID))
    assert f"/{ID}/{ID}/{ID})" in looked
    assert stage.bot.user is not None
    nothing = discord.PermissionOverwrite(send_messages=False, view_channel=False)
    closed = stage.guild.create_text_channel("closed", overwrites={stage.bot.user: nothing})
    await keepers.change(log_channel_id=closed.id)
    guild = stage.bot.get_guild(stage.guild.id)
    assert guild is not None
    problem = channel_problem(guild, closed.id)
    assert problem is not None
    problem.values["channel"] = f"<#{ID}>"
    words = listed(say, ["x" * (CONTENT_CHARACTERS - 30)] * 20)
    assert len(f"{words}\n⚠️ {problem.told(say)}") <= MESSAGE_CHARACTERS
    assert len(looked) <= MESSAGE_CHARACTERS
    for act, values in ((Act.HOLD, {"rule": "*" * 600}), (Act.REPORT, {"reason": "*" * 300})):
        entry = Entry(
            act=act, guild_id=ID, actor_id=ID, user_id=ID, job_id=ID, channel_id=ID, message_id=ID, values=values
        )
        assert 1900 < len(_words(say, entry, longest_job())) <= MESSAGE_CHARACTERS


def test_a_moderator_is_linked_to_the_picture_where_it_stands_and_to_nothing_that_they_cannot_open() -> None:
    say, posted = say_in("en"), replace(longest_job(), result_message_id=9, parent_channel_id=5)
    assert f"[picture](https://discord.com/channels/{ID}/{ID}/9)" in job_words(say, posted)
    above = replace(posted, result_channel_id=5)
    assert f"[picture](https://discord.com/channels/{ID}/5/9)" in job_words(say, above)
    directly = job_words(say, replace(posted, result_channel_id=77))
    assert "[card](" in directly
    assert "[picture](" not in directly
    assert "[picture](" not in job_words(say, replace(posted, deleted_at=posted.created_at))
    assert "](" not in job_words(say, replace(posted, private=True))


# The log channel fails


async def test_a_moderator_is_told_that_the_log_channel_is_gone_and_nothing_is_lost(keepers: Keepers) -> None:
    await keepers.change(log_channel_id=12345)
    assert "The log channel was deleted, or I cannot see it" in said(await mod(keepers, "pause"))
    assert await acts(keepers) == [Act.SETTINGS, Act.PAUSE]
    await keepers.use(await keepers.panel(), "log", keepers.log)
    assert [post.split(" ")[1] for post in keepers.posts()] == ["changed", "paused", "changed"]


async def test_a_log_channel_that_refuses_is_asked_once_and_its_moderator_is_told(keepers: Keepers) -> None:
    stage = keepers.stage
    assert stage.bot.user is not None
    silent = discord.PermissionOverwrite(send_messages=False)
    closed = stage.guild.create_text_channel("closed", overwrites={stage.bot.user: silent})
    stage.kiln.keepers.log_channel._pauses = lambda: iter([0.0] * 20)
    await keepers.change(log_channel_id=closed.id)
    told = said(await mod(keepers, "pause"))
    assert f"I cannot post in the log channel <#{closed.id}>: I lack the permission Send Messages there." in told
    await mod(keepers, "resume")
    posts = [one for one in stage.env.http_requests if one.method == "POST" and f"/{closed.id}/" in one.path]
    assert len(posts) == 1
    await keepers.use(await keepers.panel(), "log", keepers.log)
    assert len(keepers.posts()) == 4


async def test_every_status_of_a_job_has_words(keepers: Keepers) -> None:
    from bot.queue.job import STATUS_WORDS

    assert set(STATUS_WORDS) == set(JobStatus)
