"""Queue, dispatcher and GPU thread together: a real file, a real thread, a fake generator."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bot.errors import QueueUnavailable
from bot.queue import dispatcher as module
from bot.queue import drawing
from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Job, JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.queue.picture_file import write_picture
from bot.storage.database import Database, open_database
from gen.attempt import Attempt, Event, Executor
from gen.executor import GpuExecutor, Unfinished
from gen.request import ImageRequest, ImageResult, StepReport
from tests.bot.conftest import eventually
from tests.fakes import Clock, FakeGenerator, image_request, new_job, picture
from tests.subprocess_executor import DrawingProcess, SubprocessExecutor

PLENTY = Limits(waiting_per_user=1000, burst=1000)


class Outcomes:
    """Notes what it is told, in order; `until` waits for the next outcome of a kind."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.jobs: dict[int, Job] = {}
        self.fails = False
        self._new: asyncio.Queue[tuple[str, Job]] = asyncio.Queue()

    def started(self, job: Job) -> None:
        self._note("started", job)

    def progress(self, job: Job, report: StepReport) -> None:
        self._note("progress", job)

    def drawn(self, job: Job) -> None:
        self._note("drawn", job)

    def failed(self, job: Job) -> None:
        self._note("failed", job)

    def cancelled(self, job: Job) -> None:
        self._note("cancelled", job)

    def requeued(self, job: Job) -> None:
        self._note("requeued", job)

    async def until(self, kind: str) -> Job:
        async with asyncio.timeout(20):
            while True:
                found, job = await self._new.get()
                if found == kind:
                    return job

    def ends(self) -> list[tuple[str, int]]:
        """What was told, but for the beginning and the steps."""
        return [(kind, job_id) for kind, job_id in self.told if kind not in ("started", "progress")]

    def _note(self, kind: str, job: Job) -> None:
        self.told.append((kind, job.id))
        self.jobs[job.id] = job
        self._new.put_nowait((kind, job))
        if self.fails:
            raise KeyError("as asked")


class UnsteadyQueue(JobQueue):
    """A queue whose verbs can be made to fail, or to be overtaken, before they reach the database."""

    before: Callable[[str], Awaitable[None]] | None = None
    after: Callable[[str], Awaitable[None]] | None = None

    async def claim(self, *, unless: Callable[[], bool] = lambda: False) -> Job | None:
        await self._pass("before", "claim")
        job = await super().claim(unless=unless)
        await self._pass("after", "claim")
        return job

    async def charge_used(self, job: Job, *, seconds: float) -> None:
        await self._pass("before", "charge_used")
        await super().charge_used(job, seconds=seconds)
        await self._pass("after", "charge_used")

    async def record_drawn(self, job: Job, *, picture: str, result: ImageResult) -> bool:
        await self._pass("before", "record_drawn")
        return await super().record_drawn(job, picture=picture, result=result)

    async def record_failed(self, job: Job, *, reason: str) -> bool:
        await self._pass("before", "record_failed")
        return await super().record_failed(job, reason=reason)

    async def record_cancelled(self, job: Job) -> bool:
        await self._pass("before", "record_cancelled")
        return await super().record_cancelled(job)

    async def requeue(self, job: Job) -> bool:
        await self._pass("before", "requeue")
        return await super().requeue(job)

    async def _pass(self, when: str, verb: str) -> None:
        hook: Callable[[str], Awaitable[None]] | None = getattr(self, when)
        if hook is not None:
            await hook(verb)


@dataclass(slots=True, kw_only=True)
class Stage:
    """A dispatcher with everything around it."""

    queue: UnsteadyQueue
    dispatcher: Dispatcher
    data: Path
    path: Path
    generator: FakeGenerator
    outcomes: Outcomes = field(default_factory=Outcomes)

    async def ask(self, *prompts: str) -> list[Job]:
        """Submit and wake, as the command does."""
        first = (await self.queue.overview()).waiting + len(self.outcomes.jobs) + 1
        jobs = [
            await self.queue.submit(new_job(number, request=image_request(prompt)))
            for number, prompt in enumerate(prompts, start=first)
        ]
        self.dispatcher.wake()
        return jobs

    async def status(self, job_id: int) -> JobStatus:
        job = await self.queue.job(job_id)
        assert job is not None
        return job.status

    async def idle(self) -> None:
        """Wait until the drain task has gone."""
        if self.dispatcher._drain is not None:
            async with asyncio.timeout(20):
                await asyncio.wait({self.dispatcher._drain})


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "kiln.sqlite3", busy_seconds=0.05) as database:
        yield database


