"""The fair order against its bound, through the real SQL; and that each part of it is needed.

The mutants that must be caught: first in, first out; no lift; no correction.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from bot.bench.histories import STEPS, Event, History, Kind, Stage, random_history
from bot.queue import fairness
from bot.queue.estimates import PRIOR_RATE
from bot.queue.holding import hold_waiting, release_paused
from bot.queue.job import Job, JobStatus, Limits, OverLimit
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database, open_database
from bot.storage.tables import JobRow, has_status
from gen.request import ImageResult
from tests.bot.conftest import PLENTY
from tests.fakes import Clock, image_request, new_job

Play = Callable[[History], float]


@pytest.fixture
def play(path: Path) -> Iterator[Play]:
    """Plays a history and returns its worst drift as a fraction of the bound."""
    with asyncio.Runner() as runner:
        opened = open_database(path)
        stage = Stage(runner.run(opened.__aenter__()))
        yield lambda history: runner.run(stage.play(history))
        runner.run(opened.__aexit__(None, None, None))


class Asker:
    """Asks in the name of people, with a new interaction each time."""

    def __init__(self) -> None:
        self._numbers = count(1)

    async def __call__(
        self, queue: JobQueue, user_id: int, *, weight: float = 1.0, server: int = 10, steps: int = 4
    ) -> Job:
        new = new_job(next(self._numbers), user_id=user_id, request=image_request(steps=steps))
        return await queue.submit(replace(new, guild_id=server), weight=weight)


@pytest.fixture
def ask() -> Asker:
    return Asker()


async def claimed(queue: JobQueue) -> Job:
    job = await queue.claim()
    assert job is not None
    return job


async def draw(queue: JobQueue, *, seconds: float = 10.0) -> Job:
    """Claim the next job and finish it."""
    job = await claimed(queue)
    result = ImageResult(png=b"", sha256="", seconds=seconds, model="fake")
    assert await queue.record_drawn(job, picture="x", result=result)
    return job


async def owners(queue: JobQueue, turns: int) -> list[int]:
    return [(await draw(queue)).user_id for _ in range(turns)]


def account(path: Path, user_id: int, column: str) -> int:
    with closing(sqlite3.connect(path)) as raw:
        (value,) = raw.execute(f"SELECT {column} FROM accounts WHERE name = ?", (f"user:{user_id}",)).fetchone()
        return int(value)


# the bound


events = st.builds(
    Event,
    kind=st.sampled_from((Kind.ASK, Kind.CLAIM, Kind.END, Kind.CLAIM, Kind.END, Kind.TAKE_BACK)),
    person=st.integers(0, 2),
    size=st.integers(0, len(STEPS) - 1),
    jobs=st.sampled_from((1, 2, 6)),
    factor=st.floats(0.2, 3.0),
    end=st.sampled_from(("drawn", "drawn", "cancelled", "failed", "requeued")),
)
histories = st.builds(
    History,
    weights=st.tuples(*[st.floats(0.1, 10.0)] * 3),
    factors=st.tuples(*[st.sampled_from((0.4, 1.0, 2.5))] * 3),
    events=st.lists(events, max_size=40).map(tuple),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories)
def test_two_who_both_wait_never_differ_by_more_than_one_job_each(play: Play, history: History) -> None:
    assert play(history) <= 1 + 1e-6


def test_random_histories_keep_the_bound(play: Play) -> None:
    assert max(play(random_history(seed)) for seed in range(25)) <= 1 + 1e-6


def worst(play: Play) -> float:
    """Stop at the first history that breaks the bound."""
    return next((drift for seed in range(40) if (drift := play(random_history(seed, length=120))) > 1.01), 0.0)


def test_the_mutant_first_in_first_out_is_caught(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = select(func.min(JobRow.id)).where(has_status(JobStatus.QUEUED)).scalar_subquery()
    monkeypatch.setattr(fairness, "next_in_line", lambda: oldest)
    assert worst(play) > 1.01


def test_the_mutant_without_the_lift_is_caught(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    lifted = "max(vtime, (SELECT above.virtual_time FROM accounts AS above WHERE above.id = accounts.parent_id))"
    assert lifted in str(fairness.ENTER)
    monkeypatch.setattr(fairness, "ENTER", text(str(fairness.ENTER).replace(lifted, "vtime")))
    assert worst(play) > 1.01


def test_the_mutant_without_the_correction_is_caught(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    without = text("UPDATE accounts SET failures = 0 WHERE id = :account AND :used + :charge + :weight > 0")
    monkeypatch.setattr(fairness, "SETTLE", without)
    monkeypatch.setattr(fairness, "CORRECT", without)
    assert worst(play) > 1.01


def test_the_mutant_that_corrects_behind_the_next_claim_is_caught(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job is claimed while the last picture is still compressed; its owner must be charged by then."""

    async def nothing(self: JobQueue, job: Job, *, seconds: float) -> None:
        """The record will do it, too late."""

    monkeypatch.setattr(JobQueue, "charge_used", nothing)
    assert worst(play) > 1.01


