"""From the queue to the executor: which job is drawn when, in tasks that live only while there is work.

While a picture is compressed, written and recorded, the next is drawn: a job holds its slot until its pixels are there.
A job is claimed only when a slot is free: one claimed ahead would count a crash that was not its own, and could not be
cancelled free of charge. How one is drawn and recorded: drawing.py. Knows no Discord. Nothing that fails, drawing, disk
or database, ends the dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from bot.queue.drawing import RETRY_SECONDS, Drawing, Drawings, Outcomes
from bot.queue.job import Job
from bot.queue.job_queue import JobQueue
from gen.attempt import Attempt, Executor

STOP_SECONDS = 3.0  # how long closing waits for the generator to stop
REQUEUE_SECONDS = 1.0  # how long it then waits for the database

log = logging.getLogger(__name__)


class Dispatcher:
    """Draws queued jobs in their order. Use it with `async with`: leaving requeues what is drawn."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        executor: Executor,
        outcomes: Outcomes,
        pictures: Path,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`pictures` is the data folder; `retry_seconds` is the pause after the first failed recording."""
        self._queue = queue
        self._executor = executor
        self._drawings = Drawings(
            queue=queue, executor=executor, outcomes=outcomes, pictures=pictures, retry_seconds=retry_seconds
        )
        self._closing = self._drawings.closing
        self._turn = asyncio.Event()  # there may be something to claim
        self._drain: asyncio.Task[None] | None = None
        self._running: dict[int, Drawing] = {}  # by job
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
        await asyncio.wait(
            [asyncio.create_task(self._drawings.put_back(job)) for job in drawing], timeout=REQUEUE_SECONDS
        )

    async def _work(self) -> None:
        """Claim and draw until nothing waits. A bug of ours ends it, logged; the next wake starts it again."""
        try:
            while True:
                self._turn.clear()
                job = await self._drawings.insist("claiming a job", self._claim) if self._has_slot() else None
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
            job = await self._queue.claim(unless=self._closing.is_set)  # it may outlive this task
        finally:
            self._claiming = False
        if job is not None:
            assert job.attempt_token is not None
            attempt = Attempt(token=job.attempt_token, request=job.request)
            running = Drawing(job=job, attempt=attempt, unwanted=job.id in self._unwanted)
            self._running[job.id] = running
            running.task = asyncio.create_task(self._run(running), name=f"job {job.id}")
        self._unwanted.clear()
        return job

    async def _run(self, running: Drawing) -> None:
        try:
            await self._drawings.draw(running, freed=self._turn.set)
        except Exception:
            log.exception("job %d: not recorded; it is left to the next start", running.job.id)
        finally:
            del self._running[running.job.id]
            self._turn.set()
