"""The daily budget: charged with the job, given back when it is not used, remembered across restarts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.errors import BudgetSpent
from bot.queue.job import Job, JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database, open_database
from gen.request import ImageResult
from tests.fakes import Clock, image_request, new_job

LIMITS = Limits(waiting_per_user=100, burst=1000, gpu_seconds_per_day=25.0)


@pytest.fixture
async def queue(database: Database, clock: Clock) -> JobQueue:
    """A queue that knows from somebody else's job that such a picture takes ten seconds."""
    queue = JobQueue(database, limits=LIMITS, now=clock)
    await queue.submit(new_job(1000, user_id=99))
    await drawn(queue, seconds=10.0)
    return queue


async def claimed(queue: JobQueue) -> Job:
    job = await queue.claim()
    assert job is not None
    return job


async def drawn(queue: JobQueue, *, seconds: float) -> None:
    result = ImageResult(png=b"", sha256="", seconds=seconds, model="fake")
    assert await queue.record_drawn(await claimed(queue), picture="x", result=result)


def spent(path: Path) -> float:
    with closing(sqlite3.connect(path)) as raw:
        return float(raw.execute("SELECT budget_seconds FROM users WHERE id = 1").fetchone()[0])


async def test_beyond_the_days_budget_a_job_is_refused_and_nothing_stored(queue: JobQueue) -> None:
    for number in range(2):
        await queue.submit(new_job(number))
    words = r"needs about 10 s of the GPU, and 5 s of your 25 s of today are left.*<t:1767312000:R>"
    with pytest.raises(BudgetSpent, match=words):
        await queue.submit(new_job(2))
    assert (await queue.overview()).waiting == 2
    await queue.submit(new_job(3, user_id=2))


async def test_a_picture_that_no_day_has_room_for_is_refused_with_another_reason(queue: JobQueue) -> None:
    with pytest.raises(BudgetSpent, match=r"about 40 s of the GPU, and 25 s a day are yours here"):
        await queue.submit(new_job(1, request=image_request(steps=16)))


async def test_the_next_day_has_all_of_it_again(queue: JobQueue, clock: Clock, path: Path) -> None:
    for number in range(2):
        await queue.submit(new_job(number))
    clock.move(86_400)
    for number in range(2, 4):
        await queue.submit(new_job(number))
    assert spent(path) == 20.0
    await drawn(queue, seconds=3.0)  # of yesterday: today's is not touched
    assert spent(path) == 20.0


async def test_a_clock_set_back_by_a_day_locks_nobody_out(queue: JobQueue, clock: Clock) -> None:
    for number in range(2):
        await queue.submit(new_job(number))
    clock.move(-86_400)
    await queue.submit(new_job(2))


async def test_what_was_not_used_is_given_back(queue: JobQueue, path: Path) -> None:
    await queue.submit(new_job(1))
    assert spent(path) == 10.0
    await drawn(queue, seconds=4.0)
    assert spent(path) == 4.0


@pytest.mark.parametrize(
    ("end", "cost"), [("failed", 0.0), ("cancelled", 3.0), ("queued", 0.0), ("quarantined", 0.0), ("drained", 10.0)]
)
async def test_a_job_that_brings_no_picture_costs_what_its_owner_used(
    queue: JobQueue, clock: Clock, path: Path, end: str, cost: float
) -> None:
    job = await queue.submit(new_job(1))
    if end == "queued":
        await queue.cancel(job.id, user_id=1)
    else:
        running = await claimed(queue)
        clock.move(3)
        match end:
            case "failed":
                await queue.record_failed(running, reason="x")
            case "cancelled":
                await queue.record_cancelled(running)
            case "drained":
                await queue.requeue(running)
            case _:
                await queue.recover()
                await claimed(queue)
                await queue.recover()
    assert spent(path) == cost


async def test_a_picture_that_is_lost_costs_nothing_until_it_is_drawn_again_and_nothing_when_it_is_lost_twice(
    queue: JobQueue, path: Path
) -> None:
    job = await queue.submit(new_job(1))
    await drawn(queue, seconds=4.0)
    again = await queue.redraw(job.id)
    assert again is not None
    assert (again.status, spent(path)) == (JobStatus.QUEUED, 4.0)  # reserved for the second drawing
    await drawn(queue, seconds=6.0)
    assert spent(path) == 6.0
    lost = await queue.redraw(job.id)
    assert lost is not None
    assert (lost.status, spent(path)) == (JobStatus.FAILED, 0.0)
    assert await queue.redraw(job.id) is None
    assert await queue.outbox.letters(job.id) == ()


@pytest.mark.parametrize("end", ["taken back", "stopped", "failed", "set aside"])
async def test_a_lost_picture_that_is_not_drawn_again_leaves_nothing_in_the_outbox(
    queue: JobQueue, path: Path, end: str
) -> None:
    job = await queue.submit(new_job(1))
    await drawn(queue, seconds=4.0)
    await queue.redraw(job.id)
    if end == "taken back":
        await queue.cancel(job.id, user_id=job.user_id)
    else:
        running = await claimed(queue)
        match end:
            case "stopped":
                await queue.record_cancelled(running)
            case "failed":
                await queue.record_failed(running, reason="x")
            case _:
                await queue.recover()
                await claimed(queue)
                await queue.recover()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT * FROM outbox WHERE job_id = ?", (job.id,)).fetchall() == []


async def test_a_lost_picture_of_a_kiln_before_accounts_is_drawn_again(queue: JobQueue, database: Database) -> None:
    job = await queue.submit(new_job(1))
    await drawn(queue, seconds=4.0)
    await database.write(lambda session: session.execute(text("UPDATE jobs SET account_id = NULL, charge = NULL")))
    await queue.redraw(job.id)
    assert (await claimed(queue)).id == job.id


async def test_the_same_interaction_is_charged_once(queue: JobQueue, path: Path) -> None:
    for _ in range(5):
        await queue.submit(new_job(1))
    assert spent(path) == 10.0


async def test_the_budget_survives_a_restart(path: Path, clock: Clock) -> None:
    for number in range(3):
        async with open_database(path) as database:
            queue = JobQueue(database, limits=Limits(gpu_seconds_per_day=0.2), now=clock)
            await queue.recover()
            if number < 2:
                await queue.submit(new_job(number))
            else:
                with pytest.raises(BudgetSpent):
                    await queue.submit(new_job(number))


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_a_budget_under_nothing_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="gpu_seconds_per_day must be 0 or more"):
        Limits(gpu_seconds_per_day=budget)