WORKED_ALONE = History(
    weights=(1.0, 1.0),
    factors=(1.0, 1.0),
    events=(
        *(Event(kind=Kind.ASK, person=0), Event(kind=Kind.CLAIM), Event(kind=Kind.END)) * 8,
        *(Event(kind=Kind.ASK, person=0), Event(kind=Kind.CLAIM)),  # nobody waits while it is drawn
        *(Event(kind=Kind.ASK, person=1, jobs=6), Event(kind=Kind.ASK, person=0, jobs=6), Event(kind=Kind.END)),
        *(Event(kind=Kind.CLAIM), Event(kind=Kind.END)) * 8,
    ),
)


def test_the_mutant_that_lifts_to_nothing_when_nobody_waits_is_caught(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lift to the lowest who waits, as often described, forgets everything when nobody does."""
    lifted = "(SELECT above.virtual_time FROM accounts AS above WHERE above.id = accounts.parent_id)"
    lowest = "(SELECT coalesce(min(other.vtime), 0) FROM accounts AS other WHERE other.waiting > 0)"
    monkeypatch.setattr(fairness, "ENTER", text(str(fairness.ENTER).replace(lifted, lowest)))
    assert play(WORKED_ALONE) > 1.01


def test_one_who_worked_alone_owes_nothing_to_one_who_comes_between_two_of_their_jobs(play: Play) -> None:
    assert play(WORKED_ALONE) <= 1 + 1e-6


async def test_a_newcomer_is_next_behind_ten_thousand_jobs_of_one_person(
    queue: JobQueue, path: Path, ask: Asker
) -> None:
    await ask(queue, 1)
    await draw(queue)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
            "INSERT INTO jobs (status, interaction_id, user_id, guild_id, channel_id, prompt, seed, width, height, "
            "steps, guidance, attempts, created_at, account_id) SELECT 'queued', -i, user_id, guild_id, channel_id, "
            "prompt, seed, width, height, steps, guidance, 0, created_at, account_id FROM n, jobs"
        )
        raw.execute("UPDATE accounts SET waiting = 10000 WHERE name = 'user:1'")
    await draw(queue)
    newcomer = await ask(queue, 2)
    place = await queue.place(newcomer.id)
    assert place is not None
    assert (place.position, place.waiting) == (1, 10000)
    assert await owners(queue, 2) == [2, 1]


async def test_twice_the_weight_is_twice_the_gpu(queue: JobQueue, ask: Asker) -> None:
    for _ in range(30):
        await ask(queue, 1, weight=2.0)
        await ask(queue, 2)
    assert sorted(await owners(queue, 30)) == [1] * 20 + [2] * 10


async def test_a_weight_that_is_no_share_is_refused(queue: JobQueue, ask: Asker) -> None:
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a weight must be a finite number above 0"):
            await ask(queue, 1, weight=weight)
    assert (await queue.overview()).waiting == 0


async def test_small_pictures_cost_less_than_large_ones(queue: JobQueue, ask: Asker) -> None:
    for _ in range(12):
        await ask(queue, 1, steps=40)
        await ask(queue, 2, steps=10)
    turns = []
    for _ in range(10):
        job = await claimed(queue)
        result = ImageResult(png=b"", sha256="", seconds=float(job.request.steps), model="fake")
        await queue.record_drawn(job, picture="x", result=result)
        turns.append(job.user_id)
    assert turns.count(2) == 8


async def test_one_who_was_away_comes_back_without_credit(queue: JobQueue, ask: Asker) -> None:
    await ask(queue, 2)
    await draw(queue, seconds=0.001)
    for _ in range(20):
        await ask(queue, 1)
    await owners(queue, 10)
    for _ in range(10):
        await ask(queue, 2)
    assert sorted(await owners(queue, 6)) == [1, 1, 1, 2, 2, 2]


async def test_a_picture_that_is_lost_long_after_brings_no_credit(queue: JobQueue, ask: Asker) -> None:
    """It is drawn again at once, but those that its owner asks for behind it have no turns in advance."""
    await ask(queue, user_id=1)
    lost = await draw(queue)
    for _ in range(20):
        await ask(queue, user_id=2)
    await owners(queue, 16)
    assert await queue.redraw(lost.id)
    for _ in range(3):
        await ask(queue, user_id=1)
    assert await owners(queue, 8) == [1, 1, 2, 1, 2, 1, 2, 2]


async def test_somebody_alone_gets_the_whole_card(queue: JobQueue, ask: Asker) -> None:
    for _ in range(5):
        await ask(queue, 1)
    assert await owners(queue, 5) == [1] * 5
    assert await queue.claim() is None


# what a turn costs


async def test_the_estimate_is_charged_at_the_claim_and_corrected_at_the_end(
    queue: JobQueue, path: Path, ask: Asker
) -> None:
    for _ in range(2):
        await ask(queue, 1, weight=4.0)
    await draw(queue, seconds=8.0)
    assert account(path, 1, "vtime") == 2_000_000
    job = await claimed(queue)
    assert account(path, 1, "vtime") == 4_000_000  # as long as the last one, until it is known
    await queue.record_drawn(job, picture="x", result=ImageResult(png=b"", sha256="", seconds=12.0, model="fake"))
    assert account(path, 1, "vtime") == 5_000_000


async def test_a_weight_that_changes_while_a_job_runs_refunds_what_was_charged(
    queue: JobQueue, path: Path, ask: Asker
) -> None:
    await ask(queue, 1, weight=3.0)
    job = await claimed(queue)
    await ask(queue, 1, weight=0.1)
    await queue.record_failed(job, reason="x")
    assert account(path, 1, "vtime") == 0


async def test_a_stopped_job_costs_what_it_used(queue: JobQueue, path: Path, clock: Clock, ask: Asker) -> None:
    await ask(queue, 1)
    await draw(queue, seconds=10.0)
    await ask(queue, 1)
    job = await claimed(queue)
    clock.move(3)
    assert await queue.record_cancelled(job)
    assert account(path, 1, "vtime") == 13_000_000


@pytest.mark.parametrize(("jump", "cost"), [(86_400, 40_000_000), (-86_400, 0)])
async def test_a_clock_that_jumps_by_a_day_costs_nobody_a_day(
    queue: JobQueue, path: Path, clock: Clock, ask: Asker, jump: float, cost: int
) -> None:
    await ask(queue, 1)
    await draw(queue, seconds=10.0)
    await ask(queue, 1)
    job = await claimed(queue)
    clock.move(jump)
    await queue.record_cancelled(job)
    assert account(path, 1, "vtime") == 10_000_000 + cost


async def test_a_failed_job_is_refunded_but_not_one_after_another(
    queue: JobQueue, path: Path, clock: Clock, ask: Asker
) -> None:
    costs = []
    for outcome in ("failed", "failed", "drawn", "failed"):
        await ask(queue, 1)
        before = account(path, 1, "vtime")
        job = await claimed(queue)
        clock.move(0.05)
        if outcome == "failed":
            await queue.record_failed(job, reason="x")
        else:
            await queue.record_drawn(job, picture="x", result=ImageResult(png=b"", sha256="", seconds=5.0, model="x"))
        costs.append(account(path, 1, "vtime") - before)
    assert costs == [0, 50_000, 5_000_000, 0]


async def test_one_whose_jobs_all_fail_does_not_keep_the_card(queue: JobQueue, clock: Clock, ask: Asker) -> None:
    for _ in range(10):
        await ask(queue, 1)
        await ask(queue, 2)
    turns = []
    for _ in range(8):
        job = await claimed(queue)
        clock.move(0.09)
        if job.user_id == 1:
            await queue.record_failed(job, reason="x")
        else:
            await queue.record_drawn(job, picture="x", result=ImageResult(png=b"", sha256="", seconds=0.09, model="x"))
        turns.append(job.user_id)
    assert turns.count(2) >= 3


async def test_a_drained_job_is_next_again_before_an_equal(queue: JobQueue, path: Path, ask: Asker) -> None:
    for user_id in (9, 3, 5):
        await ask(queue, user_id)
    job = await claimed(queue)
    assert await queue.requeue(job)
    assert account(path, 9, "vtime") == 0
    assert await owners(queue, 3) == [9, 3, 5]


async def test_an_orphan_is_requeued_at_its_owners_place(queue: JobQueue, path: Path, ask: Asker) -> None:
    for user_id in (9, 9, 3):
        await ask(queue, user_id)
    first = await claimed(queue)
    await queue.recover()
    assert account(path, 9, "waiting") == 2
    assert (await claimed(queue)).id == first.id
    await queue.recover()
    assert account(path, 9, "waiting") == 1
    assert account(path, 9, "vtime") == 0  # it was set aside, which is not its owner's fault
    assert (await claimed(queue)).user_id == 9


async def test_a_job_that_an_older_kiln_claimed_costs_nothing(queue: JobQueue, database: Database, ask: Asker) -> None:
    await ask(queue, 1)
    job = await claimed(queue)
    await database.write(lambda session: session.execute(text("UPDATE jobs SET charge = NULL, weight = NULL")))
    assert await queue.record_cancelled(job)


async def test_a_wrong_count_is_put_right_at_the_next_start(
    queue: JobQueue, database: Database, path: Path, ask: Asker
) -> None:
    await ask(queue, 1)
    await ask(queue, 2)
    await database.write(lambda session: session.execute(text("UPDATE accounts SET waiting = 1 - waiting")))
    assert await queue.claim() is None
    await queue.recover()
    assert (account(path, 1, "waiting"), account(path, 2, "waiting")) == (1, 1)
    assert await owners(queue, 2) == [1, 2]


async def test_a_cancelled_job_no_longer_waits(queue: JobQueue, path: Path, ask: Asker) -> None:
    job = await ask(queue, 1)
    await queue.cancel(job.id, user_id=1)
    assert (account(path, 1, "waiting"), account(path, 1, "vtime")) == (0, 0)


# a share for each server


@pytest.fixture
def shared(database: Database, clock: Clock) -> JobQueue:
    return JobQueue(database, limits=PLENTY, now=clock, server_share=True)


async def test_a_server_of_one_gets_as_much_as_a_server_of_five(shared: JobQueue, ask: Asker) -> None:
    for user_id in (1, 2, 3, 4, 5):
        for _ in range(6):
            await ask(shared, user_id, server=100)
    for _ in range(10):
        await ask(shared, 6, server=200)
    turns = await owners(shared, 20)
    assert turns.count(6) == 10
    assert [turns.count(user_id) for user_id in (1, 2, 3, 4, 5)] == [2] * 5


async def test_switching_the_share_on_and_off_loses_nobody(queue: JobQueue, shared: JobQueue, ask: Asker) -> None:
    for number in range(12):
        await ask(shared if number % 2 else queue, number % 4, server=number % 3)
    await shared.recover()
    jobs = [await draw(queue) for _ in range(12)]
    assert sorted(job.id for job in jobs) == list(range(1, 13))
    assert await queue.claim() is None


async def test_a_wrong_count_of_a_server_is_put_right(shared: JobQueue, database: Database, ask: Asker) -> None:
    await ask(shared, 1, server=100)
    await database.write(lambda session: session.execute(text("UPDATE accounts SET waiting = 0")))
    assert await shared.claim() is None
    await shared.recover()
    assert (await claimed(shared)).user_id == 1


# over the rate, waiting instead


@pytest.fixture
def deferring(database: Database, clock: Clock) -> JobQueue:
    limits = Limits(waiting_per_user=20, pictures_per_hour=60, burst=1, over_limit=OverLimit.DEFER)
    return JobQueue(database, limits=limits, now=clock)


async def test_over_the_rate_a_job_waits_while_others_go_first(deferring: JobQueue, clock: Clock, ask: Asker) -> None:
    for _ in range(3):
        await ask(deferring, 1)
    first = await claimed(deferring)
    assert await deferring.requeue(first)
    for _ in range(3):
        clock.move(60)
        await ask(deferring, 2)
        if _ == 0:
            assert (await draw(deferring)).id == first.id
    turns = await owners(deferring, 5)
    assert sorted(turns) == [1, 1, 2, 2, 2]


async def test_a_deferred_job_lets_later_ones_of_others_pass(deferring: JobQueue, ask: Asker) -> None:
    for _ in range(3):
        await ask(deferring, 1)
    for user_id in (2, 3, 4):
        await ask(deferring, user_id)
    assert await owners(deferring, 4) == [1, 2, 3, 4]
    assert await owners(deferring, 2) == [1, 1]  # nobody else waits, so the card does not idle
    assert await deferring.claim() is None


async def test_a_deferred_jobs_time_comes_and_it_is_lifted(
    deferring: JobQueue, clock: Clock, path: Path, ask: Asker
) -> None:
    first = await ask(deferring, 1)
    await ask(deferring, 1)
    assert account(path, 1, "waiting") == 1
    assert (await draw(deferring, seconds=1.0)).id == first.id
    for user_id in (2, 3):
        await ask(deferring, user_id)
    assert await owners(deferring, 1) == [2]
    clock.move(61)
    assert await owners(deferring, 2) == [3, 1]  # 1 had one second already


async def test_a_clock_that_was_set_back_by_a_day_does_not_defer_a_job_for_a_day(
    deferring: JobQueue, clock: Clock, ask: Asker
) -> None:
    await ask(deferring, 2)
    await draw(deferring, seconds=100.0)
    clock.move(3600)
    for _ in range(2):
        await ask(deferring, 1)
    await draw(deferring, seconds=1.0)
    clock.move(-86_400)
    await ask(deferring, 2)
    assert await owners(deferring, 2) == [1, 2]


async def test_a_deferred_job_can_be_cancelled(deferring: JobQueue, path: Path, ask: Asker) -> None:
    await ask(deferring, 1)
    second = await ask(deferring, 1)
    await deferring.cancel(second.id, user_id=1)
    assert account(path, 1, "waiting") == 1
    await draw(deferring)
    assert await deferring.claim() is None


async def test_a_deferred_job_that_a_pause_held_still_waits_for_its_time(
    deferring: JobQueue, database: Database, path: Path, ask: Asker
) -> None:
    await ask(deferring, 1)
    second = await ask(deferring, 1)
    held = await database.write(lambda session: hold_waiting(session, second.guild_id))
    assert len(held) == 2
    assert account(path, 1, "waiting") == 0
    await database.write(lambda session: release_paused(session, second.guild_id))
    assert account(path, 1, "waiting") == 1
    deferring.moved()
    place = await deferring.place(second.id)
    assert place is not None
    assert place.deferred_until is not None


async def test_a_deferred_job_says_until_when_it_waits(deferring: JobQueue, clock: Clock, ask: Asker) -> None:
    await ask(deferring, 1)
    second, third = await ask(deferring, 1), await ask(deferring, 1)
    for job, minutes in ((second, 1), (third, 2)):
        place = await deferring.place(job.id)
        assert place is not None
        assert place.deferred_until == clock() + timedelta(minutes=minutes)


# the order that places foretell


@pytest.mark.parametrize("seed", range(6))
async def test_places_foretell_the_order_of_claims(
    queue: JobQueue, shared: JobQueue, clock: Clock, ask: Asker, seed: int
) -> None:
    random = Random(seed)
    for _ in range(6):
        await ask(random.choice((queue, shared)), random.randrange(4), server=random.randrange(3), steps=4)
    for _ in range(3):
        await draw(queue)
    for _ in range(9):
        user_id = random.randrange(6)
        await ask(shared if seed % 2 else queue, user_id, weight=1.0 + user_id % 2, server=random.randrange(3))
    waiting = [job.id for user_id in range(6) for job in await queue.active_jobs(user_id)]
    places = {place.position: job_id for job_id in waiting if (place := await queue.place(job_id))}
    foretold = [places[position] for position in range(1, 13)]
    drawn = [(await draw(queue)).id for _ in waiting]
    assert drawn == foretold


async def test_places_foretell_the_order_with_deferred_jobs(deferring: JobQueue, clock: Clock, ask: Asker) -> None:
    for user_id in (1, 1, 1, 2, 2, 3):
        await ask(deferring, user_id, steps=40)
    jobs = range(1, 7)
    places = [await deferring.place(job_id) for job_id in jobs]
    foretold = [
        job_id for _, job_id in sorted((place.position, n) for n, place in zip(jobs, places, strict=True) if place)
    ]
    drawn = []
    for _ in jobs:
        job = await claimed(deferring)
        expected = 128 * 128 * 40 * PRIOR_RATE
        clock.move(expected)
        await deferring.record_drawn(
            job, picture="x", result=ImageResult(png=b"", sha256="", seconds=expected, model="x")
        )
        drawn.append(job.id)
    assert drawn == foretold
