"""Everybody's place at one moment: reads queue, accounts and timings in one view of the database, and runs it forward.

One outlook answers for every job, so that a crowd that asks at the same time costs one. Changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from bot.queue import estimates
from bot.queue.estimates import Estimate, Shape
from bot.queue.fairness import EVERYONE
from bot.queue.forecast import Share, Turn, Waiting, turns
from bot.queue.job import JobStatus, Overview, Place
from bot.queue.newcomers import Newcomer, Newcomers
from bot.storage.database import Database
from bot.storage.tables import AccountRow, JobRow, has_status

SOONEST_SECONDS = 2.0  # an estimate is never nearer: what is shown must not lie in the past when it arrives
SHORT_LINE = 500  # jobs; such a line is looked at again whenever it moved
REST_PER_SECOND = 2000  # jobs; a look at 10,000 waiting (half a second) serves new ones for five seconds
REST_MAX = 10.0  # seconds; then the running job may be overdue
OVERDUE_PART = 0.1  # of the expected seconds is what an overdue job is thought to need still

# Who waits, those above them, and everyone's account.
_SHARES = text(
    "WITH waiting AS (SELECT id, parent_id FROM accounts WHERE waiting > 0 UNION SELECT id, parent_id FROM accounts "
    "WHERE id IN (SELECT account_id FROM jobs WHERE status = 'queued' AND not_before IS NOT NULL)) "
    "SELECT id, parent_id, weight, vtime, virtual_time, ticket FROM accounts "
    "WHERE id IN (SELECT id FROM waiting UNION SELECT parent_id FROM waiting UNION SELECT 1)"
)


class Lookout:
    """Looks at the queue for all who ask; while one look is under way, the next serves everybody who waits."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime],
        prior: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`prior` is `estimates.prior_rate` of the model; `clock` counts seconds."""
        self.cold = True  # nothing was claimed in this process; what is next takes longer
        self._database, self._now, self._prior, self._clock = database, now, prior, clock
        self._looking = asyncio.Lock()
        self._next: asyncio.Task[Outlook] | None = None
        self._last: Outlook | None = None
        self._newcomers: Newcomers | None = None  # since the last look
        self._entered: list[Newcomer] = []  # since the last look began
        self._looked_at, self._moved = 0.0, True

    async def look(self) -> Outlook:
        """The queue as it is now, or a little later."""
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        return await asyncio.shield(self._next)

    def moved(self) -> None:
        """Something but a new job changed the line."""
        self._moved = True

    def entered(self, new: Newcomer) -> None:
        """A new job waits."""
        self._entered.append(new)
        if self._newcomers is not None:
            self._newcomers.enter(new)

    async def place_of_new(self, job_id: int) -> Place | None:
        """Where a job stands that was accepted just now: seen in the last look, if that is still true enough."""
        last, newcomers = self._last, self._newcomers
        if last is not None and newcomers is not None and self._serves(last):
            place = newcomers.place(job_id, now=last.now)
            if place is not None:
                return replace(place, ready_at=max(place.ready_at, _at(self._now(), 0.0)))
        return (await self.look()).place(job_id)

    def _serves(self, last: Outlook) -> bool:
        """A look is true until something moves; one at a long line also for a while after that."""
        age = self._clock() - self._looked_at
        waiting = last.overview.waiting
        if not self._moved:
            return age < REST_MAX
        return waiting > SHORT_LINE and age < waiting / REST_PER_SECOND

    async def _look(self) -> Outlook:
        async with self._looking:
            self._next = None
            now, seen, self._moved, began = self._now(), len(self._entered), False, self._clock()
            found = await self._database.read(lambda session: look(session, now=now, prior=self._prior, cold=self.cold))
            self._entered = self._entered[seen:]
            self._last, self._newcomers, self._looked_at = found, found.newcomers(), began
            for new in self._entered:
                if new.job_id not in found.turns:
                    self._newcomers.enter(new)
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where each job stands that waits or runs, and the whole queue at a glance."""

    now: datetime
    turns: dict[int, Turn]  # by job id, in their order
    overview: Overview
    free_in: float  # seconds until the GPU is free
    deviation: float  # of that

    def newcomers(self) -> Newcomers:
        """Nobody yet."""
        waiting = [turn for turn in self.turns.values() if turn.position > 0]
        return Newcomers(waiting, free_in=self.free_in, deviation=self.deviation)

    def place(self, job_id: int) -> Place | None:
        """Where the job stands; None when it neither waits nor runs."""
        turn = self.turns.get(job_id)
        if turn is None:
            return None
        deferred = turn.job.not_before
        return Place(
            position=turn.position,
            waiting=self.overview.waiting,
            ready_at=_at(self.now, turn.ends),
            uncertainty=timedelta(seconds=turn.deviation),
            mine=turn.mine,
            people=turn.people,
            deferred_until=None if deferred is None else self.now + timedelta(seconds=deferred),
        )

    def first_ready(self, user_id: int) -> datetime | None:
        """When the first of this person's waiting jobs should be ready; None when none waits."""
        ends = [turn.ends for turn in self.turns.values() if turn.job.user_id == user_id and turn.position > 0]
        return _at(self.now, min(ends)) if ends else None


