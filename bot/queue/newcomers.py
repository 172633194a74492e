"""Where new jobs come in a look at the queue that was taken before them, without looking again.

Exact while nothing but new jobs came since: a newcomer's turn is known by the start tag that the claim will see, and
nobody before it is moved by it. For people directly below everyone's account. A look is needed for a job within a
server's share, for one that is deferred or comes with own deferred jobs waiting, and for one whose owner's weight
changed while they wait. Pure: values in, a place out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter

from bot.queue.forecast import Key, Share, Turn
from bot.queue.job import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """A job that has just been accepted."""

    job_id: int
    user_id: int
    account: Share  # as it stands, the job counted
    seconds: float  # estimate, on the GPU
    deviation: float


class Newcomers:
    """Those who came since one look."""

    def __init__(self, turns: Sequence[Turn], *, free_in: float, deviation: float) -> None:
        """`turns` are those of waiting jobs in their order; the GPU is free in so many seconds, give or take."""
        self._turns, self._keys = turns, [turn.key for turn in turns]
        self._free_in, self._deviation = free_in, deviation
        self._places: dict[int, list[int]] = {}  # by user: positions in the look, ascending
        self._next_tag: dict[int, int] = {}  # by account: vtime after its last waiting job
        self._came: list[tuple[Key, Newcomer]] = []  # in their order
        self._last = {turn.job.account_id: turn for turn in turns}
        for turn in turns:
            self._places.setdefault(turn.job.user_id, []).append(turn.position)

    def enter(self, new: Newcomer) -> None:
        """A job waits from now on."""
        account = new.account
        last = self._last.get(account.id)
        known = self._next_tag.get(account.id)
        if known is None:
            known = account.vtime if last is None else last.key[0] + _cost(last.job.seconds, account)
        self._next_tag[account.id] = known + _cost(new.seconds, account)
        key = (known, account.ticket, account.id)
        self._came.insert(bisect_right(self._came, key, key=itemgetter(0)), (key, new))

    def place(self, job_id: int, *, now: datetime) -> Place | None:
        """The place of one of the newcomers; `now` is aware UTC, the time of the look. None: it is none of them."""
        found = next((n for n, (_, new) in enumerate(self._came) if new.job_id == job_id), None)
        if found is None:
            return None
        (key, new), others = self._came[found], self._came[:found]
        before = bisect_right(self._keys, key)
        ends, variance = self._free_in, self._deviation**2
        if before:
            ends, variance = self._turns[before - 1].ends, self._turns[before - 1].deviation ** 2
        theirs = {user for user, positions in self._places.items() if positions[0] <= before}
        mine = bisect_right(self._places.get(new.user_id, []), before)
        for _, other in others:  # once: there may be thousands
            ends += other.seconds
            variance += other.deviation**2
            mine += other.user_id == new.user_id
            theirs.add(other.user_id)
        return Place(
            position=before + found + 1,
            waiting=len(self._turns) + len(self._came),
            ready_at=now + timedelta(seconds=ends + new.seconds),
            uncertainty=timedelta(seconds=(variance + new.deviation**2) ** 0.5),
            mine=mine,
            people=len(theirs - {new.user_id}),
        )


def _cost(seconds: float, account: Share) -> int:
    return round(1e6 * seconds / account.weight)
