"""From the queue to the GPU to the outcome, one job at a time; a task that lives only while there is work.

Knows no Discord: what happened goes to `Outcomes`. Everything may fail but this: a broken drawing, a full disk or a
locked database never end the dispatcher, and a claimed job is always recorded, requeued, or left running for the
next start to recover.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from bot.errors import QueueUnavailable
from bot.job import Job
from bot.job_queue import JobQueue
from gen.errors import GenerationError
from gen.executor import GpuExecutor
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


class Dispatcher:
    """Draws queued jobs, oldest first. Use it with `async with`: leaving requeues the running job."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        executor: GpuExecutor,
        outcomes: Outcomes,
        pictures: Path,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`pictures` is the data folder; `retry_seconds` is the pause after the first failed recording."""
        self._queue = queue
        self._executor = executor
        self._outcomes = outcomes
        self._data = pictures
        self._retry_seconds = retry_seconds
        self._closing = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._woken = False
        self._job: Job | None = None  # from its claim to its end
        self._drawing: asyncio.Task[ImageResult] | None = None
        self._claiming = False
        self._unwanted: set[int] = set()  # jobs whose owner cancelled them

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def wake(self) -> None:
        """Say that there may be work; starts the drain task unless it runs."""
        self._woken = True
        if not self._closing.is_set() and (self._drain is None or self._drain.done()):
            self._drain = asyncio.create_task(self._work(), name="drain")

    def cancel(self, job_id: int) -> bool:
        """Stop this job within one step if it is being drawn; False: it is not, or its picture is finished.

        Call it for a job that the queue just returned as running.
        """
        if self._job is None and self._claiming:  # the claim is committed, its answer still under way
            self._unwanted.add(job_id)
            return True
        if self._job is None or self._job.id != job_id or self._drawing is None or self._drawing.done():
            return False
        self._unwanted.add(job_id)
        self._drawing.cancel()
        return True

    async def aclose(self) -> None:
        """Claim nothing more; put the running job back without counting the attempt. Takes 4 s at most."""
        self._closing.set()
        if self._drain is None:
            return
        if self._drawing is not None:
            self._drawing.cancel()
        done, _ = await asyncio.wait({self._drain}, timeout=STOP_SECONDS)
        if done:
            return
        self._drain.cancel()
        job = self._job
        if job is None or self._drawing is None or self._drawing.done():
            log.warning("the database does not answer; what was not recorded is left to the next start")
            return
        log.warning(
            "job %d: the generator did not stop within %g s; requeued while it still draws", job.id, STOP_SECONDS
        )
        requeue = asyncio.create_task(self._put_back(job))
        await asyncio.wait({requeue}, timeout=REQUEUE_SECONDS)

    async def _work(self) -> None:
        """Claim and draw until nothing waits. A bug of ours ends it, logged; the next wake starts it again."""
        try:
            while not self._closing.is_set():
                self._woken = False
                job = await self._insist("claiming a job", self._claim)
                if job is not None:
                    await self._run(job)
                elif not self._woken:
                    return
        except Exception:
            log.exception("the dispatcher could not claim a job")

    async def _claim(self) -> Job | None:
        self._claiming = True
        try:
            self._job = await self._queue.claim()
        finally:
            self._claiming = False
        return self._job

    async def _run(self, job: Job) -> None:
        try:
            await self._draw(job)
        except Exception:
            log.exception("job %d: not recorded; it is left to the next start", job.id)
        finally:
            self._job = self._drawing = None
            self._unwanted.clear()

    async def _draw(self, job: Job) -> None:
        """Draw one claimed job and record what became of it."""
        on_step = partial(self._tell, self._outcomes.progress, job)
        self._drawing = asyncio.create_task(self._executor.draw(job.request, on_step=on_step), name=f"draw {job.id}")
        if self._closing.is_set() or job.id in self._unwanted:
            self._drawing.cancel()
        else:
            self._tell(self._outcomes.started, job)
        await asyncio.wait({self._drawing})
        if self._drawing.cancelled():
            await self._stopped(job)
        elif error := self._drawing.exception():
            await self._failed(job, error)
        else:
            await self._drawn(job, self._drawing.result())

    async def _stopped(self, job: Job) -> None:
        if job.id not in self._unwanted:
            await self._put_back(job)
        elif await self._insist(
            f"job {job.id}: recording its cancellation", partial(self._queue.record_cancelled, job)
        ):
            await self._tell_as_recorded(self._outcomes.cancelled, job)

    async def _failed(self, job: Job, error: BaseException) -> None:
        if isinstance(error, GenerationError):
            reason = str(error)
        else:
            log.error("job %d: the generator broke", job.id, exc_info=error)
            reason = f"Something broke while drawing job {job.id}. It is noted in the log under that number."
        record = partial(self._queue.record_failed, job, reason=reason)
        if await self._insist(f"job {job.id}: recording its failure", record):
            await self._tell_as_recorded(self._outcomes.failed, job)

    async def _drawn(self, job: Job, result: ImageResult) -> None:
        """Bring the picture to the disk, then the row to `drawn`."""
        picture = f"pictures/{job.created_at:%Y-%m}/{job.id}.png"
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


def write_picture(path: Path, png: bytes) -> Path:
    """Write the file so that it is there whole or not at all, also after a power loss; blocking."""
    new_folders = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    try:
        with half.open("wb") as file:
            file.write(png)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)
    for folder in (path.parent, *(new.parent for new in new_folders)):
        _sync_folder(folder)
    return path


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