def look(session: Session, *, now: datetime, prior: float, cold: bool) -> Outlook:
    """Run the queue forward from `now`; `prior` is `estimates.prior_rate` of the model. Cold: nothing was drawn yet."""
    running = _running(session, now, prior=prior)
    jobs = _waiting(session, now, prior=prior)
    shares = [Share(**row._mapping) for row in session.execute(_SHARES)]
    free_in, deviation = (running.ends, running.deviation) if running else (0.0, 0.0)
    if cold and running is None:
        free_in = estimates.cold_extra(session, now=now)
    found = list(turns(shares, jobs, free_in=free_in, deviation=deviation))
    everyone = [running, *found] if running else found
    overview = Overview(
        waiting=len(jobs),
        people=len({job.user_id for job in jobs}),
        running_job_id=running.job.job_id if running else None,
        ready_at=_at(now, everyone[-1].ends) if everyone else None,
    )
    turns_by_job = {turn.job.job_id: turn for turn in everyone}
    return Outlook(now=now, turns=turns_by_job, overview=overview, free_in=free_in, deviation=deviation)


def newcomer(session: Session, row: JobRow, *, now: datetime, prior: float) -> Newcomer | None:
    """A job that was accepted in this transaction; None: within a server's share it needs a look."""
    account = session.get(AccountRow, row.account_id)
    if account is None or account.parent_id != EVERYONE:
        return None
    estimate = estimates.estimate(session, estimates.shape_of_row(row), now=now, prior=prior)
    names = [field.name for field in fields(Share)]
    share = Share(**{name: getattr(account, name) for name in names})
    return Newcomer(
        job_id=row.id, user_id=row.user_id, account=share, seconds=estimate.seconds, deviation=estimate.deviation
    )


def _running(session: Session, now: datetime, *, prior: float) -> Turn | None:
    """The running job as a turn at position 0, with what is left of it; of several, the one that is drawn."""
    running = select(JobRow).where(has_status(JobStatus.RUNNING))
    row = session.scalar(running.order_by(JobRow.started_at.desc(), JobRow.id.desc()).limit(1))
    if row is None:
        return None
    estimate = estimates.estimate(session, estimates.shape_of_row(row), now=now, prior=prior, cold=row.cold)
    since = max((now - (row.started_at or now)).total_seconds(), 0.0)  # the clock may have been set back
    left = max(estimate.seconds * OVERDUE_PART, estimate.seconds - since)
    job = Waiting(
        job_id=row.id, account_id=0, user_id=row.user_id, seconds=left, deviation=estimate.deviation, not_before=None
    )
    return Turn(job=job, position=0, ends=left, deviation=estimate.deviation, mine=0, people=0)


def _waiting(session: Session, now: datetime, *, prior: float) -> list[Waiting]:
    """The queued jobs, oldest first, one estimate per shape."""
    columns = (JobRow.id, JobRow.account_id, JobRow.user_id, JobRow.not_before)
    shape = (JobRow.width, JobRow.height, JobRow.passes)
    queued = select(*columns, *shape).where(has_status(JobStatus.QUEUED)).order_by(JobRow.id)
    known: dict[Shape, Estimate] = {}
    jobs = []
    for job_id, account_id, user_id, not_before, width, height, passes in (session.execute(queued)).all():
        asked = (width, height, passes)
        if asked not in known:
            known[asked] = estimates.estimate(session, asked, now=now, prior=prior)
        assert account_id is not None, f"job {job_id} waits without an account"
        jobs.append(
            Waiting(
                job_id=job_id,
                account_id=account_id,
                user_id=user_id,
                seconds=known[asked].seconds,
                deviation=known[asked].deviation,
                not_before=None if not_before is None else (not_before - now).total_seconds(),
            )
        )
    return jobs


def _at(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=max(seconds, SOONEST_SECONDS))