@asynccontextmanager
async def open_stage(
    database: Database,
    folder: Path,
    generator: FakeGenerator,
    *,
    executor: Executor | None = None,
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        outcomes = Outcomes()
        stack.callback(generator.release.set)
        if executor is None:
            executor = await stack.enter_async_context(GpuExecutor(lambda: generator))
        queue = UnsteadyQueue(database, limits=PLENTY, now=Clock())
        dispatcher = Dispatcher(
            queue=queue,
            executor=executor,
            outcomes=outcomes,
            pictures=folder,
            retry_seconds=0.01,
        )
        await stack.enter_async_context(dispatcher)
        yield Stage(
            queue=queue,
            dispatcher=dispatcher,
            data=folder,
            path=folder / "kiln.sqlite3",
            generator=generator,
            outcomes=outcomes,
        )


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(database, tmp_path, FakeGenerator()) as stage:
        yield stage


def failing(verb: str, error: Exception, *, times: int) -> Callable[[str], Awaitable[None]]:
    """A hook that fails `times` times at `verb`."""
    left = [times]

    async def hook(called: str) -> None:
        if called == verb and left[0]:
            left[0] -= 1
            raise error

    return hook


async def take_lock(foreign: sqlite3.Connection) -> None:
    """As soon as no transaction of ours is under way."""
    while not foreign.in_transaction:
        with suppress(sqlite3.OperationalError):
            foreign.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0)


# drawing


async def test_a_queued_job_becomes_a_file_and_a_drawn_row(stage: Stage) -> None:
    (job,) = await stage.ask("a red house notice")
    drawn = await stage.outcomes.until("drawn")
    assert (drawn.id, drawn.status, drawn.picture) == (job.id, JobStatus.DRAWN, "pictures/2026-01/1-1.png")
    assert (drawn.attempts, drawn.notice) == (1, "drawn by a fake")
    assert (stage.data / "pictures/2026-01/1-1.png").read_bytes() == picture(job.request)
    assert stage.outcomes.told == [("started", 1), *[("progress", 1)] * 4, ("drawn", 1)]


async def test_jobs_are_drawn_one_at_a_time_in_order_and_the_task_ends_with_the_work(stage: Stage) -> None:
    await stage.ask("one", "two", "three")
    await stage.idle()
    assert [request.prompt for request in stage.generator.drawn] == ["one", "two", "three"]
    assert sorted(stage.outcomes.ends()) == [("drawn", 1), ("drawn", 2), ("drawn", 3)]
    await stage.ask("four")
    await stage.idle()
    assert stage.outcomes.ends()[-1] == ("drawn", 4)


async def test_no_task_lives_without_work(stage: Stage) -> None:
    before = asyncio.all_tasks()
    stage.dispatcher.wake()
    await stage.idle()
    assert asyncio.all_tasks() == before


async def test_a_wake_while_the_last_claim_finds_nothing_is_not_lost(stage: Stage) -> None:
    async def submit_behind_the_claim(verb: str) -> None:
        if verb == "claim":
            stage.queue.after = None
            await stage.ask("late")

    stage.queue.after = submit_behind_the_claim
    stage.dispatcher.wake()
    assert (await stage.outcomes.until("drawn")).request.prompt == "late"


# what breaks


async def test_a_generation_error_is_told_in_its_own_words_and_the_next_job_is_drawn(stage: Stage) -> None:
    await stage.ask("broken", "good")
    failed = await stage.outcomes.until("failed")
    assert (failed.status, failed.reason) == (
        JobStatus.FAILED,
        "The picture needs more memory than the card has.",
    )
    assert (await stage.outcomes.until("drawn")).request.prompt == "good"


