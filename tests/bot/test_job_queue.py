"""The queue's verbs on a real SQLite file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from bot.errors import NotAllowed, QueueFull, QueueUnavailable, RateLimited, Refusal
from bot.queue.estimates import PRIOR_RATE, prior_rate
from bot.queue.job import STATUS_WORDS, Verb
from bot.queue.job_queue import Job, JobQueue, JobStatus, Limits, Overview
from bot.storage.database import Database, connect, open_database
from gen.message import Message
from gen.request import ImageRequest, ImageResult, LoraUse, Variation
from tests.bot.conftest import PLENTY
from tests.fakes import FAKE_PROFILE, Clock, image_request, new_job

ROOT = Path(__file__).resolve().parents[2]
DRAWN = ImageResult(png=b"png", sha256="0", seconds=8.0, model="fake", notice=Message("a notice"))


async def claimed(queue: JobQueue) -> Job:
    job = await queue.claim()
    assert job is not None
    return job


async def status(queue: JobQueue, job: Job) -> JobStatus:
    found = await queue.job(job.id)
    assert found is not None
    return found.status


async def drawn_job(queue: JobQueue, interaction_id: int, *, seconds: float = 8.0) -> Job:
    await queue.submit(new_job(interaction_id))
    job = await claimed(queue)
    result = ImageResult(png=b"", sha256="", seconds=seconds, model="fake")
    assert await queue.record_drawn(job, picture=f"pictures/{job.id}.png", result=result)
    return job


# submit


async def test_an_accepted_job_is_read_back_as_it_was_asked(queue: JobQueue, clock: Clock) -> None:
    request = image_request("a fox", seed=2**32 - 1, width=256, guidance=1.25)
    job = await queue.submit(new_job(2**63 - 1, user_id=2**62, request=request))
    assert job == await queue.job(job.id)
    assert (job.request, job.status, job.attempts, job.created_at) == (request, JobStatus.QUEUED, 0, clock())
    assert (job.interaction_id, job.user_id, job.guild_id, job.channel_id) == (2**63 - 1, 2**62, 10, 20)


async def test_a_claimed_job_draws_with_the_very_numbers_that_were_asked(queue: JobQueue) -> None:
    """5.0 stays 5.0: a recipe is JSON, and with 5 the same picture would be another file."""
    asked = image_request(guidance=5.0)
    await queue.submit(new_job(1, request=asked))
    assert repr((await claimed(queue)).request) == repr(asked)


async def test_six_simultaneous_submits_with_limit_two_accept_exactly_two(path: Path, clock: Clock) -> None:
    async with open_database(path) as one:
        other = connect(path)  # a second writer, so that SQLite decides and not our pool of one
        queues = [JobQueue(database, limits=Limits(waiting_per_user=2), now=clock) for database in (one, other)]
        answers = await asyncio.gather(
            *(queues[number % 2].submit(new_job(number)) for number in range(6)), return_exceptions=True
        )
        await other.aclose()
        assert [type(answer) for answer in answers].count(Job) == 2
        assert [type(answer) for answer in answers].count(QueueFull) == 4
        assert len(await queues[0].active_jobs(1)) == 2


async def test_the_same_interaction_fifty_times_at_once_is_one_job_charged_once(
    database: Database, clock: Clock
) -> None:
    queue = JobQueue(database, limits=Limits(waiting_per_user=1, burst=2), now=clock)
    jobs = await asyncio.gather(*(queue.submit(new_job(7)) for _ in range(50)))
    assert {job.id for job in jobs} == {1}
    assert await queue.cancel(1, user_id=1)
    await queue.submit(new_job(8))  # the burst's second, there because the fifty took one


async def test_the_waiting_cap_counts_waiting_jobs_of_one_person(database: Database, clock: Clock) -> None:
    queue = JobQueue(database, limits=Limits(waiting_per_user=2), now=clock)
    for number in range(2):
        await queue.submit(new_job(number))
    with pytest.raises(QueueFull, match=r"2 of your jobs wait already, and 2 may"):
        await queue.submit(new_job(2))
    await queue.submit(new_job(3, user_id=2))
    await claimed(queue)
    await queue.submit(new_job(4))


async def test_over_the_rate_nothing_is_stored_and_the_text_says_when_to_come_back(
    database: Database, clock: Clock
) -> None:
    queue = JobQueue(database, limits=Limits(waiting_per_user=100, pictures_per_hour=30, burst=3), now=clock)
    for number in range(3):
        await queue.submit(new_job(number))
    for number in range(3, 9):
        with pytest.raises(RateLimited, match=r"30 an hour.*<t:1767225720:R>") as refused:
            await queue.submit(new_job(number))
        assert refused.value.retry_at == clock() + timedelta(minutes=2)
    assert (await queue.overview()).waiting == 3
    await queue.submit(new_job(20, user_id=2))
    clock.move(120)
    await queue.submit(new_job(21))


async def test_the_rate_survives_a_restart(path: Path, clock: Clock) -> None:
    for number in range(2):
        async with open_database(path) as database:
            queue = JobQueue(database, limits=Limits(burst=1), now=clock)
            if number == 0:
                await queue.submit(new_job(number))
            else:
                with pytest.raises(RateLimited):
                    await queue.submit(new_job(number))


@pytest.mark.parametrize("name", ["waiting_per_user", "pictures_per_hour", "burst"])
def test_a_limit_under_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be 1 or more; it is 0"):
        Limits(**{name: 0})  # type: ignore[arg-type]


async def test_a_submit_cancelled_at_any_await_is_whole_or_absent(path: Path, clock: Clock) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        for number in range(60):
            task = asyncio.create_task(queue.submit(new_job(number)))
            for _ in range(number % 30):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            again = await queue.submit(new_job(number))
            assert again.interaction_id == number
        assert (await queue.overview()).waiting == 60


async def test_a_cancelled_claim_never_loses_a_job(path: Path, clock: Clock) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        await queue.submit(new_job(1))
        task = asyncio.create_task(queue.claim())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        await queue.recover()
        assert (await claimed(queue)).interaction_id == 1


VERBS: dict[str, Callable[[JobQueue, Job], Coroutine[Any, Any, object]]] = {
    "claim": lambda queue, job: queue.claim(),
    "cancel": lambda queue, job: queue.cancel(job.id, user_id=1),
    "record_drawn": lambda queue, job: queue.record_drawn(job, picture="x", result=DRAWN),
    "record_failed": lambda queue, job: queue.record_failed(job, reason="x"),
    "record_cancelled": lambda queue, job: queue.record_cancelled(job),
    "requeue": lambda queue, job: queue.requeue(job),
    "recover": lambda queue, job: queue.recover(),
    "record_delivered": lambda queue, job: queue.record_delivered(job.id, message_id=5),
    "redraw": lambda queue, job: queue.redraw(job.id),
    "keep": lambda queue, job: queue.outbox.keep(job.id, reason="x"),
    "give_up": lambda queue, job: queue.outbox.give_up(job.id, reason="x"),
}
FROM_QUEUED, FROM_DRAWN = ("claim", "cancel"), ("record_delivered", "redraw", "keep", "give_up")


def torn(path: Path) -> list[object]:
    """What a transaction that was done by half would leave: accounts that count wrongly, pictures without a letter."""
    counts = (
        "SELECT name, waiting FROM accounts WHERE name LIKE 'user:%' AND waiting <> "
        "(SELECT count(*) FROM jobs WHERE account_id = accounts.id AND status = 'queued')"
    )
    letters = "SELECT id FROM jobs WHERE status = 'drawn' AND id NOT IN (SELECT job_id FROM outbox)"
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(counts).fetchall() + raw.execute(letters).fetchall()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_cancelled_at_any_await_is_whole_or_absent(path: Path, clock: Clock, verb: str) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        for awaits in range(12):
            job = await queue.submit(new_job(awaits))
            if verb not in FROM_QUEUED:
                job = await claimed(queue)
            if verb in FROM_DRAWN:
                await queue.record_drawn(job, picture="x", result=DRAWN)
            task = asyncio.ensure_future(VERBS[verb](queue, job))
            for _ in range(awaits):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            await queue.record_shown(job.id)  # behind it, so it is done
            assert torn(path) == []
            for left in await queue.active_jobs(1):
                if left.status is JobStatus.QUEUED:
                    await queue.cancel(left.id, user_id=1)


KILLED_WHILE_SUBMITTING = """
import asyncio, sys
from pathlib import Path
from bot.storage.database import open_database
from bot.queue.job_queue import JobQueue, Limits
from tests.bot.conftest import PLENTY
from tests.fakes import Clock, new_job

