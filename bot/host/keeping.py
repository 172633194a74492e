"""What is kept, and for how long: the operator's wish, and which pictures it dooms. Pure; `bot.host.keeper` acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What the operator asked for."""

    backups: int = 7  # copies, one a day; 0: none are made
    days: float | None = None  # of a picture since its job ended; None: for ever
    picture_bytes: int | None = None  # of all pictures; None: no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One file of a job that is over."""

    job_id: int
    path: str  # relative to the data folder
    finished_at: datetime  # aware UTC
    size: int  # bytes


def too_many(pictures: Sequence[Picture], *, keeping: Keeping, now: datetime) -> list[Picture]:
    """Which pictures must go: those over the age, then the oldest until the rest is within the size."""
    oldest_first = sorted(pictures, key=lambda picture: (picture.finished_at, picture.job_id))
    left = sum(picture.size for picture in oldest_first)
    doomed = []
    for picture in oldest_first:
        too_old = keeping.days is not None and now - picture.finished_at > timedelta(days=keeping.days)
        too_big = keeping.picture_bytes is not None and left > keeping.picture_bytes
        if too_old or too_big:
            doomed.append(picture)
            left -= picture.size
    return doomed
