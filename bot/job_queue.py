"""The queue's durable verbs: submit, claim, record, cancel, requeue, recover. What it says of itself: job_reader.py.

Each verb is one transaction, committed to the disk before it returns. Knows no Discord and no GPU; the state of
record is the `jobs` table, never memory. A transition out of `running` checks the attempt's token, so a late result
changes nothing. Any verb may raise QueueUnavailable: then nothing was changed.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Update, select, update
from sqlalchemy.orm import Session

from bot import estimates, fairness
from bot.accepting import Terms, accept
from bot.database import Database
from bot.endings import end_line, lose_picture, quarantine, settle
from bot.errors import NotAllowed, QueueFull, Refusal
from bot.holding import take_back
from bot.job import STATUS_WORDS, Job, JobStatus, Limits, NewJob, Overview, Place, Recovery
from bot.job_reader import JobReader
from bot.language import Message, msg, say_to_owner
from bot.outbox import Outbox, put, take_out
from bot.removal import Removal
from bot.server import EVERYWHERE, Standing
from bot.servers import standing_of
from bot.tables import JobRow, has_status, to_job
from gen.request import ImageResult

__all__ = ["Job", "JobQueue", "JobStatus", "Limits", "NewJob", "Overview", "Place", "Recovery"]

CRASHES_MAX = 2  # a job whose process died under it this often is quarantined

log = logging.getLogger(__name__)


class JobQueue(JobReader):
    """All verbs of the queue over one database; one for the process, because its first claim is a cold one."""

    def __init__(
        self,
        database: Database,
        *,
        limits: Limits,
        now: Callable[[], datetime],
        prior: float = estimates.PRIOR_RATE,
        server_share: bool = False,
    ) -> None:
        """`now` returns aware UTC; `prior` is `estimates.prior_rate` of the model.

        With `server_share` each Discord server has a share of its own, and people have theirs within it.
        """
        super().__init__(database, now=now, prior=prior)
        self.outbox, self.removal = Outbox(database, now=now), Removal(database, now=now)
        self._noted: Callable[[], None] = lambda: None
        self.late_results = 0  # that came with an old token, and were dropped
        self._terms = Terms(limits=limits, prior=prior, server_share=server_share)

    def on_note(self, noted: Callable[[], None]) -> None:
        """Call `noted` whenever a submit may have written into the audit log."""
        self._noted = noted

    async def submit(self, new: NewJob, *, weight: float | None = None) -> Job:
        """Accept a job, or raise what gate.py and admission.py refuse, and store nothing.

        The same interaction again returns its first job and charges nothing. What the person may have is said by
        their roles, see roles.py; `weight` overrules that of the roles. It holds from now on.
        """
        return (await self.submit_all([new], weight=weight))[0]

    async def submit_all(self, asked: Sequence[NewJob], *, weight: float | None = None) -> tuple[Job, ...]:
        """Accept all jobs of one interaction, or raise and store none of them; else as `submit`."""
        try:
            accepted = await self._database.write(
                lambda session: [accept(session, new, self._terms, weight=weight, now=self.now()) for new in asked]
            )
        except QueueFull as full:
            retry_at = (await self._lookout.look()).first_ready(asked[0].user_id)
            raise QueueFull(waiting=full.waiting, allowed=full.allowed, retry_at=retry_at) from None
        for _, newcomer in accepted:
            if newcomer is not None:
                self._lookout.entered(newcomer)
        self._noted()
        return tuple(job for job, _ in accepted)

    async def record_card(self, *job_ids: int, message_id: int) -> None:
        """Remember which message shows the job, or the jobs."""
        change = update(JobRow).where(JobRow.id.in_(job_ids)).values(card_message_id=message_id)
        await self._database.write(lambda session: session.execute(change))

    async def claim(self) -> Job | None:
        """Mark the job that is next as running, charge its owner and return it; None when nothing waits.

        One UPDATE finds and takes the job, so two claims never return the same one.
        """

        def take(session: Session) -> Job | None:
            if standing_of(session, EVERYWHERE) is Standing.PAUSED:
                return None
            fairness.release_due(session, now=self.now())
            row = self._take(session)
            if row is None and fairness.release_one(session):
                row = self._take(session)
            if row is None:
                return None
            row.cold = cold
            estimate = estimates.expected(session, estimates.shape_of_row(row), prior=self._prior, cold=cold)
            fairness.charge(session, row, estimate=estimate)
            return to_job(row)

        cold = self._lookout.cold
        job = await self._database.write(take)
        self._lookout.moved()
        if job is not None:
            self._lookout.cold = False
        return job

    def _take(self, session: Session) -> JobRow | None:
        change = (
            update(JobRow)
            .where(JobRow.id == fairness.next_in_line())
            .values(
                status=JobStatus.RUNNING,
                attempts=JobRow.attempts + 1,
                attempt_token=uuid.uuid4().hex,
                started_at=self.now(),
            )
        )
        return session.scalar(change.returning(JobRow))

    async def record_drawn(self, job: Job, *, picture: str, result: ImageResult) -> bool:
        """Note the picture's path, relative to the data folder, and put it into the outbox. False: late, dropped."""
        notice = result.notice.told(say_to_owner(job)) if result.notice else None
        values = {"picture": picture, "seconds": result.seconds, "notice": notice, "model": result.model}
        return await self._finish(job, JobStatus.DRAWN, then=_put_into_outbox, **values)

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

    async def cancel(self, job_id: int, *, user_id: int) -> Job:
        """Cancel a queued or held job at once. A running one is returned still running: the dispatcher must stop it.

        Raise NotAllowed for an unknown job or somebody else's, Refusal for one that is over.
        """

        def decide(session: Session) -> Job:
            row = session.get(JobRow, job_id)
            if row is None or row.user_id != user_id:
                raise NotAllowed(msg("You have no job {number}."), number=job_id)
            if row.status in (JobStatus.QUEUED, JobStatus.HELD):
                take_back(session, row, now=self.now())
            elif row.status is not JobStatus.RUNNING:
                state = Message(STATUS_WORDS[row.status])
                raise Refusal(msg("Job {number} is over already: it is {state}."), number=job_id, state=state)
            return to_job(row)

        job = await self._database.write(decide)
        self._lookout.moved()
        if job.status is JobStatus.CANCELLED:
            log.info(end_line(job))
        return job

    async def recover(self) -> Recovery:
        """At start, before any claim: every running job is an orphan of a process that died.

        Requeue it at its old place, or quarantine it after its second crash.
        """

        def sort_out(session: Session) -> Recovery:
            orphans = session.scalars(select(JobRow).where(has_status(JobStatus.RUNNING)).order_by(JobRow.id))
            requeued, quarantined = [], []
            for row in orphans.all():
                row.attempt_token = None
                if row.attempts >= CRASHES_MAX:
                    quarantine(session, row, now=self.now())
                    quarantined.append(to_job(row))
                else:
                    row.status, row.started_at = JobStatus.QUEUED, None
                    fairness.put_back(session, row)
                    requeued.append(to_job(row))
            session.flush()
            fairness.recount(session)
            return Recovery(requeued=tuple(requeued), quarantined=tuple(quarantined))

        recovery = await self._database.write(sort_out)
        self._lookout.moved()
        for job in recovery.quarantined:
            log.info(end_line(job))
        return recovery

    async def record_shown(self, job_id: int) -> None:
        """Note that people saw how the job ended, or that Discord will take no word of it."""
        change = update(JobRow).where(JobRow.id == job_id).values(end_shown=True)
        await self._database.write(lambda session: session.execute(change))

    async def redraw(self, job_id: int) -> Job | None:
        """Put a drawn job whose picture is lost back to its old place, uncounted; the second time it fails instead.

        Return it as it is then; None: it was not drawn, and nothing was changed.
        """

        def again(session: Session) -> Job | None:
            row = session.get(JobRow, job_id)
            if row is None or row.status is not JobStatus.DRAWN:
                return None
            if not lose_picture(session, row):
                take_out(session, row)
            return to_job(row)

        job = await self._database.write(again)
        self._lookout.moved()
        return job

    async def _finish(
        self, job: Job, status: JobStatus, *, then: Callable[[Session, JobRow], None] = settle, **values: Any
    ) -> bool:
        change = _running(job).values(status=status, finished_at=self.now(), **values)
        done = await self._change(change, then=then)
        if done is None:
            self.late_results += 1
            log.warning("job %d: a late result (%s) was dropped", job.id, status)
            return False
        log.info(end_line(done))
        return True

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
    """The row of this very attempt; of no other, and of none that is over."""
    return update(JobRow).where(
        JobRow.id == job.id, has_status(JobStatus.RUNNING), JobRow.attempt_token == job.attempt_token
    )


def _put_into_outbox(session: Session, row: JobRow) -> None:
    settle(session, row)
    put(session, row)
