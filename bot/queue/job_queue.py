"""The queue's durable verbs: submit, claim, cancel, recover. What became of a claimed job: job_recorder.py.

Each verb is one transaction, committed to the disk before it returns. Knows no Discord and no GPU; the state of
record is the `jobs` table, never memory. Any verb may raise QueueUnavailable: then nothing was changed. What the queue
says of itself: job_reader.py.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bot.errors import NotAllowed, QueueFull, Refusal
from bot.language import Message, msg
from bot.queue import estimates, fairness
from bot.queue.accepting import Terms, accept
from bot.queue.endings import lose_picture, quarantine
from bot.queue.holding import BY_MODERATOR, explain, take_back
from bot.queue.job import STATUS_WORDS, Job, JobStatus, Limits, NewJob, Overview, Place, Recovery
from bot.queue.job_recorder import JobRecorder
from bot.queue.removal import Removal
from bot.servers.audit import note_of_job
from bot.servers.server import EVERYWHERE, Act, Standing
from bot.servers.servers import standing_of
from bot.storage.database import Database
from bot.storage.tables import JobRow, has_status, to_job

__all__ = ["Job", "JobQueue", "JobStatus", "Limits", "NewJob", "Overview", "Place", "Recovery"]

CRASHES_MAX = 2  # a job whose process died under it this often is quarantined

log = logging.getLogger(__name__)


class JobQueue(JobRecorder):
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
        self.removal = Removal(database, now=now)
        self._noted: Callable[[], None] = lambda: None
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
        newcomers = [newcomer for _, newcomer in accepted if newcomer is not None]
        if len(newcomers) < len(accepted):  # else those behind it would be told a place that does not know of it
            self._lookout.moved()
        else:
            for newcomer in newcomers:
                self._lookout.entered(newcomer)
        self._noted()
        return tuple(job for job, _ in accepted)

    async def record_card(self, *job_ids: int, message_id: int) -> None:
        """Remember which message shows the job, or the jobs."""
        change = update(JobRow).where(JobRow.id.in_(job_ids)).values(card_message_id=message_id)
        await self._database.write(lambda session: session.execute(change))

    async def claim(self, *, unless: Callable[[], bool] = lambda: False) -> Job | None:
        """Mark the job that is next as running, charge its owner and return it; None when nothing waits.

        One UPDATE finds and takes the job, so two claims never return the same one. `unless` is asked within the
        transaction, on the writer's thread: True takes nothing, because nobody waits for the answer any more.
        """

        def take(session: Session) -> Job | None:
            if unless() or standing_of(session, EVERYWHERE) is Standing.PAUSED:
                return None
            fairness.release_due(session, now=self.now())
            row = self._take(session)
            if row is None and fairness.release_one(session):
                row = self._take(session)
            if row is None:
                return None
            row.cold = cold
            shape = estimates.shape_of_row(row)
            estimate = estimates.expected(session, shape, now=self.now(), prior=self._prior, cold=cold)
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

    async def cancel(self, job_id: int, *, user_id: int, moderator_id: int | None = None) -> Job:
        """Cancel a queued or held job at once. A running one is returned still running: the dispatcher must stop it.

        With `moderator_id` somebody else does it for `user_id`, and it is noted. Raise NotAllowed for an unknown job or
        somebody else's, Refusal for one that is over.
        """

        def decide(session: Session) -> Job:
            row = session.get(JobRow, job_id)
            if row is None or row.user_id != user_id:
                raise NotAllowed(msg("You have no job {number}."), number=job_id)
            reason = None if moderator_id is None else BY_MODERATOR
            if row.status in (JobStatus.QUEUED, JobStatus.HELD):
                take_back(session, row, now=self.now(), reason=reason)
            elif row.status is JobStatus.RUNNING:
                explain(row, reason)  # for when it has been stopped
            else:
                state = Message(STATUS_WORDS[row.status])
                raise Refusal(msg("Job {number} is over already: it is {state}."), number=job_id, state=state)
            if moderator_id is not None:
                note_of_job(session, Act.CANCEL, row, actor_id=moderator_id, now=self.now())
            return to_job(row)

        job = await self._database.write(decide)
        self._lookout.moved()
        if job.status is JobStatus.CANCELLED:
            self.ended(job)
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
            self.ended(job)
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
            lose_picture(session, row)
            return to_job(row)

        job = await self._database.write(again)
        self._lookout.moved()
        if job is not None and job.status is JobStatus.FAILED:
            self.ended(job)
        return job
