"""A database that another program holds: the person hears of it in Discord's three seconds, and nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback.world import EPHEMERAL, LOADING, Channel, Message, Person
from tests.loopback_discord import LoopbackDiscord

DISCORD_SECONDS = 3.0


@asynccontextmanager
async def locked(kiln: KilnProcess, *, seconds: float) -> AsyncIterator[None]:
    """Hold the write lock, as a database browser does, for so long from the start of the body."""
    with closing(sqlite3.connect(kiln.data / "kiln.sqlite3", isolation_level=None)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        end = asyncio.get_running_loop().time() + seconds
        yield
        await asyncio.sleep(max(0.0, end - asyncio.get_running_loop().time()))
        browser.execute("ROLLBACK")


def messages_with(loopback: LoopbackDiscord, words: str) -> list[Message]:
    return [one for one in loopback.world.messages.values() if words in one.content]


@pytest.mark.parametrize(("command", "options"), [("imagine", {"prompt": "a red house"}), ("cancel", {"job": 1})])
async def test_a_long_lock_is_told_to_the_person_alone_and_changes_nothing(
    loopback: LoopbackDiscord,
    kiln: KilnProcess,
    ana: Person,
    room: Channel,
    command: str,
    options: dict[str, object],
) -> None:
    await kiln.start()
    async with locked(kiln, seconds=6):
        await loopback.slash(ana, room, command, seconds=DISCORD_SECONDS, **options)
        # The claim of the start may wait first.
        await loopback.world.until(lambda world: bool(messages_with(loopback, "cannot reach its queue")), seconds=20)
        await loopback.world.until(lambda world: len(world.messages) == 1)
        [told] = loopback.world.messages.values()
        assert told.body["flags"] & (EPHEMERAL | LOADING) == EPHEMERAL
    assert kiln.jobs() == []


@pytest.mark.slow
async def test_a_lock_of_half_a_minute_in_mid_drawing_costs_neither_the_picture_nor_those_who_ask_then(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = 0.3
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=10)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    async with locked(kiln, seconds=30):
        await loopback.slash(ana, room, "imagine", seconds=DISCORD_SECONDS, prompt="another", steps=1)
        await loopback.world.until(lambda world: bool(messages_with(loopback, "cannot reach its queue")))
    await kiln.until(lambda: kiln.statuses() == ["delivered"], seconds=90)
    [job] = kiln.jobs()
    assert ([picture.id for picture in loopback.pictures(room)], job.attempts) == ([job.result_message_id], 1)


async def test_a_short_lock_ends_in_the_card_and_the_picture(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    async with locked(kiln, seconds=3.5):
        interaction = await loopback.slash(ana, room, "imagine", seconds=DISCORD_SECONDS, prompt="a red house")
        card = interaction.message
        assert card is not None
        assert kiln.jobs() == []
    await kiln.until_accepted(jobs=1)
    await kiln.until_all("delivered")
    await loopback.world.until(lambda world: "Done" in card.text)
    assert [one.id for one in loopback.world.messages.values() if not one.uploads] == [card.id]
    assert len(loopback.pictures(room)) == 1


async def test_queue_and_the_list_of_cancel_answer_while_the_database_is_locked(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    async with locked(kiln, seconds=2):
        interaction = await loopback.slash(ana, room, "queue", seconds=DISCORD_SECONDS)
        assert await loopback.autocomplete(ana, room, "cancel", job="") == []
    assert interaction.message is not None
    assert "no picture waiting" in interaction.message.content
    assert interaction.message.body["flags"] & EPHEMERAL
