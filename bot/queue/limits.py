"""How fast one person may ask: the generic cell rate algorithm (GCRA), a pure function.

One stored time says everything: the theoretical arrival, when the next request would come if the person asked
evenly. It is a token bucket of `burst` tokens that refills one token per `every`. Knows no clock and no database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Allowed when `retry_at` is None. `arrival` is what to store; after a refusal it is as before."""

    arrival: datetime
    retry_at: datetime | None


def take(arrival: datetime | None, *, now: datetime, every: timedelta, burst: int, deferrable: int = 0) -> Verdict:
    """Ask for one picture at `now`; `arrival` is the stored theoretical arrival, None for a newcomer.

    With `deferrable`, so many requests over the rate may be accepted ahead of their time: then store
    `arrival + every` after a refusal too. An arrival further ahead than a full burst and those can only come from a
    clock that was set back; it counts as that, so nobody is locked out longer.
    """
    due = min(max(arrival or now, now), now + (burst + deferrable) * every)
    allowed_from = due - (burst - 1) * every
    if allowed_from > now:
        return Verdict(arrival=due, retry_at=allowed_from)
    return Verdict(arrival=due + every, retry_at=None)
