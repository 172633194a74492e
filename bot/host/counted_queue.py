"""The queue, with the outbox, whose verbs are counted when they are committed. Knows no web."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Update
from sqlalchemy.orm import Session

from bot.host.metrics import Metrics
from bot.queue.job import Job, JobStatus, Recovery
from bot.queue.job_queue import JobQueue
from bot.queue.outbox import Outbox
from bot.storage.database import Database
from bot.storage.tables import JobRow


class CountedQueue(JobQueue):
    """A queue that tells `Metrics` what becomes of its jobs."""

    def __init__(self, database: Database, *, metrics: Metrics, **options: Any) -> None:
        """`options` are the queue's."""
        super().__init__(database, **options)
        self._metrics = metrics
        self.outbox = _CountedOutbox(database, now=self.now, count=self._count)

    def ended(self, job: Job) -> None:
        """A job is drawn, or over without a picture."""
        super().ended(job)
        self._count(job)

    async def claim(self, *, unless: Callable[[], bool] = lambda: False) -> Job | None:
        """As the queue does."""
        job = await super().claim(unless=unless)
        if job is not None:
            self._metrics.claimed(job)
        return job

    async def recover(self) -> Recovery:
        """As the queue does."""
        recovery = await super().recover()
        self._metrics.crashed(requeued=len(recovery.requeued), quarantined=len(recovery.quarantined))
        return recovery

    async def _finish(self, job: Job, status: JobStatus, **values: Any) -> bool:
        done = await super()._finish(job, status, **values)
        if not done:
            self._metrics.late.inc()
        return done

    async def _change(self, change: Update, *, then: Callable[[Session, JobRow], None] | None = None) -> Job | None:
        job = await super()._change(change, then=then)
        if job is not None and job.status is JobStatus.DELIVERED:
            self._count(job)
        return job

    def _count(self, job: Job) -> None:
        self._metrics.ended(job, now=self.now())


class _CountedOutbox(Outbox):
    def __init__(self, database: Database, *, now: Callable[[], Any], count: Callable[[Job], None]) -> None:
        super().__init__(database, now=now)
        self._count = count

    async def _close(self, job_id: int, status: JobStatus, **values: Any) -> Job | None:
        job = await super()._close(job_id, status, **values)
        if job is not None:
            self._count(job)
        return job
