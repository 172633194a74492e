"""/stats and /about: counts that are the database's, the card as NVML has it, and what Kiln says of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import discord
import pytest
from simcord import MemberActor

from bot.cogs.stats import card_words, duration, model_words
from bot.errors import QueueUnavailable
from bot.host.card_reader import CardReader, Reading
from bot.language import say_in
from bot.queue.job_queue import JobQueue
from bot.queue.past import Past
from bot.storage.database import Database
from gen.request import ImageResult
from tests.bot.conftest import Stage, eventually, open_stage, said
from tests.fakes import FAKE_PROFILE, Clock, new_job

EN = say_in("en")
READING = Reading(
    name="NVIDIA H100", temperature=61, memory_used=20 * 2**30, memory_total=80 * 2**30, load=97, power=212.4
)


async def stats(stage: Stage, *, by: MemberActor | None = None) -> str:
    return said(await (by or stage.alice).slash(stage.channel, "stats"))


async def drawn(queue: JobQueue, number: int, *, seconds: float, user: int = 1, guild: int = 10) -> None:
    """One picture, from asking to the disk."""
    await queue.submit(replace(new_job(number, user_id=user), guild_id=guild))
    job = await queue.claim()
    assert job is not None
    result = ImageResult(png=b"", sha256="", seconds=seconds, model="fake")
    await queue.record_drawn(job, picture=f"{number}.png", result=result)


@pytest.fixture
def past(database: Database, clock: Clock) -> Past:
    clock.time = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
    return Past(database, now=clock)


# Counts


async def test_pictures_seconds_and_people_are_counted_for_me_the_server_and_everybody(
    past: Past, queue: JobQueue
) -> None:
    await drawn(queue, 1, seconds=3.0)
    await drawn(queue, 2, seconds=4.0, user=2)
    await drawn(queue, 3, seconds=5.0, user=2, guild=11)
    mine, server, everybody = (
        await past.tallies(user_id=1),
        await past.tallies(guild_id=10),
        await past.tallies(),
    )
    counts = [(one.today.pictures, one.today.seconds, one.today.people) for one in (mine, server, everybody)]
    assert counts == [(1, 3.0, 1), (2, 7.0, 2), (3, 12.0, 2)]


async def test_a_day_begins_at_midnight_and_lately_is_thirty_days(past: Past, queue: JobQueue, clock: Clock) -> None:
    now = clock.time
    for number, before in enumerate((31 * 86400, 29 * 86400, 12 * 3600 + 1, 12 * 3600 - 1, 0), start=1):
        clock.time = now - timedelta(seconds=before)
        await drawn(queue, number, seconds=1.0)
    tallies = await past.tallies()
    assert (tallies.today.pictures, tallies.lately.pictures) == (2, 4)


async def test_what_failed_or_waits_is_not_counted(past: Past, queue: JobQueue) -> None:
    await queue.submit(new_job(1))
    job = await queue.claim()
    assert job is not None
    await queue.record_failed(job, reason="x")
    await queue.submit(new_job(2))
    tallies = await past.tallies()
    assert (tallies.lately.pictures, tallies.lately.seconds, tallies.lately.people) == (0, 0.0, 0)


# /stats


async def test_stats_tell_mine_the_servers_everybodys_and_the_queue(stage: Stage) -> None:
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    await stage.imagine("one")
    await stage.imagine("two", by=bob)
    words = await stats(stage)
    assert "You: today 1 picture (0 s) · lately 1 picture (0 s)" in words
    assert "This server: today 2 pictures of 2 people (0 s)" in words
    assert "Everybody: today 2 pictures of 2 people" in words
    assert "No picture waits." in words
    assert "It has drawn less than 1 % of today." in words


async def test_the_queue_is_told_while_something_is_drawn(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    await stage.imagine("another")
    assert "1 picture waits, from 1 person" in await stats(stage)


async def test_stats_are_there_after_a_restart(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        await stage.imagine("one")
    async with open_stage(tmp_path) as stage:
        assert "You: today 1 picture" in await stats(stage)


async def test_the_card_is_told_as_it_is_now(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CardReader, "read", lambda self: READING)
    assert "NVIDIA H100 · 61 °C · 20.00 GiB of 80.00 GiB in use · load 97 % · 212 W" in await stats(stage)
    monkeypatch.setattr(CardReader, "read", lambda self: None)
    assert "no NVIDIA card here" in await stats(stage)


async def test_a_database_that_does_not_answer_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(Database, "read", fail)
    assert "cannot reach its queue" in await stats(stage)


def test_a_card_says_only_what_it_knows() -> None:
    silent = replace(READING, temperature=None, memory_used=None, load=None, power=None)
    assert card_words(EN, silent) == "NVIDIA H100"
    assert card_words(EN, replace(READING, load=None, power=None)).endswith("in use")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (6000, "2 h"), (360000, "100 h")],
)
def test_a_time_is_said_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert duration(EN, seconds) == words


# /about


async def test_about_tells_version_model_what_is_kept_and_every_command(stage: Stage) -> None:
    words = said(await stage.alice.slash(stage.channel, "about"))
    assert re.search(r"\*\*Kiln \d+\.\d+", words)
    assert "It draws with fake: 256x256, 4 steps and guidance 3.5" in words
    assert "small demo model" in words
    assert "AI-generated" in words
    assert "What it keeps" in words
    for command in stage.bot.tree.get_commands(type=discord.AppCommandType.chat_input):
        assert f"`/{command.name}` " in words
    assert len(words) <= 2000


async def test_about_fits_into_a_message_however_many_commands_there_are(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = stage.bot.tree.get_commands(type=discord.AppCommandType.chat_input) * 20
    monkeypatch.setattr(stage.bot.tree, "get_commands", lambda **_: many)
    assert 1800 < len(said(await stage.alice.slash(stage.channel, "about"))) <= 2000


def test_a_real_model_is_not_called_a_demo() -> None:
    assert "demo" not in model_words(EN, replace(FAKE_PROFILE, is_demo=False))
