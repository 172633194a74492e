"""Everybody's place at one moment: reads queue, accounts and timings in one view of the database, and runs it forward.

One outlook answers for every job, so that a crowd that asks at the same time costs one. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from bot import estimates
from bot.estimates import Estimate, Shape
from bot.forecast import Share, Waiting, turns
from bot.job import JobStatus, Overview, Place
from bot.tables import JobRow, has_status

# Who waits, those above them, and everyone's account.
_SHARES = text(
    "WITH waiting AS (SELECT id, parent_id FROM accounts WHERE waiting > 0 UNION SELECT id, parent_id FROM accounts "
    "WHERE id IN (SELECT account_id FROM jobs WHERE status = 'queued' AND not_before IS NOT NULL)) "
    "SELECT id, parent_id, weight, vtime, virtual_time, ticket FROM accounts "
    "WHERE id IN (SELECT id FROM waiting UNION SELECT parent_id FROM waiting UNION SELECT 1)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where each job stands that waits or runs, and the whole queue at a glance."""

    places: dict[int, Place]  # by job id
    overview: Overview


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    job_id: int | None
    seconds: float  # left, 0.0 when none runs or it is overdue
    deviation: float


async def look(session: AsyncSession, *, now: datetime) -> Outlook:
    """Run the queue forward from `now`."""
    running = await _running(session, now)
    jobs = await _waiting(session, now)
    shares = [Share(**row._mapping) for row in await session.execute(_SHARES)]
    places: dict[int, Place] = {}
    if running.job_id is not None:
        places[running.job_id] = _place(now, running.seconds, running.deviation, waiting=len(jobs))
    for turn in turns(shares, jobs, free_in=running.seconds, deviation=running.deviation):
        place = _place(now, turn.ends, turn.deviation, waiting=len(jobs))
        deferred = turn.job.not_before
        places[turn.job.job_id] = Place(
            position=turn.position,
            waiting=place.waiting,
            ready_at=place.ready_at,
            uncertainty=place.uncertainty,
            mine=turn.mine,
            people=turn.people,
            deferred_until=None if deferred is None else now + timedelta(seconds=deferred),
        )
    return Outlook(places=places, overview=_overview(running, jobs, places))


def _overview(running: _Running, jobs: Sequence[Waiting], places: dict[int, Place]) -> Overview:
    return Overview(
        waiting=len(jobs),
        people=len({job.user_id for job in jobs}),
        running_job_id=running.job_id,
        ready_at=max((place.ready_at for place in places.values()), default=None),
    )


async def _running(session: AsyncSession, now: datetime) -> _Running:
    row = await session.scalar(select(JobRow).where(has_status(JobStatus.RUNNING)))
    if row is None or row.started_at is None:
        return _Running(job_id=None if row is None else row.id, seconds=0.0, deviation=0.0)
    estimate = await estimates.estimate(session, (row.width, row.height, row.steps))
    left = max(0.0, estimate.seconds - (now - row.started_at).total_seconds())
    return _Running(job_id=row.id, seconds=left, deviation=estimate.deviation)


async def _waiting(session: AsyncSession, now: datetime) -> list[Waiting]:
    """The queued jobs, oldest first, one estimate per shape."""
    columns = (JobRow.id, JobRow.account_id, JobRow.user_id, JobRow.not_before)
    shape = (JobRow.width, JobRow.height, JobRow.steps)
    queued = select(*columns, *shape).where(has_status(JobStatus.QUEUED)).order_by(JobRow.id)
    known: dict[Shape, Estimate] = {}
    jobs = []
    for job_id, account_id, user_id, not_before, width, height, steps in (await session.execute(queued)).all():
        asked = (width, height, steps)
        if asked not in known:
            known[asked] = await estimates.estimate(session, asked)
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


def _place(now: datetime, seconds: float, deviation: float, *, waiting: int) -> Place:
    return Place(
        position=0,
        waiting=waiting,
        ready_at=now + timedelta(seconds=seconds),
        uncertainty=timedelta(seconds=deviation),
    )
