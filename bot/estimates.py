"""How long a drawing takes, from this machine's own timings. Reads the jobs table; changes nothing.

A shape is (width, height, steps): what decides how long a drawing takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from bot.tables import JobRow
from gen.request import ImageRequest

RECENT = 20  # finished jobs that an estimate looks at
PRIOR_SECONDS_PER_PIXEL_STEP = 1.5e-6  # before any job: a 1024 x 1024 picture of 20 steps takes half a minute
DEVIATION_MIN, DEVIATION_SCALED, DEVIATION_PRIOR = 0.03, 0.3, 0.7  # of the seconds, for what was not measured

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds on the GPU that a drawing should take, and their standard deviation."""

    seconds: float
    deviation: float


def shape_of(request: ImageRequest) -> Shape:
    """The shape of a request."""
    return request.width, request.height, request.steps


def expected_seconds(shape: Shape, same: Sequence[float], recent: Sequence[tuple[float, Shape]]) -> float:
    """Median of `same`, the seconds of jobs of this shape; else scaled from `recent` by work; else a prior."""
    if same:
        return median(same)
    rate = median(seconds / _work(other) for seconds, other in recent) if recent else PRIOR_SECONDS_PER_PIXEL_STEP
    return rate * _work(shape)


def deviation(seconds: float, same: Sequence[float], recent: Sequence[tuple[float, Shape]]) -> float:
    """Standard deviation of such an estimate, from the median absolute deviation, which a hiccup does not move."""
    if not same:
        return seconds * (DEVIATION_SCALED if recent else DEVIATION_PRIOR)
    spread = 1.4826 * median(abs(one - seconds) for one in same)
    return max(spread, seconds * DEVIATION_MIN)


async def estimate(session: AsyncSession, shape: Shape) -> Estimate:
    """What this machine's last jobs say about `shape`."""
    same, recent = await _timings(session, shape)
    seconds = expected_seconds(shape, same, recent)
    return Estimate(seconds=seconds, deviation=deviation(seconds, same, recent))


async def expected(session: AsyncSession, shape: Shape) -> float:
    """The seconds alone."""
    return (await estimate(session, shape)).seconds


def _work(shape: Shape) -> int:
    width, height, steps = shape
    return width * height * steps


async def _timings(session: AsyncSession, shape: Shape) -> tuple[list[float], list[tuple[float, Shape]]]:
    """The last timings of this shape; only where there are none, of any shape."""
    width, height, steps = shape
    timed = JobRow.seconds.is_not(None)
    latest = JobRow.finished_at.desc()
    alike = (JobRow.width == width, JobRow.height == height, JobRow.steps == steps)
    same = await session.scalars(select(JobRow.seconds).where(timed, *alike).order_by(latest).limit(RECENT))
    found = [seconds for seconds in same if seconds is not None]
    if found:
        return found, []
    columns = select(JobRow.seconds, JobRow.width, JobRow.height, JobRow.steps)
    rows = await session.execute(columns.where(timed).order_by(latest).limit(RECENT))
    return [], [(row.seconds or 0.0, (row.width, row.height, row.steps)) for row in rows]
