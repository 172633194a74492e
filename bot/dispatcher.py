"""From the queue to the executor to the outcome; tasks that live only while there is work.

While a picture is compressed, written and recorded, the next is drawn: a job holds its slot until its pixels are there.
By then its owner is charged for what it used, so the next claim is as fair as if it were recorded. A job is claimed
only when a slot is free: one claimed ahead would count a crash that was not its own, and could not be cancelled free
of charge. Knows no Discord: what happened goes to `Outcomes`. Nothing that fails, drawing, disk or database, ends the
dispatcher, and a claimed job is always recorded, requeued, or left running for the next start to recover.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from bot.errors import QueueUnavailable
from bot.job import Job
from bot.job_queue import JobQueue
from bot.language import Message, msg, say_to_owner
from bot.picture_file import write_picture
from gen.attempt import Attempt, Executor, Painted
from gen.errors import GenerationCancelled, GenerationError
from gen.request import ImageResult, StepReport

STOP_SECONDS = 3.0  # how long closing waits for the generator to stop
REQUEUE_SECONDS = 1.0  # how long it then waits for the database
RETRY_SECONDS, RETRY_SECONDS_MAX = 1.0, 60.0  # between tries to record; doubled each time

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class Outcomes(Protocol):
    """What becomes of a job, told on the event loop. Must return quickly; whatever it raises is logged."""

    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, report: StepReport) -> None: ...
    def drawn(self, job: Job) -> None: ...
    def failed(self, job: Job) -> None: ...
    def cancelled(self, job: Job) -> None: ...
    def requeued(self, job: Job) -> None: ...


@dataclass(slots=True, kw_only=True)
class _Running:
    """A claimed job, until it is recorded."""

    job: Job
    attempt: Attempt
    stoppable: bool = True  # until its pixels are there, or it broke
    holds_slot: bool = True  # until the next may be claimed
    unwanted: bool = False  # its owner cancelled it
    task: asyncio.Task[None] | None = None


class Dispatcher:
    """Draws queued jobs in their order. Use it with `async with`: leaving requeues what is drawn."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        executor: Executor,
        outcomes: Outcomes,
        pictures: Path,
        charge: Callable[[Job, float], Awaitable[None]],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`pictures` is the data folder; `charge` charges a running job for the GPU-seconds that it used.

        `retry_seconds` is the pause after the first failed recording.
        """
        self._queue = queue
        self._executor = executor
        self._outcomes = outcomes
        self._data = pictures
        self._charge_used = charge
        self._retry_seconds = retry_seconds
        self._closing = asyncio.Event()
        self._turn = asyncio.Event()  # there may be something to claim
        self._drain: asyncio.Task[None] | None = None
        self._running: dict[int, _Running] = {}  # by job
        self._claiming = False
        self._unwanted: set[int] = set()  # cancelled while their claim was under way

    async def __aenter__(self) -> Self:
        """Stop what an earlier process began elsewhere: its jobs wait in the queue again."""
        for token in await self._executor.adopt():
            self._executor.cancel(token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def wake(self) -> None:
        """Say that there may be work; starts the drain task unless it runs."""
        self._turn.set()
        if not self._closing.is_set() and (self._drain is None or self._drain.done()):
            self._drain = asyncio.create_task(self._work(), name="drain")

    def cancel(self, job_id: int) -> bool:
        """Stop this job within one step if it is being drawn; False: it is not, or its picture is finished.

        Call it for a job that the queue just returned as running.
        """
        running = self._running.get(job_id)
        if running is None and self._claiming:  # the claim is committed, its answer still under way
            self._unwanted.add(job_id)
            return True
        if running is None or not running.stoppable:
            return False
        running.unwanted = True
        self._executor.cancel(running.attempt.token)
        return True

    async def aclose(self) -> None:
        """Claim nothing more; put running jobs back without counting the attempt. Takes 4 s at most."""
        self._closing.set()
        self._turn.set()
        for running in self._running.values():
            if running.stoppable:
                self._executor.cancel(running.attempt.token)
        tasks = {task for task in (self._drain, *(one.task for one in self._running.values())) if task}
        _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS) if tasks else (tasks, tasks)
        for task in late:
            task.cancel()
        if late:
            await self._give_up()

    async def _give_up(self) -> None:
        """Requeue what still draws; the rest is the database's fault."""
        drawing = [running.job for running in self._running.values() if running.stoppable]
        if not drawing:
            log.warning("the database does not answer; what was not recorded is left to the next start")
            return
        for job in drawing:
            log.warning(
                "job %d: the generator did not stop within %g s; requeued while it still draws", job.id, STOP_SECONDS
            )
        await asyncio.wait([asyncio.create_task(self._put_back(job)) for job in drawing], timeout=REQUEUE_SECONDS)

    async def _work(self) -> None:
        """Claim and draw until nothing waits. A bug of ours ends it, logged; the next wake starts it again."""
        try:
            while True:
                self._turn.clear()
                job = await self._insist("claiming a job", self._claim) if self._has_slot() else None
                if job is None and not self._turn.is_set():
                    if not self._running:
                        return
                    await self._turn.wait()
        except Exception:
            log.exception("the dispatcher could not claim a job")

    def _has_slot(self) -> bool:
        """Whether a job may be claimed. What cannot be recorded holds up the rest: it is not worth drawing more."""
        if self._closing.is_set():
            return False
        slots, running = self._executor.slots(), self._running.values()
        return sum(one.holds_slot for one in running) < slots and len(running) < 2 * slots

    async def _claim(self) -> Job | None:
        """Take the next job and begin to draw it."""
        self._claiming = True
        try:
            job = await self._queue.claim()
        finally:
            self._claiming = False
        if job is not None:
            assert job.attempt_token is not None
            attempt = Attempt(token=job.attempt_token, request=job.request)
            running = _Running(job=job, attempt=attempt, unwanted=job.id in self._unwanted)
            self._running[job.id] = running
            running.task = asyncio.create_task(self._run(running), name=f"job {job.id}")
        self._unwanted.clear()
        return job

    async def _run(self, running: _Running) -> None:
        try:
            await self._draw(running)
        except Exception:
            log.exception("job %d: not recorded; it is left to the next start", running.job.id)
        finally:
            del self._running[running.job.id]
            self._turn.set()

    async def _draw(self, running: _Running) -> None:
        """Draw one claimed job and record what became of it."""
        job = running.job
        if self._closing.is_set() or running.unwanted:
            return await self._stopped(running)
        self._tell(self._outcomes.started, job)
        try:
            result = await self._follow(running)
        except GenerationCancelled:
            await self._stopped(running)
        except GenerationError as error:
            await self._failed(running, error.message)
        except Exception:
            log.exception("job %d: the generator broke", job.id)
            text = msg("Something broke while drawing job {number}. It is noted in the log under that number.")
            await self._failed(running, Message(text, number=job.id))
        else:
            await self._drawn(job, result)

    async def _follow(self, running: _Running) -> ImageResult:
        """Tell of each step, and free the slot once the pixels are there.

        But a job that was in a crash already stays alone until it is recorded. Otherwise it could be set aside for
        a second crash that was the next job's.
        """
        job = running.job
        async with aclosing(self._executor.run(running.attempt)) as events:
            async for event in events:
                match event:
                    case StepReport():
                        self._tell(self._outcomes.progress, job, event)
                    case Painted():
                        running.stoppable = False
                        await self._charge(job, seconds=event.seconds)
                        running.holds_slot = job.attempts > 1
                        self._turn.set()
                    case picture:
                        return picture
        raise RuntimeError("the executor ended without a picture")

    async def _charge(self, job: Job, *, seconds: float) -> None:
        """Charge what was used before the next claim. Only its order rests on it: the end makes it exact anyway."""
        try:
            await self._charge_used(job, seconds)
        except QueueUnavailable:
            log.exception("job %d: it is charged when it is recorded", job.id)

    async def _stopped(self, running: _Running) -> None:
        job, running.stoppable = running.job, False
        if not running.unwanted:
            await self._put_back(job)
        elif await self._insist(
            f"job {job.id}: recording its cancellation", partial(self._queue.record_cancelled, job)
        ):
            await self._tell_as_recorded(self._outcomes.cancelled, job)

    async def _failed(self, running: _Running, why: Message) -> None:
        job, running.stoppable = running.job, False
        record = partial(self._queue.record_failed, job, reason=why.told(say_to_owner(job)))
        if await self._insist(f"job {job.id}: recording its failure", record):
            await self._tell_as_recorded(self._outcomes.failed, job)

    async def _drawn(self, job: Job, result: ImageResult) -> None:
        """Bring the picture to the disk, then the row to `drawn`."""
        picture = f"pictures/{job.created_at:%Y-%m}/{job.id}-{job.interaction_id}.png"
        write = partial(asyncio.to_thread, write_picture, self._data / picture, result.png)
        record = partial(self._queue.record_drawn, job, picture=picture, result=result)
        written = await self._insist(f"job {job.id}: writing its picture", write)
        if written is None:  # closing, and the disk is full: draw it again another time
            await self._put_back(job)
        elif await self._insist(f"job {job.id}: recording its picture", record):
            await self._tell_as_recorded(self._outcomes.drawn, job)

    async def _put_back(self, job: Job) -> None:
        if await self._insist(f"job {job.id}: requeueing it", partial(self._queue.requeue, job)):
            await self._tell_as_recorded(self._outcomes.requeued, job)

    async def _insist(self, what: str, action: Callable[[], Awaitable[_T]]) -> _T | None:
        """Do it, again and again while the disk or the database refuses; None: closing, given up.

        The running job and those behind it wait meanwhile: what cannot be recorded is not worth drawing.
        """
        pause = self._retry_seconds
        while True:
            try:
                return await action()
            except (QueueUnavailable, OSError):
                last = self._closing.is_set()
                log.exception("%s failed; %s", what, "given up, Kiln is closing" if last else f"again in {pause:g} s")
            closing = asyncio.ensure_future(self._closing.wait())
            await asyncio.wait({closing}, timeout=pause)
            closing.cancel()
            if last:
                return None
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _tell_as_recorded(self, outcome: Callable[[Job], None], job: Job) -> None:
        """Tell the outcome with the job as the database has it now."""
        recorded = await self._insist(f"job {job.id}: reading it back", partial(self._queue.job, job.id))
        self._tell(outcome, recorded or job)

    def _tell(self, outcome: Callable[..., None], job: Job, *details: StepReport) -> None:
        try:
            outcome(job, *details)
        except Exception:
            log.exception("job %d: telling its outcome failed", job.id)
