"""A waiting card says the place that the job has, at a gentle pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.background import Tasks
from bot.delivery.delivery import EDIT_EVERY
from bot.queue.job import Job, Limits
from bot.queue.job_queue import JobQueue
from bot.queue.waiting import AT_ONCE, WaitingCards
from bot.storage.database import open_database
from tests.bot.conftest import Stage, eventually, text_of
from tests.fakes import Clock, new_job

MINUTE = 60.0


async def test_waiting_cards_move_up_when_the_line_moves(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    for number in range(3):
        await stage.imagine(f"endless rain {number}")
    assert "place 3 of 3" in text_of(stage.messages()[3])
    await stage.alice.slash(stage.channel, "cancel", job=2)
    await eventually(lambda: "place 1 of 2" in text_of(stage.messages()[2]))
    await eventually(lambda: "place 2 of 2" in text_of(stage.messages()[3]))
    stage.kiln.dispatcher.cancel(1)
    await eventually(lambda: "place 1 of 1" in text_of(stage.messages()[3]))
    assert "Drawing" in text_of(stage.messages()[2])


class Line:
    """Three waiting jobs, and what is shown of them."""

    def __init__(self, queue: JobQueue, clock: Clock) -> None:
        self.queue, self.clock, self.tasks = queue, clock, Tasks()
        self.shown: list[int] = []
        self.cards = WaitingCards(queue=queue, tasks=self.tasks, show=self._show, edit_every=EDIT_EVERY, now=clock)

    async def moved(self) -> list[int]:
        """Whose cards were shown again because of a move."""
        self.shown.clear()
        before = await self.queue.line(limit=9)
        self.cards.moved()
        await self._looked()
        assert [job.id for job, _ in await self.queue.line(limit=9)] == [job.id for job, _ in before]
        return self.shown

    async def _looked(self) -> None:
        for _ in range(3):  # each look waits for the one under way
            await self.queue.overview()
            await asyncio.sleep(0.05)

    def _show(self, job: Job) -> None:
        self.shown.append(job.id)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    clock = Clock()
    async with open_database(tmp_path / "kiln.sqlite3") as database:
        queue = JobQueue(database, limits=Limits(), now=clock, prior=1e-3)  # an hour a picture
        for number in range(4):
            await queue.submit(new_job(number))
        await queue.claim()
        line = Line(queue, clock)
        yield line
        line.cards.close()
        await line.tasks.aclose()


async def test_who_becomes_next_is_shown_at_once_and_others_once_a_minute(line: Line) -> None:
    assert await line.moved() == [2]
    await line.queue.cancel(2, user_id=1)
    assert await line.moved() == [3]
    line.clock.move(MINUTE - 1)
    assert await line.moved() == []
    line.clock.move(1)
    assert await line.moved() == [4]


async def test_the_length_of_the_line_is_shown_anew_once_a_minute(line: Line) -> None:
    await line.queue.submit(new_job(9))  # behind all others
    await line.moved()
    line.clock.move(MINUTE)
    await line.moved()
    await line.queue.cancel(5, user_id=1)
    assert await line.moved() == [2]  # it was shown a minute ago, the others just now


async def test_a_clock_that_was_set_back_by_a_day_leaves_no_card_alone_for_a_day(line: Line) -> None:
    assert await line.moved() == [2]
    line.clock.move(-86_400)
    assert await line.moved() == [2, 3, 4]
    assert await line.moved() == []


async def test_a_time_that_has_passed_is_shown_anew(line: Line) -> None:
    await line.moved()
    (_, place), *_ = await line.queue.line(limit=1)
    line.clock.move((place.ready_at - line.clock()).total_seconds())
    assert 2 in await line.moved()
    assert 2 not in await line.moved()


@pytest.mark.parametrize(("factor", "shown"), [(1.1, []), (1.5, [2])])
async def test_a_time_that_moved_by_more_than_a_fifth_is_corrected_once_a_minute(
    line: Line, factor: float, shown: list[int]
) -> None:
    """The estimate changes because jobs take longer than was thought."""
    await line.moved()
    line.queue._lookout._prior *= factor
    line.clock.move(MINUTE - 1)
    assert 2 not in await line.moved()
    line.clock.move(1)
    assert [job for job in await line.moved() if job == 2] == shown
    assert 2 not in await line.moved()


async def test_many_that_are_due_together_are_edited_a_few_at_a_time_and_all(line: Line) -> None:
    for number in range(100, 108):
        await line.queue.submit(new_job(number, user_id=number))
    await line.moved()
    line.clock.move(MINUTE)
    shown = await line.moved()
    assert len(shown) == len(set(shown)) > 2 * AT_ONCE - 1


async def test_a_card_that_several_jobs_share_is_shown_once_a_minute_by_the_first(line: Line) -> None:
    jobs = await line.queue.submit_all([replace(new_job(9, user_id=2), number=n, count=4) for n in range(4)])
    await line.queue.record_card(*(job.id for job in jobs), message_id=777)
    line.clock.move(MINUTE)
    shared = {job.id for job in jobs}
    assert [job for job in await line.moved() if job in shared] == [jobs[0].id]
    await line.queue.cancel(jobs[0].id, user_id=2)  # the next one stands for the card now
    assert [job for job in await line.moved() if job in shared - {jobs[1].id}] == []
    line.clock.move(MINUTE)
    assert [job for job in await line.moved() if job in shared] == [jobs[1].id]


async def test_nothing_runs_when_nobody_waits(line: Line) -> None:
    for number in (2, 3, 4):
        await line.queue.cancel(number, user_id=1)
    assert await line.moved() == []
    await line.tasks.wait(at_most=timedelta(seconds=5))
