"""When a job should be ready, from this machine's own timings. Reads the jobs table; changes nothing.

What counts is how long a job kept the GPU, from its claim to its picture on disk; the drawing is most of that.

A shape is (width, height, steps): what decides how long a drawing takes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from bot.job import JobStatus, Overview, Place
from bot.tables import JobRow, has_status
from gen.request import ModelProfile

RECENT = 20  # finished jobs that an estimate looks at
SOONEST_SECONDS = 2.0  # an estimate is never nearer: what is shown must not lie in the past when it arrives
OVERDUE_PART = 0.1  # of the expected seconds is what an overdue job is thought to need still
PRIOR_RATE = 30.0 / (1024 * 1024 * 20)  # seconds per pixel and step, before any job: FLUX.1-dev in half a minute
PRIOR_SECONDS_DEMO = 3.0  # before any job, for the demo model's own size and steps

Shape = tuple[int, int, int]


def prior_rate(profile: ModelProfile) -> float:
    """Seconds per pixel and step that this model is thought to take on a machine that has not drawn yet."""
    if profile.is_demo:
        return PRIOR_SECONDS_DEMO / _work((profile.width, profile.height, profile.steps))
    return PRIOR_RATE


async def place(session: AsyncSession, job_id: int, *, now: datetime, prior: float) -> Place | None:
    """Where a queued or running job stands; None for any other."""
    job = await session.get(JobRow, job_id)
    if job is None or job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        return None
    seconds = await _running_seconds(session, now, prior=prior)
    position = 0
    if job.status is JobStatus.QUEUED:
        ahead = JobRow.id <= job.id
        position = await _count(session, ahead)
        seconds += await _queued_seconds(session, ahead, prior=prior)
    waiting = await _count(session)
    return Place(position=position, waiting=waiting, ready_at=_ready_at(now, seconds))


async def overview(session: AsyncSession, *, now: datetime, prior: float) -> Overview:
    """The whole queue at a glance."""
    running = await session.scalar(select(JobRow.id).where(has_status(JobStatus.RUNNING)))
    people = await session.scalar(select(func.count(JobRow.user_id.distinct())).where(has_status(JobStatus.QUEUED)))
    waiting = await _count(session)
    seconds = await _running_seconds(session, now, prior=prior) + await _queued_seconds(session, prior=prior)
    idle = running is None and waiting == 0
    return Overview(
        waiting=waiting,
        people=people or 0,
        running_job_id=running,
        ready_at=None if idle else _ready_at(now, seconds),
    )


def _ready_at(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=max(seconds, SOONEST_SECONDS))


def _work(shape: Shape) -> int:
    width, height, steps = shape
    return width * height * steps


async def _expected(session: AsyncSession, shape: Shape, *, prior: float) -> float:
    """Median of the latest jobs of this shape; else scaled from the latest of any shape by work; else from `prior`."""
    width, height, steps = shape
    timed = JobRow.seconds.is_not(None)
    latest = JobRow.finished_at.desc()
    alike = (JobRow.width == width, JobRow.height == height, JobRow.steps == steps)
    same = (await session.scalars(select(JobRow).where(timed, *alike).order_by(latest).limit(RECENT))).all()
    if same:
        return median(_busy_seconds(row) for row in same)
    recent = (await session.scalars(select(JobRow).where(timed).order_by(latest).limit(RECENT))).all()
    rates = [_busy_seconds(row) / _work((row.width, row.height, row.steps)) for row in recent]
    return (median(rates) if rates else prior) * _work(shape)


def _busy_seconds(row: JobRow) -> float:
    """How long a drawn job kept the GPU; at least its drawing, also after the clock was set back."""
    drawing = row.seconds or 0.0
    if row.started_at is None or row.finished_at is None:
        return drawing
    return max(drawing, (row.finished_at - row.started_at).total_seconds())


async def _running_seconds(session: AsyncSession, now: datetime, *, prior: float) -> float:
    """What is left of the running job, 0.0 when none runs; a little of one that is overdue."""
    row = await session.scalar(select(JobRow).where(has_status(JobStatus.RUNNING)))
    if row is None or row.started_at is None:
        return 0.0
    expected = await _expected(session, (row.width, row.height, row.steps), prior=prior)
    return max(expected * OVERDUE_PART, expected - (now - row.started_at).total_seconds())


async def _queued_seconds(session: AsyncSession, *conditions: ColumnElement[bool], prior: float) -> float:
    """Sum over the queued jobs, one estimate per shape."""
    shape = (JobRow.width, JobRow.height, JobRow.steps)
    counted = select(*shape, func.count()).where(has_status(JobStatus.QUEUED), *conditions).group_by(*shape)
    rows = (await session.execute(counted)).all()
    return sum([row[3] * await _expected(session, (row[0], row[1], row[2]), prior=prior) for row in rows])


async def _count(session: AsyncSession, *conditions: ColumnElement[bool]) -> int:
    count = select(func.count()).select_from(JobRow).where(has_status(JobStatus.QUEUED), *conditions)
    return await session.scalar(count) or 0
