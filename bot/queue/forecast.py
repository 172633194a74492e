"""Who will be drawn when: the fair order of fairness.py, run forward over what waits now, without the database.

Counting the rows before a job would be wrong, because a job of somebody who had less of the GPU goes before an older
one. Exact for the order as long as nobody asks or cancels and the estimates hold. Pure: values in, turns out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from bot.language import Say
from bot.queue.job import Place
from bot.quoting import ago


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An account as it stands; see tables.AccountRow and fairness.py."""

    id: int
    parent_id: int | None
    weight: float
    vtime: int
    virtual_time: int
    ticket: int


class Waiting(NamedTuple):
    """A queued job."""

    job_id: int
    account_id: int
    user_id: int
    seconds: float  # estimate, on the GPU
    deviation: float
    not_before: float | None  # seconds from now, of a deferred job


Key = tuple[int, int, int]  # vtime, ticket and id of the account below everyone's whose turn it is: lowest first


class Turn(NamedTuple):
    """One job in the order in which they will be drawn."""

    job: Waiting
    position: int  # 1 is next
    ends: float  # seconds from now
    deviation: float  # of `ends`
    mine: int  # jobs of the same person before it
    people: int  # others with jobs before it
    key: Key = (0, 0, 0)  # by which it was chosen; ascending along the line


@dataclass(slots=True)
class _Node:
    share: Share
    parent: _Node | None = None
    vtime: int = 0
    virtual_time: int = 0
    ticket: int = 0
    waiting: int = 0
    jobs: deque[Waiting] = field(default_factory=deque)
    line: list[tuple[int, int, int]] = field(default_factory=list)  # heap of (vtime, ticket, id) of those below


class _Tree:
    """The accounts as fairness.py would change them."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self.nodes = {share.id: _Node(share, None, share.vtime, share.virtual_time, share.ticket) for share in shares}
        for node in self.nodes.values():
            node.parent = self.nodes[node.share.parent_id] if node.share.parent_id is not None else None
            if node.parent is None:
                self.root = node

    def enter(self, job: Waiting, *, lifts: bool) -> None:
        """A job waits from now on; without `lifts`, it did so all the time."""
        node = self.nodes[job.account_id]
        node.jobs.append(job)
        while node.parent is not None:
            if node.waiting == 0:
                if lifts:
                    node.vtime, node.ticket = max(node.vtime, node.parent.virtual_time), job.job_id
                heappush(node.parent.line, (node.vtime, node.ticket, node.share.id))
            node.waiting += 1
            node = node.parent

    def take(self) -> tuple[Waiting, Key] | None:
        """The next job, charged, and what it was chosen by; None when nothing waits."""
        path, node = [], self.root
        while node.line:
            node = self.nodes[node.line[0][2]]
            path.append(node)
        if not path:
            return None
        job, key = node.jobs.popleft(), self.root.line[0]
        for node in reversed(path):
            assert node.parent is not None
            node.parent.virtual_time = max(node.parent.virtual_time, node.vtime)
            node.vtime += round(1e6 * job.seconds / node.share.weight)
            node.waiting -= 1
            heappop(node.parent.line)
            if node.waiting:
                heappush(node.parent.line, (node.vtime, node.ticket, node.share.id))
        return job, key


def order(shares: Sequence[Share], jobs: Iterable[Waiting], *, free_in: float) -> Iterator[tuple[Waiting, Key]]:
    """The jobs in the order of their turns; the GPU is free in so many seconds. `jobs` come oldest first."""
    tree, deferred = _Tree(shares), list[tuple[float, int, Waiting]]()
    for job in jobs:
        if job.not_before is None:
            tree.enter(job, lifts=False)
        else:
            heappush(deferred, (job.not_before, job.job_id, job))
    clock = free_in
    while True:
        while deferred and deferred[0][0] <= clock:
            tree.enter(heappop(deferred)[2], lifts=True)
        taken = tree.take()
        if taken is None:
            if not deferred:
                return
            tree.enter(heappop(deferred)[2], lifts=True)  # nobody else waits, so it need not either
            continue
        clock += taken[0].seconds
        yield taken


def turns(shares: Sequence[Share], jobs: Iterable[Waiting], *, free_in: float, deviation: float) -> Iterator[Turn]:
    """The jobs in order, each with what people want to know; `deviation` is that of `free_in`."""
    ends, variance = free_in, deviation**2
    before: dict[int, int] = {}
    for position, (job, key) in enumerate(order(shares, jobs, free_in=free_in), start=1):
        ends += job.seconds
        variance += job.deviation**2
        mine = before.get(job.user_id, 0)
        people = len(before) - (mine > 0)
        yield Turn(job, position, ends, variance**0.5, mine, people, key)
        before[job.user_id] = mine + 1


def why(say: Say, place: Place) -> str:
    """Answer "why am I fourth?" in a plain sentence or two."""
    if place.position == 0:
        return say("It is being drawn now.")
    reasons = _reasons(say, place)
    if reasons:
        words = say("Place {position}, because {reasons}.", position=place.position, reasons=say(" and ").join(reasons))
    else:
        words = say("You are next.")
    if place.deferred_until is not None:
        words += say(
            " You asked faster than your rate, so it lets others go first until {when}.", when=ago(place.deferred_until)
        )
    return words


def _reasons(say: Say, place: Place) -> list[str]:
    mine, others = place.mine, place.position - 1 - place.mine
    reasons = []
    if mine:
        reasons.append(
            say.many("{n} of your own pictures is before it", "{n} of your own pictures are before it", mine, n=mine)
        )
    if others:
        reasons.append(
            say.many(
                "{n} picture of {people} comes first, who asked earlier or had less of the GPU",
                "{n} pictures of {people} come first, who asked earlier or had less of the GPU",
                others,
                n=others,
                people=say.many("{n} other person", "{n} other people", place.people, n=place.people),
            )
        )
    return reasons
