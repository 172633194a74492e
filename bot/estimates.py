"""When a job should be ready, from this machine's own timings. Reads the jobs table; changes nothing.

A shape is (width, height, steps): what decides how long a drawing takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from bot.job import JobStatus, Overview, Place
from bot.tables import JobRow, has_status

RECENT = 20  # finished jobs that an estimate looks at
PRIOR_SECONDS_PER_PIXEL_STEP = 1.5e-6  # before any job: a 1024 x 1024 picture of 20 steps takes half a minute

Shape = tuple[int, int, int]


async def place(session: AsyncSession, job_id: int, *, now: datetime) -> Place | None:
    """Where a queued or running job stands; None for any other."""
    job = await session.get(JobRow, job_id)
    if job is None or job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        return None
    seconds = await _running_seconds(session, now)
    position = 0
    if job.status is JobStatus.QUEUED:
        ahead = JobRow.id <= job.id
        position = await _count(session, ahead)
        seconds += await _queued_seconds(session, ahead)
    waiting = await _count(session)
    return Place(position=position, waiting=waiting, ready_at=now + timedelta(seconds=seconds))


async def overview(session: AsyncSession, *, now: datetime) -> Overview:
    """The whole queue at a glance."""
    running = await session.scalar(select(JobRow.id).where(has_status(JobStatus.RUNNING)))
    people = await session.scalar(select(func.count(JobRow.user_id.distinct())).where(has_status(JobStatus.QUEUED)))
    waiting = await _count(session)
    seconds = await _running_seconds(session, now) + await _queued_seconds(session)
    idle = running is None and waiting == 0
    return Overview(
        waiting=waiting,
        people=people or 0,
        running_job_id=running,
        ready_at=None if idle else now + timedelta(seconds=seconds),
    )


def expected_seconds(shape: Shape, same: Sequence[float], recent: Sequence[tuple[float, Shape]]) -> float:
    """Median of `same`, the seconds of jobs of this shape; else scaled from `recent` by work; else a prior."""
    if same:
        return median(same)
    rate = median(seconds / _work(other) for seconds, other in recent) if recent else PRIOR_SECONDS_PER_PIXEL_STEP
    return rate * _work(shape)


def _work(shape: Shape) -> int:
    width, height, steps = shape
    return width * height * steps


async def _expected(session: AsyncSession, shape: Shape) -> float:
    width, height, steps = shape
    timed = JobRow.seconds.is_not(None)
    latest = JobRow.finished_at.desc()
    alike = (JobRow.width == width, JobRow.height == height, JobRow.steps == steps)
    same = await session.scalars(select(JobRow.seconds).where(timed, *alike).order_by(latest).limit(RECENT))
    found = [seconds for seconds in same if seconds is not None]
    if found:
        return expected_seconds(shape, found, [])
    columns = select(JobRow.seconds, JobRow.width, JobRow.height, JobRow.steps)
    rows = await session.execute(columns.where(timed).order_by(latest).limit(RECENT))
    return expected_seconds(shape, [], [(row.seconds or 0.0, (row.width, row.height, row.steps)) for row in rows])


async def _running_seconds(session: AsyncSession, now: datetime) -> float:
    """What is left of the running job, 0.0 when none runs or it is overdue."""
    row = await session.scalar(select(JobRow).where(has_status(JobStatus.RUNNING)))
    if row is None or row.started_at is None:
        return 0.0
    expected = await _expected(session, (row.width, row.height, row.steps))
    return max(0.0, expected - (now - row.started_at).total_seconds())


async def _queued_seconds(session: AsyncSession, *conditions: ColumnElement[bool]) -> float:
    """Sum over the queued jobs, one estimate per shape."""
    shape = (JobRow.width, JobRow.height, JobRow.steps)
    counted = select(*shape, func.count()).where(has_status(JobStatus.QUEUED), *conditions).group_by(*shape)
    rows = (await session.execute(counted)).all()
    return sum([count * await _expected(session, (width, height, steps)) for width, height, steps, count in rows])


async def _count(session: AsyncSession, *conditions: ColumnElement[bool]) -> int:
    count = select(func.count()).select_from(JobRow).where(has_status(JobStatus.QUEUED), *conditions)
    return await session.scalar(count) or 0
