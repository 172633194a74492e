"""The order run forward, its times with their uncertainty, and why somebody is fourth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from sqlalchemy.orm import Session

from bot.language import say_in
from bot.queue.forecast import Share, Waiting, turns, why
from bot.queue.job import Job, Limits, OverLimit, Place
from bot.queue.job_queue import JobQueue
from bot.queue.outlook import REST_MAX, REST_PER_SECOND, Lookout, Outlook
from bot.storage.database import Database
from gen.request import ImageResult
from tests.fakes import Clock, image_request, new_job

EN = say_in("en")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERYONE = Share(id=1, parent_id=None, weight=1.0, vtime=0, virtual_time=0, ticket=0)


def share(account: int, *, vtime: float = 0.0, weight: float = 1.0) -> Share:
    return Share(id=account, parent_id=1, weight=weight, vtime=int(vtime * 1e6), virtual_time=0, ticket=account)


def job(number: int, account: int, *, seconds: float = 10.0, not_before: float | None = None) -> Waiting:
    return Waiting(
        job_id=number, account_id=account, user_id=account, seconds=seconds, deviation=3.0, not_before=not_before
    )


def test_who_had_less_goes_before_an_older_job_and_people_take_turns() -> None:
    jobs = [job(1, 2), job(2, 2), job(3, 2), job(4, 3), job(5, 3)]
    found = list(turns([EVERYONE, share(2, vtime=5), share(3)], jobs, free_in=4.0, deviation=0.0))
    assert [turn.job.job_id for turn in found] == [4, 1, 5, 2, 3]
    assert [turn.ends for turn in found] == [14.0, 24.0, 34.0, 44.0, 54.0]
    assert [(turn.mine, turn.people) for turn in found] == [(0, 0), (0, 1), (1, 1), (1, 1), (2, 1)]


def test_the_uncertainty_grows_with_what_comes_before() -> None:
    found = list(turns([EVERYONE, share(2)], [job(1, 2), job(2, 2)], free_in=0.0, deviation=4.0))
    assert [turn.deviation for turn in found] == [5.0, pytest.approx(34**0.5)]


def test_a_deferred_job_waits_for_its_time_or_for_an_idle_card() -> None:
    jobs = [job(1, 2, not_before=15.0), job(2, 2, not_before=500.0), job(3, 3), job(4, 3), job(5, 3)]
    found = list(turns([EVERYONE, share(2), share(3)], jobs, free_in=0.0, deviation=0.0))
    assert [turn.job.job_id for turn in found] == [3, 4, 1, 5, 2]


@pytest.mark.parametrize(
    ("position", "mine", "people", "words"),
    [
        (0, 0, 0, "It is being drawn now."),
        (1, 0, 0, "You are next."),
        (2, 1, 0, "Place 2, because 1 of your own pictures is before it."),
        (3, 2, 0, "Place 3, because 2 of your own pictures are before it."),
        (
            2,
            0,
            1,
            "Place 2, because 1 picture of 1 other person comes first, who asked earlier or had less of the GPU.",
        ),
        (
            4,
            1,
            2,
            "Place 4, because 1 of your own pictures is before it and 2 pictures of 2 other people come first, "
            "who asked earlier or had less of the GPU.",
        ),
    ],
)
def test_why_am_i_fourth(position: int, mine: int, people: int, words: str) -> None:
    assert why(EN, Place(position=position, waiting=9, ready_at=NOW, mine=mine, people=people)) == words


def test_why_a_deferred_job_waits() -> None:
    place = Place(position=1, waiting=1, ready_at=NOW, deferred_until=NOW + timedelta(seconds=0.5))
    assert why(EN, place) == (
        "You are next. You asked faster than your rate, so it lets others go first until <t:1767225601:R>."
    )


# who came after the look


@pytest.mark.parametrize("seed", range(12))
async def test_a_newcomers_place_is_the_one_that_a_new_look_finds(queue: JobQueue, clock: Clock, seed: int) -> None:
    random = Random(seed)

    async def ask(number: int) -> Job:
        request = image_request(steps=random.choice((4, 4, 20)))
        new = new_job(number, user_id=random.randrange(7), request=request)
        return await queue.submit(new, weight=random.choice((0.5, 1.0, 3.0)) if number < 4 else None)

    for number in range(1, 4):
        await ask(number)
        job = await queue.claim()
        assert job is not None
        result = ImageResult(png=b"", sha256="", seconds=float(job.request.steps), model="fake")
        await queue.record_drawn(job, picture="x", result=result)
    for number in range(10, 10 + random.randrange(9)):
        await ask(number)
    if seed % 2:
        await queue.claim()
    await queue.overview()
    jobs = [await ask(number) for number in range(100, 108)]
    for job in reversed(jobs):
        quick, exact = await queue.place_of_new(job.id), await Lookout.look(queue._lookout)
        found = exact.place(job.id)
        assert quick is not None
        assert found is not None
        assert (quick.position, quick.mine, quick.people) == (found.position, found.mine, found.people)
        assert quick.waiting == found.waiting
        assert abs(quick.ready_at - found.ready_at) < timedelta(milliseconds=1)
        assert abs(quick.uncertainty - found.uncertainty) < timedelta(milliseconds=1)


async def looks(queue: JobQueue, action: Callable[[], Awaitable[object]]) -> int:
    """How often the whole queue is looked at for that."""
    seen = 0
    original = queue._lookout.look

    async def count() -> Outlook:
        nonlocal seen
        seen += 1
        return await original()

    queue._lookout.look = count  # type: ignore[method-assign]
    await action()
    queue._lookout.look = original  # type: ignore[method-assign]
    return seen


async def test_a_newcomer_costs_no_look_until_something_moves_or_time_goes_by(queue: JobQueue) -> None:
    ticks = [0.0]
    queue._lookout._clock = lambda: ticks[0]

    async def ask(number: int) -> None:
        job = await queue.submit(new_job(number, user_id=number))
        place = await queue.place_of_new(job.id)
        assert place is not None
        assert place.position == place.waiting

    assert await looks(queue, lambda: ask(1)) == 1  # the first
    assert await looks(queue, lambda: ask(2)) == 0
    assert await looks(queue, lambda: ask(3)) == 0
    await queue.claim()
    assert await looks(queue, lambda: ask(4)) == 1  # something moved
    ticks[0] += REST_MAX
    assert await looks(queue, lambda: ask(5)) == 1
    assert await looks(queue, lambda: queue.place_of_new(1)) == 1  # no newcomer


async def test_a_long_line_is_not_looked_at_again_for_each_move(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.queue.outlook.SHORT_LINE", 2)
    ticks = [0.0]
    queue._lookout._clock = lambda: ticks[0]
    for number in range(1, 6):
        await queue.submit(new_job(number))
    await queue.overview()
    await queue.cancel(3, user_id=1)
    job = await queue.submit(new_job(9))
    assert await looks(queue, lambda: queue.place_of_new(job.id)) == 0
    ticks[0] += 5 / REST_PER_SECOND
    assert await looks(queue, lambda: queue.place_of_new(job.id)) == 1


@pytest.mark.parametrize("sees", [False, True])
async def test_who_comes_while_a_look_is_under_way_is_not_lost_and_counted_once(
    queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch, sees: bool
) -> None:
    await queue.submit(new_job(1, user_id=1))
    seen, go, read = asyncio.Event(), asyncio.Event(), database.read

    async def slow(work: Callable[[Session], Outlook]) -> Outlook:
        found = await read(work)
        seen.set()
        await go.wait()
        return await read(work) if sees else found

    monkeypatch.setattr(database, "read", slow)
    looking = asyncio.create_task(queue.overview())
    await seen.wait()
    job = await queue.submit(new_job(2, user_id=2))
    go.set()
    assert (await looking).waiting == 1 + sees
    monkeypatch.undo()
    assert await looks(queue, lambda: queue.place_of_new(job.id)) == sees
    place = await queue.place_of_new(job.id)
    assert place is not None
    assert (place.position, place.waiting) == (2, 2)


async def test_within_a_servers_share_a_newcomer_needs_a_look(database: Database, clock: Clock) -> None:
    shared = JobQueue(database, limits=Limits(), now=clock, server_share=True)
    for number in (1, 2):
        job = await shared.submit(new_job(number))
        assert await looks(shared, lambda job=job: shared.place_of_new(job.id)) == 1  # type: ignore[misc]


async def told_and_true(queue: JobQueue, job: Job) -> tuple[tuple[int, int], tuple[int, int]]:
    """A new job's place and how many wait: as its owner is told, and as a look finds it."""
    told = await queue.place_of_new(job.id)
    true = await queue.place(job.id)
    assert told is not None
    assert true is not None
    return (told.position, told.waiting), (true.position, true.waiting)


