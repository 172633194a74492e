"""What became of a claimed job, written down: charged, drawn, delivered, failed, cancelled, put back.

Each verb is one transaction, as in job_queue.py, which adds those that decide. A transition out of `running` checks the
attempt's token, so a late result changes nothing. Knows no line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Update, select, update
from sqlalchemy.orm import Session

from bot.language import say_to_owner
from bot.queue import fairness
from bot.queue.endings import log_end, settle, take_out
from bot.queue.job import Job, JobStatus
from bot.queue.job_reader import JobReader
from bot.queue.outbox import Outbox, put
from bot.storage.database import Database
from bot.storage.tables import JobRow, has_status, to_job
from gen.request import ImageResult

log = logging.getLogger(__name__)


class JobRecorder(JobReader):
    """The verbs of whoever draws and delivers."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], prior: float) -> None:
        """As JobReader."""
        super().__init__(database, now=now, prior=prior)
        self.outbox = Outbox(database, now=now)
        self.late_results = 0  # that came with an old token, and were dropped

    async def charge_used(self, job: Job, *, seconds: float) -> None:
        """Charge a running job for the GPU-seconds that it used, once its pixels are there. Late: nothing happens.

        Its end then finds nothing left to correct, and claims that come before it are as fair as those behind it.
        """

        def charge(session: Session) -> None:
            row = session.scalar(select(JobRow).where(*_is_running(job)))
            if row is not None:
                fairness.correct(session, row, used=seconds)
                row.charge = seconds

        await self._database.write(charge)

    async def record_drawn(self, job: Job, *, picture: str, result: ImageResult) -> bool:
        """Note the picture's path, relative to the data folder, and put it into the outbox. False: late, dropped."""
        notice = result.notice.told(say_to_owner(job)) if result.notice else None
        values = {"picture": picture, "seconds": result.seconds, "notice": notice, "model": result.model}
        return await self._finish(job, JobStatus.DRAWN, then=_put_into_outbox, reason=None, **values)

    async def record_delivered(self, job_id: int, *, message_id: int, channel_id: int | None = None) -> bool:
        """Note the message that brought the picture, and its channel. False: the job was not waiting for delivery."""
        drawn = update(JobRow).where(JobRow.id == job_id, has_status(JobStatus.DRAWN))
        posted = {"result_message_id": message_id, "result_channel_id": channel_id}
        change = drawn.values(status=JobStatus.DELIVERED, **posted)
        return await self._change(change, then=take_out) is not None

    async def record_failed(self, job: Job, *, reason: str) -> bool:
        """Note in words for its owner why the job failed. False: late, dropped."""
        return await self._finish(job, JobStatus.FAILED, reason=reason)

    async def record_cancelled(self, job: Job) -> bool:
        """Note that the running job was stopped for its owner. False: late, dropped."""
        return await self._finish(job, JobStatus.CANCELLED)

    async def requeue(self, job: Job) -> bool:
        """Put a running job back to its old place; the attempt is not counted. False: late, dropped."""
        values = {"attempts": JobRow.attempts - 1, "attempt_token": None, "started_at": None}
        change = _running(job).values(status=JobStatus.QUEUED, **values)
        return await self._change(change, then=fairness.put_back) is not None

    async def _finish(
        self, job: Job, status: JobStatus, *, then: Callable[[Session, JobRow], None] = settle, **values: Any
    ) -> bool:
        change = _running(job).values(status=status, finished_at=self.now(), **values)
        done = await self._change(change, then=then)
        if done is None:
            self.late_results += 1
            log.warning("job %d: a late result (%s) was dropped", job.id, status)
            return False
        self.ended(done)
        return True

    def ended(self, job: Job) -> None:
        """A job is drawn, or over without a picture, and that is committed: one line in the log."""
        log_end(log, job)

    async def _change(self, change: Update, *, then: Callable[[Session, JobRow], None] | None = None) -> Job | None:
        """Apply one UPDATE to at most one row, and what follows from it; return the job as it is then, if any."""

        def apply(session: Session) -> Job | None:
            row = session.scalar(change.returning(JobRow))
            if row is not None and then is not None:
                then(session, row)
            return None if row is None else to_job(row)

        job = await self._database.write(apply)
        self._lookout.moved()
        return job


def _running(job: Job) -> Update:
    return update(JobRow).where(*_is_running(job))


def _is_running(job: Job) -> tuple[ColumnElement[bool], ...]:
    """The row of this very attempt; of no other, and of none that is over."""
    return JobRow.id == job.id, has_status(JobStatus.RUNNING), JobRow.attempt_token == job.attempt_token


def _put_into_outbox(session: Session, row: JobRow) -> None:
    settle(session, row)
    put(session, row)