@pytest.mark.parametrize("word", ["bug", "exit", "stopiteration"])
async def test_any_other_exception_is_a_sentence_for_the_person_and_a_traceback_for_the_log(
    stage: Stage, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.ask(word, "good")
    failed = await stage.outcomes.until("failed")
    assert failed.reason == "Something broke while drawing job 1. It is noted in the log under that number."
    assert "job 1: the generator broke" in caplog.messages
    assert "Traceback" in caplog.text
    assert "as asked" in caplog.text
    assert (await stage.outcomes.until("drawn")).request.prompt == "good"


async def test_outcomes_that_raise_are_logged_and_stop_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.outcomes.fails = True
    await stage.ask("one", "two")
    await stage.idle()
    assert sorted(stage.outcomes.ends()) == [("drawn", 1), ("drawn", 2)]
    assert "job 1: telling its outcome failed" in caplog.messages


async def test_a_locked_database_delays_the_recording_and_the_picture_stays(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    async def lock_once(verb: str) -> None:
        if verb == "record_drawn":
            tries.append((stage.data / "pictures/2026-01/1-1.png").read_bytes())
            if len(tries) == 1:
                await take_lock(foreign)
            elif len(tries) == 3:
                foreign.rollback()

    stage.queue.before = lock_once
    with closing(sqlite3.connect(stage.path, isolation_level=None, timeout=0)) as foreign:
        await stage.ask("one")
        assert (await stage.outcomes.until("drawn")).id == 1
    assert len(tries) == 3  # two refused
    assert len(stage.generator.drawn) == 1
    assert "job 1: recording its picture failed; again in 0.01 s" in caplog.messages
    assert "job 1: recording its picture failed; again in 0.02 s" in caplog.messages


async def test_a_picture_that_the_disk_does_not_take_is_written_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full_twice(path: Path, png: bytes) -> Path:
        calls.append(path)
        if len(calls) < 3:
            raise OSError(28, "No space left on device")
        return write_picture(path, png)

    monkeypatch.setattr(drawing, "write_picture", full_twice)
    await stage.ask("one")
    await stage.outcomes.until("drawn")
    assert len(calls) == 3
    assert len(stage.generator.drawn) == 1


async def test_a_claim_that_the_database_refuses_is_tried_again(stage: Stage) -> None:
    stage.queue.before = failing("claim", QueueUnavailable(), times=2)
    await stage.ask("one")
    assert (await stage.outcomes.until("drawn")).id == 1


async def test_a_bug_in_claiming_is_logged_and_the_next_wake_works(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.queue.before = failing("claim", KeyError("a bug"), times=1)
    await stage.ask("one")
    await stage.idle()
    assert "the dispatcher could not claim a job" in caplog.messages
    stage.dispatcher.wake()
    assert (await stage.outcomes.until("drawn")).id == 1


async def test_a_bug_in_recording_leaves_the_job_to_the_next_start_and_draws_the_next(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.queue.before = failing("record_drawn", KeyError("a bug"), times=1)
    await stage.ask("one")
    await stage.idle()
    await stage.ask("two")
    assert (await stage.outcomes.until("drawn")).id == 2
    assert await stage.status(1) is JobStatus.RUNNING
    assert "job 1: not recorded; it is left to the next start" in caplog.messages


async def test_a_late_result_is_dropped_and_not_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def overtake(verb: str) -> None:
        if verb == "record_drawn":
            stage.queue.before = None
            await stage.queue.recover()

    stage.queue.before = overtake
    await stage.ask("one")
    await stage.idle()
    assert "job 1: a late result (drawn) was dropped" in caplog.messages
    assert stage.outcomes.ends() == [("drawn", 1)]  # by the second attempt
    assert len(stage.generator.drawn) == 2


@pytest.mark.parametrize("verb", ["record_failed", "record_cancelled", "requeue"])
async def test_an_outcome_that_comes_late_is_not_told(stage: Stage, verb: str) -> None:
    async def another_attempt_has_it(called: str) -> None:
        if called == verb:
            with closing(sqlite3.connect(stage.path, isolation_level=None)) as raw:
                raw.execute("UPDATE jobs SET attempt_token = 'another'")

    stage.queue.before = another_attempt_has_it
    await stage.ask("broken" if verb == "record_failed" else "endless")
    await stage.outcomes.until("progress")
    if verb == "record_cancelled":
        assert stage.dispatcher.cancel(1)
    elif verb == "requeue":
        await stage.dispatcher.aclose()
    await stage.idle()
    assert stage.outcomes.ends() == []
    assert await stage.status(1) is JobStatus.RUNNING


# the next is drawn while the last is finished


class Slow(FakeGenerator):
    """The picture of a prompt with `slow` is compressed until `compressed` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.compressed = threading.Event()

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        painted = super().paint(request, on_step=on_step)

        def finish() -> ImageResult:
            if "slow" in request.prompt:
                self.compressed.wait()
            return painted.finish()

        return Unfinished(seconds=painted.seconds, finish=finish)


@pytest.fixture
async def slow(database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(database, tmp_path, Slow()) as stage:
        yield stage
        compress(stage)


def compress(stage: Stage) -> None:
    assert isinstance(stage.generator, Slow)
    stage.generator.compressed.set()


async def test_the_next_job_is_drawn_while_the_last_picture_is_compressed_and_no_third(slow: Stage) -> None:
    await slow.ask("slow", "two slow", "three")
    await slow.outcomes.until("started")
    assert (await slow.outcomes.until("started")).id == 2
    await eventually(lambda: len(slow.generator.drawn) == 2)
    for _ in range(10):  # time enough for a charge and a claim, which would come before these
        await slow.queue.record_card(3, message_id=1)
    assert [await slow.status(number) for number in (1, 2, 3)] == [
        JobStatus.RUNNING,
        JobStatus.RUNNING,
        JobStatus.QUEUED,
    ]
    compress(slow)
    await slow.idle()
    assert sorted(slow.outcomes.ends()) == [("drawn", 1), ("drawn", 2), ("drawn", 3)]


async def test_no_job_is_claimed_ahead_so_one_behind_a_drawing_is_cancelled_at_once_and_free(stage: Stage) -> None:
    await stage.ask("endless", "two")
    await stage.outcomes.until("progress")
    assert (await stage.queue.cancel(2, user_id=1)).status is JobStatus.CANCELLED
    job = await stage.queue.job(2)
    assert job is not None
    assert (job.attempts, job.started_at) == (0, None)


async def test_a_picture_that_is_compressed_can_not_be_cancelled_any_more(slow: Stage) -> None:
    await slow.ask("slow", "endless")
    await slow.outcomes.until("started")
    await slow.outcomes.until("started")
    assert not slow.dispatcher.cancel(1)
    assert slow.dispatcher.cancel(2)
    compress(slow)
    await slow.idle()
    assert sorted(slow.outcomes.ends()) == [("cancelled", 2), ("drawn", 1)]


async def test_a_job_that_was_in_a_crash_stays_alone_until_it_is_recorded(slow: Stage) -> None:
    """The next one's crash would be counted as its second, and it would be set aside for nothing."""
    done: list[str] = []

    async def note(verb: str) -> None:
        done.append(verb)

    slow.queue.before = slow.queue.after = note
    with closing(sqlite3.connect(slow.path, isolation_level=None)) as raw:
        await slow.queue.submit(new_job(1, request=image_request("slow")))
        raw.execute("UPDATE jobs SET attempts = 1")
    await slow.queue.submit(new_job(2, request=image_request("two")))
    slow.dispatcher.wake()
    await eventually(lambda: done.count("charge_used") == 2)  # its pixels are there
    for _ in range(10):  # turns of the loop: a claim would begin in one of them
        await asyncio.sleep(0)
    assert done == ["claim", "claim", "charge_used", "charge_used"]
    assert [await slow.status(number) for number in (1, 2)] == [JobStatus.RUNNING, JobStatus.QUEUED]
    compress(slow)
    await slow.idle()
    assert await slow.status(2) is JobStatus.DRAWN


async def test_a_crash_of_the_next_job_is_counted_for_a_picture_in_compression_only_once(slow: Stage) -> None:
    await slow.ask("slow", "endless")
    await slow.outcomes.until("started")
    await slow.outcomes.until("started")
    for _ in range(2):  # two processes die under job 2; job 1 was drawn in the first
        recovery = await slow.queue.recover()
        assert recovery.quarantined == ()
    assert slow.dispatcher.cancel(2)
    compress(slow)


async def test_its_owner_is_charged_for_what_was_used_before_the_next_claim(slow: Stage) -> None:
    vtimes: list[int] = []

    async def look(verb: str) -> None:
        if verb == "claim":
            with closing(sqlite3.connect(slow.path)) as raw:
                vtimes.extend(row[0] for row in raw.execute("SELECT vtime FROM accounts WHERE name = 'user:1'"))

    slow.queue.before = look
    await slow.queue.submit(new_job(1, user_id=1, request=image_request("slow")))
    await slow.queue.submit(new_job(2, user_id=2))
    slow.dispatcher.wake()
    await slow.outcomes.until("started")
    await slow.outcomes.until("started")
    compress(slow)
    await slow.idle()
    job = await slow.queue.job(1)
    assert job is not None
    assert job.seconds is not None
    used = round(1e6 * job.seconds)
    assert vtimes[:2] == [0, used]
    assert set(vtimes[1:]) == {used}  # recording it changes nothing any more


async def test_a_database_that_refuses_the_early_charge_costs_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.queue.before = failing("charge_used", QueueUnavailable(), times=2)
    await stage.ask("one", "two")
    await stage.idle()
    assert sorted(stage.outcomes.ends()) == [("drawn", 1), ("drawn", 2)]
    assert "job 1: it is charged when it is recorded" in caplog.messages


async def test_an_early_charge_of_another_attempt_changes_nothing(stage: Stage) -> None:
    await stage.queue.submit(new_job(1))
    job = await stage.queue.claim()
    assert job is not None
    await stage.queue.charge_used(replace(job, attempt_token="another"), seconds=99.0)
    await stage.queue.requeue(job)
    await stage.queue.charge_used(job, seconds=99.0)
    with closing(sqlite3.connect(stage.path)) as raw:
        assert raw.execute("SELECT max(vtime) FROM accounts").fetchone() == (0,)


# another executor


async def test_two_slots_in_another_process_draw_two_jobs_at_a_time(database: Database, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(DrawingProcess(tmp_path))
        executor = await stack.enter_async_context(SubprocessExecutor(process))
        stage = await stack.enter_async_context(open_stage(database, tmp_path, FakeGenerator(), executor=executor))
        await stage.ask("endless", "endless too", "three", "four")
        await stage.outcomes.until("started")
        await stage.outcomes.until("started")
        assert await stage.status(3) is JobStatus.QUEUED
        assert stage.dispatcher.cancel(1)
        assert stage.dispatcher.cancel(2)
        await stage.idle()
        assert sorted(stage.outcomes.ends()) == [("cancelled", 1), ("cancelled", 2), ("drawn", 3), ("drawn", 4)]
        await stage.ask("endless")
        await stage.outcomes.until("progress")
        await stage.dispatcher.aclose()
        assert await stage.status(5) is JobStatus.QUEUED


async def test_what_an_earlier_process_left_in_an_executor_is_stopped(database: Database, tmp_path: Path) -> None:
    """Its job waits in the queue again, so nobody would take the picture."""
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(DrawingProcess(tmp_path))
        first = await stack.enter_async_context(SubprocessExecutor(process))
        tokens = [f"left {number}" for number in range(first.slots())]
        left = [first.run(Attempt(token=token, request=image_request("endless"))) for token in tokens]
        for events in left:
            await anext(events)
        await first.abandon()
        second = await stack.enter_async_context(SubprocessExecutor(process))
        assert await second.adopt() == set(tokens)
        stage = await stack.enter_async_context(open_stage(database, tmp_path, FakeGenerator(), executor=second))
        await stage.ask("one")
        assert (await stage.outcomes.until("drawn")).id == 1
        for events in left:
            await events.aclose()


async def test_an_executor_that_ends_without_a_picture_fails_the_job(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Mute(GpuExecutor):
        async def run(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
            async for event in super().run(attempt):
                if isinstance(event, StepReport):
                    yield event

    async with (
        Mute(FakeGenerator) as executor,
        open_stage(database, tmp_path, FakeGenerator(), executor=executor) as stage,
    ):
        await stage.ask("one")
        assert "Something broke" in ((await stage.outcomes.until("failed")).reason or "")
    assert "job 1: the generator broke" in caplog.messages


# cancelling


async def test_a_running_job_is_cancelled_within_a_step_and_the_next_is_drawn(stage: Stage) -> None:
    await stage.ask("endless", "good")
    await stage.outcomes.until("progress")
    running = await stage.queue.cancel(1, user_id=1)
    assert running.status is JobStatus.RUNNING
    assert stage.dispatcher.cancel(1)
    assert (await stage.outcomes.until("cancelled")).status is JobStatus.CANCELLED
    assert (await stage.outcomes.until("drawn")).request.prompt == "good"
    assert not (stage.data / "pictures/2026-01/1-1.png").exists()


async def test_only_the_running_job_can_be_cancelled_here(stage: Stage) -> None:
    assert not stage.dispatcher.cancel(1)
    await stage.ask("endless", "good")
    await stage.outcomes.until("progress")
    assert not stage.dispatcher.cancel(2)
    assert stage.dispatcher.cancel(1)
    assert (await stage.outcomes.until("drawn")).id == 2


async def test_a_cancellation_that_overtakes_the_claims_answer_is_kept(stage: Stage) -> None:
    async def cancel_first(verb: str) -> None:
        if verb == "claim":
            stage.queue.after = None
            assert (await stage.queue.cancel(1, user_id=1)).status is JobStatus.RUNNING
            assert stage.dispatcher.cancel(1)

    stage.queue.after = cancel_first
    await stage.ask("one", "two")
    assert (await stage.outcomes.until("cancelled")).id == 1
    assert (await stage.outcomes.until("drawn")).id == 2
    assert ("started", 1) not in stage.outcomes.told
    assert [request.prompt for request in stage.generator.begun] == ["two"]


async def test_a_picture_that_is_finished_can_not_be_cancelled_any_more(stage: Stage) -> None:
    answers = []

    async def cancel_late(verb: str) -> None:
        if verb == "record_drawn":
            answers.append(stage.dispatcher.cancel(1))

    stage.queue.before = cancel_late
    await stage.ask("one")
    assert (await stage.outcomes.until("drawn")).status is JobStatus.DRAWN
    assert answers == [False]


async def test_cancelling_at_a_random_moment_ends_in_exactly_one_state(stage: Stage) -> None:
    for number in range(1, 41):
        (job,) = await stage.ask("a house")
        for _ in range(number * 3):
            await asyncio.sleep(0)
        with suppress(Exception):
            if (await stage.queue.cancel(job.id, user_id=1)).status is JobStatus.RUNNING:
                stage.dispatcher.cancel(job.id)
        await stage.idle()
        status = await stage.status(job.id)
        told = [kind for kind, job_id in stage.outcomes.ends() if job_id == job.id]
        assert status in (JobStatus.DRAWN, JobStatus.CANCELLED)
        assert told == [status.value] or (told == [] and status is JobStatus.CANCELLED)  # cancelled while queued
        stage.outcomes.jobs[job.id] = job  # it counts for the next interaction's id


# closing


async def test_a_drain_requeues_the_running_job_without_counting_it_and_claims_nothing_more(stage: Stage) -> None:
    await stage.ask("endless", "good")
    await stage.outcomes.until("progress")
    await stage.dispatcher.aclose()
    requeued = stage.outcomes.jobs[1]
    assert (requeued.status, requeued.attempts) == (JobStatus.QUEUED, 0)
    assert stage.outcomes.ends() == [("requeued", 1)]
    stage.dispatcher.wake()
    await stage.idle()
    assert await stage.status(2) is JobStatus.QUEUED
    assert (await stage.queue.recover()).requeued == ()


async def test_closing_with_steps_of_a_second_takes_less_than_two(stage: Stage) -> None:
    stage.generator.seconds_per_step = 1.0
    await stage.ask("slow")
    await stage.outcomes.until("progress")
    began = time.perf_counter()
    await stage.dispatcher.aclose()
    assert time.perf_counter() - began < 2.0
    assert await stage.status(1) is JobStatus.QUEUED
    assert stage.generator.drawn == []


async def test_closing_during_a_claim_requeues_what_it_took(stage: Stage) -> None:
    closing_task: list[asyncio.Task[None]] = []

    async def close_now(verb: str) -> None:
        if verb == "claim":
            closing_task.append(asyncio.create_task(stage.dispatcher.aclose()))
            await asyncio.sleep(0)

    stage.queue.after = close_now
    await stage.ask("one")
    await stage.idle()
    await closing_task[0]
    assert await stage.status(1) is JobStatus.QUEUED
    assert stage.generator.begun == []
    assert ("started", 1) not in stage.outcomes.told


async def test_a_cancelled_job_is_cancelled_even_when_kiln_closes_at_once(stage: Stage) -> None:
    await stage.ask("endless")
    await stage.outcomes.until("progress")
    assert stage.dispatcher.cancel(1)
    await stage.dispatcher.aclose()
    assert await stage.status(1) is JobStatus.CANCELLED


async def test_a_generator_that_does_not_stop_is_left_and_its_job_requeued(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    await stage.ask("stuck")
    await stage.outcomes.until("progress")
    await stage.dispatcher.aclose()
    assert await stage.status(1) is JobStatus.QUEUED
    assert "job 1: the generator did not stop within 0.1 s; requeued while it still draws" in caplog.messages
    stage.generator.release.set()
    await stage.idle()
    await stage.dispatcher.aclose()
    assert await stage.status(1) is JobStatus.QUEUED
    assert stage.outcomes.ends() == [("requeued", 1)]


async def test_a_database_that_stays_locked_does_not_hold_the_end_of_the_process(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.ask("endless")
    await stage.outcomes.until("progress")
    with closing(sqlite3.connect(stage.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        await stage.dispatcher.aclose()
        foreign.rollback()
    assert "job 1: requeueing it failed; given up, Kiln is closing" in caplog.messages
    assert [job.id for job in (await stage.queue.recover()).requeued] == [1]


async def test_a_database_that_does_not_answer_is_left_alone_at_closing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(verb: str) -> None:
        if verb == "requeue":
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    stage.queue.before = never
    await stage.ask("endless")
    await stage.outcomes.until("progress")
    await stage.dispatcher.aclose()
    assert "the database does not answer; what was not recorded is left to the next start" in caplog.messages


async def test_a_claim_that_waits_for_a_lock_when_kiln_closes_takes_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is gone when the lock is: the job would stay running, and count a crash that was none."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    async with (
        open_database(tmp_path / "kiln.sqlite3") as database,
        open_stage(database, tmp_path, FakeGenerator()) as one,
    ):
        with closing(sqlite3.connect(one.path, isolation_level=None)) as foreign:
            await one.queue.submit(new_job(1))
            foreign.execute("BEGIN IMMEDIATE")
            one.dispatcher.wake()
            await eventually(lambda: one.dispatcher._claiming)
            await one.dispatcher.aclose()
            foreign.rollback()
        await database.write(lambda _: None)  # behind the claim
        job = await one.queue.job(1)
        assert job is not None
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_a_picture_that_cannot_be_written_goes_back_to_the_queue_at_closing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(path: Path, png: bytes) -> Path:
        loop.call_soon_threadsafe(failed.set)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing, "write_picture", full)
    await stage.ask("one")
    await failed.wait()
    await stage.dispatcher.aclose()
    assert await stage.status(1) is JobStatus.QUEUED


async def test_the_pause_between_tries_has_an_upper_bound(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "RETRY_SECONDS_MAX", 0.02)
        stage.queue.before = failing("claim", QueueUnavailable(), times=4)
        await stage.ask("one")
        await stage.outcomes.until("drawn")
    pauses = [message for message in caplog.messages if "claiming a job failed" in message]
    assert pauses == [f"claiming a job failed; again in {pause} s" for pause in (0.01, 0.02, 0.02, 0.02)]


async def test_closing_without_any_work_returns_at_once(stage: Stage) -> None:
    await stage.dispatcher.aclose()
    assert stage.dispatcher._drain is None


# the file


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pictures/2026-01/1.png"
    write_picture(path, b"old")
    write_picture(path, b"new")
    assert path.read_bytes() == b"new"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bot.queue.picture_file.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(path, b"newer")
    assert path.read_bytes() == b"new"
    assert [found.name for found in path.parent.iterdir()] == ["1.png"]


def test_a_picture_and_its_new_folders_are_synced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("bot.queue.picture_file.os.fsync", lambda handle: synced.append(str(handle)))
    write_picture(tmp_path / "pictures/2026-01/1.png", b"one")
    assert len(synced) == 4  # the file, its folder, and the two folders that got a new entry
    write_picture(tmp_path / "pictures/2026-01/2.png", b"two")
    assert len(synced) == 6


ENDS = ("bot.queue.job_recorder", "bot.queue.job_queue")  # who logs how a job ended


async def test_the_canonical_line_is_logged_for_every_end(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for name in ENDS:
        caplog.set_level(logging.INFO, logger=name)
    await stage.ask("good", "broken")
    await stage.idle()
    lines = [record.getMessage().split(":")[0] for record in caplog.records if record.name in ENDS]
    assert sorted(lines) == ["job 1 drawn", "job 2 failed"]