async def test_a_new_weight_moves_the_jobs_that_wait_and_the_next_ones_place_knows_it(queue: JobQueue) -> None:
    for number, user_id in enumerate((1, 1, 1, 2, 2, 2), start=1):
        await queue.submit(new_job(number, user_id=user_id))
    await queue.overview()
    told, true = await told_and_true(queue, await queue.submit(new_job(10, user_id=1), weight=4.0))
    assert told == true == (4 + 1, 7)  # four of its owner's in the time of one of the other's
    told, true = await told_and_true(queue, await queue.submit(new_job(11, user_id=3)))
    assert told == true


async def test_of_several_with_a_new_weight_none_is_placed_by_the_old_one(queue: JobQueue) -> None:
    for number, user_id in enumerate((1, 1, 1, 2, 2, 2), start=1):
        await queue.submit(new_job(number, user_id=user_id))
    await queue.overview()
    for job in await queue.submit_all([new_job(10), replace(new_job(10), number=2)], weight=4.0):
        told, true = await told_and_true(queue, job)
        assert told == true


async def test_a_new_job_overtakes_or_follows_own_deferred_ones_as_it_is_told(database: Database, clock: Clock) -> None:
    limits = Limits(waiting_per_user=20, pictures_per_hour=60, burst=1, over_limit=OverLimit.DEFER)
    queue = JobQueue(database, limits=limits, now=clock)
    generous = JobQueue(database, limits=Limits(waiting_per_user=20, burst=20), now=clock)
    generous._lookout = queue._lookout  # the limits of a role that was given meanwhile
    for number in (1, 2):
        await queue.submit(new_job(number, request=image_request(steps=40)))
    await queue.submit(new_job(3, user_id=2))
    await queue.overview()
    told, true = await told_and_true(queue, await queue.submit(new_job(4)))  # deferred
    assert told == true
    told, true = await told_and_true(queue, await generous.submit(new_job(5)))
    assert told == true


async def test_who_comes_after_a_deferred_job_is_told_that_it_waits_too(database: Database, clock: Clock) -> None:
    limits = Limits(waiting_per_user=20, pictures_per_hour=60, burst=1, over_limit=OverLimit.DEFER)
    queue = JobQueue(database, limits=limits, now=clock)
    await queue.submit(new_job(1))
    await queue.overview()
    await queue.submit(new_job(2))  # deferred
    told, true = await told_and_true(queue, await queue.submit(new_job(3, user_id=2)))
    assert told == true == (2, 3)


def test_a_deferred_job_brings_its_owner_no_credit_when_its_time_comes() -> None:
    """As a claim lifts whoever begins to wait: two of theirs do not both go before somebody who waited."""
    shares = [replace(EVERYONE, virtual_time=100_000_000), share(2), share(3, vtime=100.0)]
    waiting = [
        job(3, account=3),
        job(4, account=3),
        job(5, account=2, not_before=0.0),
        job(6, account=2, not_before=0.0),
    ]
    assert [turn.job.job_id for turn in turns(shares, waiting, free_in=0.0, deviation=0.0)] == [3, 5, 4, 6]