async def main():
    async with open_database(Path(sys.argv[1])) as database:
        queue = JobQueue(database, limits=Limits(waiting_per_user=10**6, burst=10**6), now=Clock())
        number = (await queue.overview()).waiting
        while True:
            await queue.submit(new_job(number))
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""


def _submit_until_killed(path: Path, *, after: int) -> set[int]:
    """Run the script above, kill it with SIGKILL after so many answers, return all that it acknowledged."""
    command = [sys.executable, "-c", KILLED_WHILE_SUBMITTING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        acknowledged = {int(process.stdout.readline()) for _ in range(after)}
        process.kill()
        return acknowledged | {int(line) for line in process.stdout if line.endswith("\n")}


async def test_every_acknowledged_job_is_there_after_kill_9(path: Path, clock: Clock) -> None:
    acknowledged: set[int] = set()
    for after in (7, 20, 33):
        acknowledged |= await asyncio.to_thread(_submit_until_killed, path, after=after)
    async with open_database(path) as database:
        stored = {job.interaction_id for job in await JobQueue(database, limits=PLENTY, now=clock).active_jobs(1)}
    assert len(acknowledged) >= 60
    assert acknowledged <= stored


# claim and record


async def test_two_claims_never_take_the_same_job(path: Path, clock: Clock) -> None:
    async with open_database(path) as one:
        other = connect(path)
        queues = [JobQueue(database, limits=PLENTY, now=clock) for database in (one, other)]
        for number in range(20):
            await queues[0].submit(new_job(number))
        jobs = await asyncio.gather(*(queues[number % 2].claim() for number in range(24)))
        await other.aclose()
    taken = [job.id for job in jobs if job is not None]
    assert sorted(taken) == list(range(1, 21))
    assert len({job.attempt_token for job in jobs if job is not None}) == 20


async def test_claims_come_in_the_order_of_acceptance(queue: JobQueue, clock: Clock) -> None:
    for number in (5, 3, 9):
        await queue.submit(new_job(number, user_id=number))
    clock.move(4)
    job = await claimed(queue)
    assert (job.interaction_id, job.status, job.attempts, job.started_at) == (5, JobStatus.RUNNING, 1, clock())
    assert [(await claimed(queue)).interaction_id for _ in range(2)] == [3, 9]
    assert await queue.claim() is None


async def test_a_job_goes_from_queued_to_delivered(queue: JobQueue, clock: Clock) -> None:
    job = await queue.submit(new_job(1))
    await queue.record_card(job.id, message_id=2**60)
    running = await claimed(queue)
    clock.move(8)
    assert await queue.record_drawn(running, picture="pictures/2026-01/1.png", result=DRAWN)
    (waiting,) = await queue.undelivered()
    assert (waiting.status, waiting.picture, waiting.seconds) == (JobStatus.DRAWN, "pictures/2026-01/1.png", 8.0)
    assert (waiting.card_message_id, waiting.notice, waiting.finished_at) == (2**60, "a notice", clock())
    assert await queue.record_delivered(job.id, message_id=99)
    assert not await queue.record_delivered(job.id, message_id=100)
    done = await queue.job(job.id)
    assert done is not None
    assert (done.status, done.result_message_id) == (JobStatus.DELIVERED, 99)
    assert await queue.undelivered() == ()
    assert await queue.job(2) is None


@pytest.mark.parametrize("verb", ["drawn", "failed", "cancelled", "requeue"])
async def test_a_late_result_with_an_old_token_changes_nothing(
    queue: JobQueue, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.submit(new_job(1))
    late = await claimed(queue)
    await queue.recover()
    current = await claimed(queue)
    assert late.id == current.id
    verbs = {
        "drawn": lambda: queue.record_drawn(late, picture="x", result=DRAWN),
        "failed": lambda: queue.record_failed(late, reason="x"),
        "cancelled": lambda: queue.record_cancelled(late),
        "requeue": lambda: queue.requeue(late),
    }
    assert not await verbs[verb]()
    assert await queue.job(current.id) == current
    assert await queue.record_drawn(current, picture="y", result=DRAWN)
    assert not await verbs[verb]()
    assert await status(queue, current) is JobStatus.DRAWN


async def test_a_drained_job_goes_back_to_its_old_place_and_is_not_counted(queue: JobQueue) -> None:
    for number in range(3):
        await queue.submit(new_job(number))
    for _ in range(5):
        first = await claimed(queue)
        assert (first.id, first.attempts) == (1, 1)
        assert await queue.requeue(first)
    assert (await queue.recover()).requeued == ()
    back = await queue.job(1)
    assert back is not None
    assert (back.status, back.attempts, back.attempt_token, back.started_at) == (JobStatus.QUEUED, 0, None, None)


async def test_the_line_at_a_jobs_end_has_numbers_and_no_prompt(
    queue: JobQueue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await queue.submit(new_job(1, request=image_request("secretprompt")))
    clock.move(3)
    job = await claimed(queue)
    clock.move(9)
    await queue.record_drawn(job, picture="x", result=DRAWN)
    assert "job 1 drawn: seconds=8.0 wait=3.0 size=128x128 steps=4 attempts=1" in caplog.messages
    assert "secretprompt" not in caplog.text


# cancel


async def test_a_queued_job_is_cancelled_at_once(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = await queue.submit(new_job(1))
    assert (await queue.cancel(job.id, user_id=1)).status is JobStatus.CANCELLED
    assert await queue.claim() is None
    assert "job 1 cancelled: seconds=0.0 wait=0.0 size=128x128 steps=4 attempts=0" in caplog.messages


async def test_a_running_job_is_returned_still_running(queue: JobQueue) -> None:
    await queue.submit(new_job(1))
    running = await claimed(queue)
    assert await queue.cancel(running.id, user_id=1) == running
    assert await queue.record_cancelled(running)
    assert await status(queue, running) is JobStatus.CANCELLED


@pytest.mark.parametrize("drawn", [False, True])
async def test_why_a_drawing_was_stopped_is_kept_only_if_it_was(queue: JobQueue, drawn: bool) -> None:
    await queue.submit(new_job(1))
    running = await claimed(queue)
    await queue.cancel(running.id, user_id=1, moderator_id=9)
    if drawn:
        await queue.record_drawn(running, picture="x", result=DRAWN)
    else:
        await queue.record_cancelled(running)
    ended = await queue.job(running.id)
    assert ended is not None
    assert ended.reason == (None if drawn else "A moderator cancelled it.")


@pytest.mark.parametrize("over", ["drawn", "delivered", "failed", "cancelled", "quarantined"])
async def test_a_job_that_is_over_cannot_be_cancelled(queue: JobQueue, over: str) -> None:
    await queue.submit(new_job(1))
    job = await claimed(queue)
    match over:
        case "drawn" | "delivered":
            await queue.record_drawn(job, picture="x", result=DRAWN)
            if over == "delivered":
                await queue.record_delivered(job.id, message_id=1)
        case "failed":
            await queue.record_failed(job, reason="x")
        case "cancelled":
            await queue.record_cancelled(job)
        case _:
            await queue.recover()
            await claimed(queue)
            await queue.recover()
    before = await queue.job(job.id)
    with pytest.raises(Refusal, match=f"Job 1 is over already: it is {STATUS_WORDS[JobStatus(over)]}."):
        await queue.cancel(job.id, user_id=1)
    assert await queue.job(job.id) == before


async def test_nobody_cancels_a_job_of_somebody_else_or_learns_that_it_exists(queue: JobQueue) -> None:
    job = await queue.submit(new_job(1))
    words = []
    for job_id in (job.id, 77):
        with pytest.raises(NotAllowed) as refused:
            await queue.cancel(job_id, user_id=2)
        words.append(str(refused.value).replace(str(job_id), "N"))
    assert words[0] == words[1]
    assert await status(queue, job) is JobStatus.QUEUED


# recover


async def test_an_orphan_is_requeued_in_place_and_quarantined_at_its_second_crash(queue: JobQueue) -> None:
    for number in range(3):
        await queue.submit(new_job(number))
    await claimed(queue)
    first = await queue.recover()
    assert [(job.id, job.status, job.attempts) for job in first.requeued] == [(1, JobStatus.QUEUED, 1)]
    assert first.quarantined == ()
    assert (await claimed(queue)).id == 1
    second = await queue.recover()
    assert [(job.id, job.status) for job in second.quarantined] == [(1, JobStatus.QUARANTINED)]
    assert second.requeued == ()
    assert "went down 2 times" in str(second.quarantined[0].reason)
    assert (await claimed(queue)).id == 2


async def test_recovery_leaves_every_other_job_alone(queue: JobQueue) -> None:
    drawn = await drawn_job(queue, 1)
    queued = await queue.submit(new_job(2))
    recovery = await queue.recover()
    assert (recovery.requeued, recovery.quarantined) == ((), ())
    assert [job.id for job in await queue.undelivered()] == [drawn.id]
    assert await queue.job(queued.id) == queued


async def test_a_drain_between_two_crashes_does_not_hide_the_first(queue: JobQueue) -> None:
    await queue.submit(new_job(1))
    await claimed(queue)
    await queue.recover()
    assert await queue.requeue(await claimed(queue))
    await claimed(queue)
    assert len((await queue.recover()).quarantined) == 1


async def test_a_stored_request_outside_todays_limits_is_still_readable(queue: JobQueue, database: Database) -> None:
    job = await queue.submit(new_job(1))
    await database.write(lambda session: session.execute(text("UPDATE jobs SET steps = 999")))
    assert (await claimed(queue)).request.steps == 999
    assert await status(queue, job) is JobStatus.RUNNING


# place


async def test_places_count_from_the_running_job(queue: JobQueue) -> None:
    for number in range(3):
        await queue.submit(new_job(number))
    await claimed(queue)
    places = [await queue.place(number) for number in (1, 2, 3)]
    assert [(place.position, place.waiting) for place in places if place] == [(0, 2), (1, 2), (2, 2)]
    assert [job.id for job in await queue.active_jobs(1)] == [1, 2, 3]
    assert await queue.active_jobs(2) == ()


async def test_before_any_job_the_estimate_is_a_prior(queue: JobQueue, clock: Clock) -> None:
    await queue.submit(new_job(1, request=image_request(width=1024, height=1024, steps=20)))
    place = await queue.place(1)
    assert place is not None
    assert place.ready_at - clock() == timedelta(seconds=30)


def test_the_prior_knows_the_small_model_from_a_large_one() -> None:
    small = FAKE_PROFILE.width * FAKE_PROFILE.height * FAKE_PROFILE.steps
    assert 1 < prior_rate(FAKE_PROFILE) * small < 5
    assert prior_rate(replace(FAKE_PROFILE, is_demo=False)) == PRIOR_RATE


async def test_an_estimate_is_never_past_when_it_is_read(queue: JobQueue, clock: Clock) -> None:
    await drawn_job(queue, 1, seconds=0.001)
    await queue.submit(new_job(2))
    place = await queue.place(2)
    assert place is not None
    assert (place.position, place.waiting, place.ready_at) == (1, 1, clock() + timedelta(seconds=2))
    assert (await queue.overview()).ready_at == clock() + timedelta(seconds=2)


async def test_an_estimate_counts_the_drawing_alone_the_rest_overlaps_the_next(queue: JobQueue, clock: Clock) -> None:
    await queue.submit(new_job(1))
    job = await claimed(queue)
    clock.move(12)
    await queue.record_drawn(job, picture="pictures/1.png", result=DRAWN)
    await queue.submit(new_job(2))
    place = await queue.place(2)
    assert place is not None
    assert place.ready_at - clock() == timedelta(seconds=DRAWN.seconds)


async def test_the_estimate_is_the_median_of_the_last_twenty_of_the_same_shape(queue: JobQueue, clock: Clock) -> None:
    for number, seconds in enumerate([500.0] * 5 + [10.0] * 11 + [99.0] * 9):
        clock.move(1)
        await drawn_job(queue, number, seconds=seconds)
    job = await queue.submit(new_job(100))
    place = await queue.place(job.id)
    assert place is not None
    assert place.ready_at - clock() == timedelta(seconds=10)


async def test_timings_from_a_future_that_a_clock_set_back_left_behind_do_not_stay_the_latest(
    database: Database, clock: Clock
) -> None:
    queue = JobQueue(database, limits=PLENTY, now=clock)
    await drawn_job(queue, 1, seconds=100.0)  # cold
    clock.move(86_400)
    for number in range(2, 23):
        clock.move(60)
        await drawn_job(queue, number, seconds=100.0)
    clock.move(-86_400)
    await queue.submit(new_job(30, user_id=2))  # the first one's rate is used up by the clock
    result = ImageResult(png=b"", sha256="", seconds=2.0, model="fake")
    await queue.record_drawn(await claimed(queue), picture="x", result=result)
    job = await queue.submit(new_job(31, user_id=3))
    place = await queue.place(job.id)
    assert place is not None
    assert place.ready_at - clock() == timedelta(seconds=2)


async def expected(queue: JobQueue, number: int, *, steps: int = 4) -> float:
    """Seconds that a job is thought to take."""
    job = await queue.submit(new_job(number, request=image_request(steps=steps)))
    place = await queue.place(job.id)
    await queue.cancel(job.id, user_id=1)
    assert place is not None
    return (place.ready_at - queue.now()).total_seconds()


async def test_a_negative_prompt_is_thought_to_take_twice_the_time_before_and_after_the_first_timing(
    path: Path, clock: Clock
) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        guided = new_job(50, request=image_request(negative="a tree", cfg_scale=2.0))
        await queue.claim()
        for number in range(3):
            clock.move(60)
            await drawn_job(queue, number, seconds=10.0)
        for job in (await queue.submit(guided), await queue.submit(new_job(51))):
            place = await queue.place(job.id)
            assert place is not None
            ready = (place.ready_at - clock()).total_seconds()
            assert ready == (20 if job.request.negative else 30)
        await queue.cancel(job.id, user_id=1)
        running = await claimed(queue)
        place = await queue.place(running.id)
        assert place is not None
        assert (place.ready_at - clock()).total_seconds() == 20


async def test_all_that_a_request_holds_and_how_it_came_about_is_kept(queue: JobQueue) -> None:
    parent = await queue.submit(new_job(1))
    request = image_request(
        negative="a 'tree' \"x\" 树",
        cfg_scale=2.5,
        loras=(LoraUse(name="ink wash", strength=-0.8), LoraUse(name="b.2", strength=1.0)),
        variations=(Variation(seed=2**32 - 1, share=0.4),),
    )
    new = replace(
        new_job(2, request=request), parent_id=parent.id, verb=Verb.STRONG, style="Ink", locale="zh-CN", private=True
    )
    job = await queue.submit(new)
    assert await queue.job(job.id) == job
    assert job.request == request
    kept = (job.parent_id, job.verb, job.style, job.locale, job.private, job.number)
    assert kept == (parent.id, Verb.STRONG, "Ink", "zh-CN", True, 0)
    assert (parent.parent_id, parent.verb, parent.locale, parent.private) == (None, None, None, False)


async def test_jobs_of_one_interaction_are_told_apart_by_number(queue: JobQueue) -> None:
    jobs = [await queue.submit(replace(new_job(7), number=number)) for number in (0, 1, 1)]
    assert [job.number for job in jobs] == [0, 1, 1]
    assert [job.id for job in jobs] == [1, 2, 2]


async def test_the_first_drawing_of_a_process_is_estimated_apart(path: Path, clock: Clock) -> None:
    async with open_database(path) as database:
        for start in range(2):  # two processes: each first drawing takes 30 s, the others 10 s
            queue = JobQueue(database, limits=PLENTY, now=clock)
            for number in range(3):
                clock.move(60)
                await drawn_job(queue, 10 * start + number, seconds=10.0 if number else 30.0)
            assert await expected(queue, 100 + start) == 10
        fresh = JobQueue(database, limits=PLENTY, now=clock)
        assert await expected(fresh, 200) == 30
        assert await expected(fresh, 201, steps=8) == 40  # never drawn cold: twice the work, and what cold costs
        await fresh.submit(new_job(202))
        await claimed(fresh)
        place = await fresh.place((await fresh.active_jobs(1))[0].id)
        assert place is not None
        assert place.ready_at - clock() == timedelta(seconds=30)
        assert await expected(fresh, 203) == 40  # behind it, warm
        await queue.recover()
        assert await fresh.cancel((await fresh.active_jobs(1))[0].id, user_id=1)
        other = JobQueue(database, limits=PLENTY, now=clock)
        await other.submit(new_job(204, request=image_request(steps=8)))
        running = await claimed(other)
        place = await other.place(running.id)
        assert place is not None
        assert place.ready_at - clock() == timedelta(seconds=40)


async def test_late_results_are_counted(queue: JobQueue) -> None:
    await queue.submit(new_job(1))
    late = await claimed(queue)
    await queue.recover()
    assert not await queue.record_failed(late, reason="x")
    assert queue.late_results == 1


async def test_an_unseen_shape_is_scaled_by_pixels_and_steps(queue: JobQueue, clock: Clock) -> None:
    await drawn_job(queue, 1, seconds=2.0)
    job = await queue.submit(new_job(2, request=image_request(width=256, height=256, steps=8)))
    place = await queue.place(job.id)
    assert place is not None
    assert place.ready_at - clock() == timedelta(seconds=16)


async def test_a_place_counts_what_is_left_of_the_running_job_and_all_before(queue: JobQueue, clock: Clock) -> None:
    await drawn_job(queue, 1, seconds=40.0)
    jobs = [await queue.submit(new_job(number)) for number in (2, 3)]
    await claimed(queue)
    clock.move(30)
    places = [await queue.place(job.id) for job in jobs]
    assert [place.ready_at - clock() for place in places if place] == [timedelta(seconds=10), timedelta(seconds=50)]
    clock.move(600)  # overdue: nobody knows, but a little is left
    places = [await queue.place(job.id) for job in jobs]
    assert [place.ready_at - clock() for place in places if place] == [timedelta(seconds=4), timedelta(seconds=44)]


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_clock_that_jumps_by_a_day_moves_nobodys_time_by_a_day(
    queue: JobQueue, clock: Clock, days: int
) -> None:
    jobs = [await queue.submit(new_job(number)) for number in (1, 2)]
    await claimed(queue)
    clock.move(days * 86_400)
    places = [await queue.place(job.id) for job in jobs]
    assert all(timedelta() < place.ready_at - clock() < timedelta(minutes=1) for place in places if place)


async def test_jobs_that_are_over_have_no_place(queue: JobQueue) -> None:
    job = await drawn_job(queue, 1)
    assert await queue.place(job.id) is None
    assert await queue.place(77) is None


async def test_the_overview_shows_the_whole_queue(queue: JobQueue, clock: Clock) -> None:
    assert await queue.overview() == Overview(waiting=0, people=0, running_job_id=None, ready_at=None)
    await drawn_job(queue, 1, seconds=10.0)
    for number, user_id in ((2, 1), (3, 2), (4, 2)):
        await queue.submit(new_job(number, user_id=user_id))
    running = await claimed(queue)
    ready_at = clock() + timedelta(seconds=30)
    assert await queue.overview() == Overview(waiting=2, people=2, running_job_id=running.id, ready_at=ready_at)


# the file


async def test_a_full_disk_refuses_stores_nothing_and_leaves_the_queue_usable(
    queue: JobQueue, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    first = await queue.submit(new_job(1))
    long = image_request("secretprompt " * 70)
    await _limit_pages(database, 1)
    with pytest.raises(QueueUnavailable, match="Nothing was changed"):
        await _fill(queue, long)
    stored = len(await queue.active_jobs(1))
    assert "database or disk is full" in caplog.text
    assert "secretprompt" not in caplog.text
    await _limit_pages(database, 1_000_000)
    await queue.submit(new_job(1000, request=long))
    assert len(await queue.active_jobs(1)) == stored + 1
    assert (await claimed(queue)).id == first.id


async def _limit_pages(database: Database, count: int) -> None:
    """SQLite's own full disk; it never limits below the present size."""
    await database.write(lambda session: session.execute(text(f"PRAGMA max_page_count = {count}")))


async def _fill(queue: JobQueue, request: ImageRequest) -> None:
    for number in range(2, 300):
        await queue.submit(new_job(number, request=request))


async def test_claim_and_limits_read_an_index_and_never_scan_the_jobs(
    queue: JobQueue, database: Database, path: Path
) -> None:
    seen: list[tuple[str, Any]] = []

    def note(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await drawn_job(queue, 1)
        await queue.submit(new_job(2))
        await queue.active_jobs(1)
        await queue.undelivered()
        await queue.outbox.letters()
        await queue.unshown()
        await queue.line(limit=50)
        await queue.place(2)
        await queue.overview()
        await queue.recover()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    with closing(sqlite3.connect(path)) as raw:
        plans = [
            f"{row[3]} <- {statement}"
            for statement, parameters in seen
            if statement.startswith(("SELECT", "UPDATE"))
            for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert len(plans) > 10
    assert any("jobs_unshown" in plan for plan in plans)
    claims = [plan for plan in plans if "UPDATE jobs SET status" in plan and "accounts_1" in plan]
    for index in ("accounts_waiting (parent_id=?)", "jobs_queued_by_account (account_id=?)"):
        assert any(index in plan for plan in claims)
    assert not any("SCAN" in plan.split(" <- ")[0] or "TEMP B-TREE" in plan for plan in claims)
    due = [plan for plan in plans if "not_before <=" in plan]
    assert due
    assert all("jobs_deferred" in plan for plan in due)
    assert [plan for plan in plans if plan.startswith("SCAN jobs") and "INDEX" not in plan.split(" <- ")[0]] == []


async def test_a_submit_asks_the_database_twenty_times_however_many_wait(queue: JobQueue) -> None:
    said: list[str] = []

    def note(_c: object, _u: object, statement: str, *_: object) -> None:
        said.append(statement)

    async def statements(number: int) -> int:
        said.clear()
        await queue.submit(new_job(number))
        return len(said)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await statements(1)  # the first of a person makes accounts
        few = await statements(2)
        for number in range(3, 40):
            await queue.submit(new_job(number, user_id=number))
        assert await statements(40) == few
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert few <= 20, "\n".join(said)  # each costs the event loop's answer at 200 submits a second
