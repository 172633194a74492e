"""How long a job keeps the GPU, from this machine's own timings. Reads the jobs table; changes nothing.

What counts is how long a job kept the GPU, text encoding to pixels: its picture is compressed, written and recorded
while the next is drawn.

A shape is (width, height, passes): what decides how long a drawing takes. A step is one pass through the model, or two
where there is a negative prompt. The first drawing of a process is cold: it comes with what a model does once (kernels,
caches), so it is measured and estimated apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from bot.storage.tables import JobRow, UtcDateTime
from gen.request import ImageRequest, ModelProfile

RECENT = 20  # finished jobs that an estimate looks at
PRIOR_RATE = 30.0 / (1024 * 1024 * 20)  # seconds per pixel and pass, before any job: FLUX.1-dev in half a minute
PRIOR_SECONDS_DEMO = 3.0  # before any job, for the demo model's own size and steps
DEVIATION_MIN, DEVIATION_SCALED, DEVIATION_PRIOR = 0.03, 0.3, 0.7  # of the seconds, for what was not measured

Shape = tuple[int, int, int]  # width, height, passes

# Not from the future: where the clock was set back, those would stay the latest until it is there again.
_LATEST = f"AND finished_at <= :now ORDER BY finished_at DESC LIMIT {RECENT}"
_NOW = bindparam("now", type_=UtcDateTime)
_SAME = text(
    f"SELECT seconds FROM jobs WHERE seconds IS NOT NULL "
    f"AND width = :width AND height = :height AND passes = :passes AND cold = :cold {_LATEST}"
).bindparams(_NOW)
_RATES = text(f"SELECT seconds / width / height / passes FROM jobs WHERE seconds IS NOT NULL {_LATEST}").bindparams(
    _NOW
)
_COLD = text(
    f"SELECT width, height, passes, seconds FROM jobs WHERE seconds IS NOT NULL AND cold {_LATEST}"
).bindparams(_NOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds that a job should keep the GPU, and their standard deviation."""

    seconds: float
    deviation: float


def prior_rate(profile: ModelProfile) -> float:
    """Seconds per pixel and pass that this model is thought to take on a machine that has not drawn yet."""
    if profile.is_demo:
        return PRIOR_SECONDS_DEMO / _work((profile.width, profile.height, profile.steps))
    return PRIOR_RATE


def shape_of(request: ImageRequest) -> Shape:
    """The shape of a request."""
    return request.width, request.height, request.passes


def shape_of_row(row: JobRow) -> Shape:
    """The shape of a stored job."""
    return row.width, row.height, row.passes


def estimate(session: Session, shape: Shape, *, now: datetime, prior: float, cold: bool = False) -> Estimate:
    """Median of the latest jobs of this shape; else scaled from the latest of any shape by work; else from `prior`.

    Cold: of the latest cold ones of this shape; else as warm, and longer by what cold jobs took longer.
    """
    same = _same(session, shape, now=now, cold=cold)
    if same:
        return _measured(same)
    warm = _warm(session, shape, now=now, prior=prior)
    extra = cold_extra(session, now=now) if cold else 0.0
    return Estimate(seconds=warm.seconds + extra, deviation=max(warm.deviation, extra * DEVIATION_SCALED))


def expected(session: Session, shape: Shape, *, now: datetime, prior: float, cold: bool = False) -> float:
    """The seconds alone."""
    return estimate(session, shape, now=now, prior=prior, cold=cold).seconds


def cold_extra(session: Session, *, now: datetime) -> float:
    """Seconds that cold jobs took longer than warm ones of their shape: the median, 0.0 if that is not known."""
    extras = []
    for width, height, passes, seconds in session.execute(_COLD, {"now": now}).all():
        warm = _same(session, (width, height, passes), now=now, cold=False)
        if warm:
            extras.append(max(0.0, seconds - median(warm)))
    return median(extras) if extras else 0.0


def _warm(session: Session, shape: Shape, *, now: datetime, prior: float) -> Estimate:
    same = _same(session, shape, now=now, cold=False) or _same(session, shape, now=now, cold=True)
    if same:
        return _measured(same)
    rates = session.scalars(_RATES, {"now": now}).all()
    seconds = (median(rates) if rates else prior) * _work(shape)
    return Estimate(seconds=seconds, deviation=seconds * (DEVIATION_SCALED if rates else DEVIATION_PRIOR))


def _same(session: Session, shape: Shape, *, now: datetime, cold: bool) -> Sequence[float]:
    width, height, passes = shape
    return session.scalars(_SAME, {"width": width, "height": height, "passes": passes, "cold": cold, "now": now}).all()


def _measured(timings: Sequence[float]) -> Estimate:
    """The median, and the deviation from the median absolute deviation, which a hiccup does not move."""
    seconds = median(timings)
    spread = 1.4826 * median(abs(one - seconds) for one in timings)
    return Estimate(seconds=seconds, deviation=max(spread, seconds * DEVIATION_MIN))


def _work(shape: Shape) -> int:
    width, height, passes = shape
    return width * height * passes
