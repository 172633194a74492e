"""One claimed job, from the executor to what became of it, on disk and in the queue.

While its picture is compressed, written and recorded it no longer holds its slot, and its owner is charged for what it
used. Nothing that fails, drawing, disk or database, passes through here: a claimed job is always recorded, requeued, or
left running for the next start to recover. Knows no line and no Discord: which job is drawn when is the dispatcher's
business, and what happened goes to `Outcomes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from bot.errors import QueueUnavailable
from bot.language import Message, msg, say_to_owner
from bot.queue.job import Job
from bot.queue.job_queue import JobQueue
from bot.queue.picture_file import write_picture
from gen.attempt import Attempt, Executor, Painted
from gen.errors import GenerationCancelled, GenerationError
from gen.request import ImageResult, StepReport

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
class Drawing:
    """A claimed job, until it is recorded."""

    job: Job
    attempt: Attempt
    stoppable: bool = True  # until its pixels are there, or it broke
    holds_slot: bool = True  # until the next may be claimed
    unwanted: bool = False  # its owner cancelled it
    task: asyncio.Task[None] | None = None


class Drawings:
    """Draws claimed jobs. One for the dispatcher."""

    def __init__(
        self, *, queue: JobQueue, executor: Executor, outcomes: Outcomes, pictures: Path, retry_seconds: float
    ) -> None:
        """`pictures` is the data folder; `retry_seconds` is the pause after the first failed recording."""
        self._queue = queue
        self._executor = executor
        self._outcomes = outcomes
        self._data = pictures
        self._retry_seconds = retry_seconds
        self.closing = asyncio.Event()  # set it, and nothing more is begun or insisted on

    async def draw(self, drawing: Drawing, *, freed: Callable[[], None]) -> None:
        """Draw one claimed job and record what became of it; `freed` is called when it gives its slot free."""
        job = drawing.job
        if self.closing.is_set() or drawing.unwanted:
            return await self._stopped(drawing)
        self._tell(self._outcomes.started, job)
        try:
            result = await self._follow(drawing, freed=freed)
        except GenerationCancelled:
            await self._stopped(drawing)
        except GenerationError as error:
            await self._failed(drawing, error.message)
        except Exception:
            log.exception("job %d: the generator broke", job.id)
            text = msg("Something broke while drawing job {number}. It is noted in the log under that number.")
            await self._failed(drawing, Message(text, number=job.id))
        else:
            await self._drawn(job, result)

    async def _follow(self, drawing: Drawing, *, freed: Callable[[], None]) -> ImageResult:
        """Tell of each step, and free the slot once the pixels are there.

        But a job that was in a crash already stays alone until it is recorded. Otherwise it could be set aside for
        a second crash that was the next job's.
        """
        job = drawing.job
        async with aclosing(self._executor.run(drawing.attempt)) as events:
            async for event in events:
                match event:
                    case StepReport():
                        self._tell(self._outcomes.progress, job, event)
                    case Painted():
                        drawing.stoppable = False
                        await self._charge(job, seconds=event.seconds)
                        drawing.holds_slot = job.attempts > 1
                        freed()
                    case picture:
                        return picture
        raise RuntimeError("the executor ended without a picture")

    async def _charge(self, job: Job, *, seconds: float) -> None:
        """Charge what was used before the next claim. Only its order rests on it: the end makes it exact anyway."""
        try:
            await self._queue.charge_used(job, seconds=seconds)
        except QueueUnavailable:
            log.exception("job %d: it is charged when it is recorded", job.id)

    async def _stopped(self, drawing: Drawing) -> None:
        job, drawing.stoppable = drawing.job, False
        if not drawing.unwanted:
            await self.put_back(job)
        elif await self.insist(f"job {job.id}: recording its cancellation", partial(self._queue.record_cancelled, job)):
            await self._tell_as_recorded(self._outcomes.cancelled, job)

    async def _failed(self, drawing: Drawing, why: Message) -> None:
        job, drawing.stoppable = drawing.job, False
        record = partial(self._queue.record_failed, job, reason=why.told(say_to_owner(job)))
        if await self.insist(f"job {job.id}: recording its failure", record):
            await self._tell_as_recorded(self._outcomes.failed, job)

    async def _drawn(self, job: Job, result: ImageResult) -> None:
        """Bring the picture to the disk, then the row to `drawn`."""
        picture = f"pictures/{job.created_at:%Y-%m}/{job.id}-{job.interaction_id}.png"
        write = partial(asyncio.to_thread, write_picture, self._data / picture, result.png)
        record = partial(self._queue.record_drawn, job, picture=picture, result=result)
        written = await self.insist(f"job {job.id}: writing its picture", write)
        if written is None:  # closing, and the disk is full: draw it again another time
            await self.put_back(job)
        elif await self.insist(f"job {job.id}: recording its picture", record):
            await self._tell_as_recorded(self._outcomes.drawn, job)

    async def put_back(self, job: Job) -> None:
        """Requeue it, its attempt uncounted."""
        if await self.insist(f"job {job.id}: requeueing it", partial(self._queue.requeue, job)):
            await self._tell_as_recorded(self._outcomes.requeued, job)

    async def insist(self, what: str, action: Callable[[], Awaitable[_T]]) -> _T | None:
        """Do it, again and again while the disk or the database refuses; None: closing, given up.

        The running job and those behind it wait meanwhile: what cannot be recorded is not worth drawing.
        """
        pause = self._retry_seconds
        while True:
            try:
                return await action()
            except (QueueUnavailable, OSError):
                last = self.closing.is_set()
                log.exception("%s failed; %s", what, "given up, Kiln is closing" if last else f"again in {pause:g} s")
            closing = asyncio.ensure_future(self.closing.wait())
            await asyncio.wait({closing}, timeout=pause)
            closing.cancel()
            if last:
                return None
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _tell_as_recorded(self, outcome: Callable[[Job], None], job: Job) -> None:
        """Tell the outcome with the job as the database has it now."""
        recorded = await self.insist(f"job {job.id}: reading it back", partial(self._queue.job, job.id))
        self._tell(outcome, recorded or job)

    def _tell(self, outcome: Callable[..., None], job: Job, *details: StepReport) -> None:
        try:
            outcome(job, *details)
        except Exception:
            log.exception("job %d: telling its outcome failed", job.id)
