"""Random histories of people who share one GPU, played through the real queue and held against the bound.

While two people both keep waiting, what they got of the GPU must not differ by more than Cmax_f / w_f + Cmax_g / w_g,
over any stretch of time; `play` returns the worst stretch as a fraction of that. It knows nothing of how the queue
decides: it counts GPU-seconds as people would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import combinations, count
from random import Random

from sqlalchemy import text

from bot.queue.job import Job, Limits, NewJob
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database
from gen.request import ImageRequest, ImageResult

STEPS = (2, 8, 20)  # denoising steps of a small, a usual and a large job
SECONDS_PER_STEP = 0.5
WEIGHTS = (0.5, 1.0, 1.0, 2.0, 3.0)
_EMPTY = text("UPDATE jobs SET status = 'cancelled' WHERE status = 'queued'")
LIMITS = Limits(waiting_per_user=1000, pictures_per_hour=3600, burst=1000)
ENDS_IN_TEN = ("drawn",) * 7 + ("cancelled", "failed", "requeued")


class Kind(StrEnum):
    """What can happen."""

    ASK = "ask"
    TAKE_BACK = "take back"  # the newest queued job
    CLAIM = "claim"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happens; a claim while the GPU is busy and an end while it is idle do nothing."""

    kind: Kind
    person: int = 0
    size: int = 0  # index into STEPS
    jobs: int = 1
    factor: float = 1.0  # what a job takes, as a multiple of what its shape usually does
    end: str = "drawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """People, by their weights and by how long their jobs take, and what happens to them."""

    weights: tuple[float, ...]
    factors: tuple[float, ...]  # some people's jobs always take longer than their estimate
    events: tuple[Event, ...]


def random_history(seed: int, *, length: int = 40) -> History:
    """Bursts, absences and returns of two to five people; the same for the same seed."""
    random = Random(seed)
    people = random.randint(2, 5)
    events = []
    for _ in range(length):
        kind = random.choices((Kind.ASK, Kind.TAKE_BACK, Kind.CLAIM, Kind.END), (3, 0.5, 6, 6))[0]
        events.append(
            Event(
                kind=kind,
                person=random.randrange(people),
                size=random.randrange(len(STEPS)),
                jobs=random.choice((1, 1, 2, 6)),
                factor=random.uniform(0.5, 1.5),
                end=random.choice(ENDS_IN_TEN),
            )
        )
    return History(
        weights=tuple(random.choice(WEIGHTS) for _ in range(people)),
        factors=tuple(random.choice((0.4, 1.0, 1.0, 2.5)) for _ in range(people)),
        events=tuple(events),
    )


class Clock:
    """The time of a history; moves when a job ends."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Ledger:
    """Who waits, what they got for each unit of weight, and how far each two drifted while both waited."""

    weights: Sequence[float]
    got: dict[int, float] = field(default_factory=dict)
    waiting: dict[int, list[int]] = field(default_factory=dict)  # job ids, oldest first
    largest: dict[int, float] = field(default_factory=dict)  # seconds of a job
    spans: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)  # lowest and highest difference
    drifts: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for person in range(len(self.weights)):
            self.got[person], self.waiting[person], self.largest[person] = 0.0, [], 0.0

    def note(self) -> None:
        """Call it after each change: extend each pair's stretch, or end it."""
        for pair in combinations(self.got, 2):
            one, other = pair
            difference = self.got[one] - self.got[other]
            low, high = self.spans.get(pair, (difference, difference))
            low, high = min(low, difference), max(high, difference)
            self.drifts[pair] = max(self.drifts.get(pair, 0.0), high - low)
            if self.waiting[one] and self.waiting[other]:
                self.spans[pair] = low, high
            else:
                self.spans.pop(pair, None)

    def worst(self) -> float:
        """The largest drift as a fraction of the bound."""
        most = {person: seconds / self.weights[person] for person, seconds in self.largest.items()}
        return max((drift / (most[f] + most[g]) for (f, g), drift in self.drifts.items() if drift), default=0.0)


class Player:
    """Plays one history; `ids` gives interaction ids, `first_user` keeps histories of one database apart."""

    def __init__(self, database: Database, clock: Clock, history: History, *, ids: Callable[[], int], first_user: int):
        self._database, self._clock, self._history = database, clock, history
        self._queue = JobQueue(database, limits=LIMITS, now=clock)
        self._ids, self._first_user = ids, first_user
        self._ledger = Ledger(history.weights)
        self._running: tuple[Job, int, float, str] | None = None  # job, person, seconds, end
        self._finishing: tuple[Job, float] | None = None  # drawn and charged, not yet recorded
        self._failed_last = dict.fromkeys(range(len(history.weights)), False)

    async def play(self) -> float:
        """The worst drift as a fraction of the bound."""
        for event in self._history.events:
            await self._do(event)
        worst = self._ledger.worst()
        if self._running is not None:
            await self._end()
        await self._record()
        return worst

    async def _do(self, event: Event) -> None:
        match event.kind:
            case Kind.ASK:
                for _ in range(event.jobs):
                    await self._ask(event.person, STEPS[event.size])
            case Kind.TAKE_BACK:
                if self._ledger.waiting[event.person]:
                    await self._take_back(event.person)
            case Kind.CLAIM:
                if self._running is None:
                    await self._claim(event)
            case Kind.END:
                if self._running is not None:
                    await self._end()
        self._ledger.note()

    async def _ask(self, person: int, steps: int) -> None:
        request = ImageRequest(prompt="a fox", seed=1, width=512, height=512, steps=steps, guidance=3.5)
        new = NewJob(
            interaction_id=self._ids(), user_id=self._first_user + person, guild_id=1, channel_id=2, request=request
        )
        job = await self._queue.submit(new, weight=self._history.weights[person])
        self._ledger.waiting[person].append(job.id)
        self._ledger.note()

    async def _take_back(self, person: int) -> None:
        job_id = self._ledger.waiting[person].pop()
        await self._queue.cancel(job_id, user_id=self._first_user + person)

    async def _claim(self, event: Event) -> None:
        job = await self._queue.claim()
        await self._record()
        if job is None:
            assert not any(self._ledger.waiting.values()), "the GPU idles while somebody waits"
            return
        person = job.user_id - self._first_user
        seconds = job.request.steps * SECONDS_PER_STEP * event.factor * self._history.factors[person]
        if event.end == "cancelled":
            seconds = min(seconds, job.request.steps * SECONDS_PER_STEP * 0.5)
        self._running = job, person, seconds, event.end
        self._ledger.waiting[person].remove(job.id)
        if event.end == "requeued" or (event.end == "failed" and not self._failed_last[person]):
            return  # costs its owner nothing
        self._ledger.got[person] += seconds / self._history.weights[person]
        self._ledger.largest[person] = max(self._ledger.largest[person], seconds)

    async def _end(self) -> None:
        assert self._running is not None
        job, person, seconds, end = self._running
        self._running = None
        self._clock.now += timedelta(seconds=seconds)
        match end:
            case "drawn":
                await self._record()
                await self._queue.charge_used(job, seconds=seconds)
                self._finishing = job, seconds
            case "cancelled":
                await self._queue.record_cancelled(job)
            case "failed":
                await self._queue.record_failed(job, reason="as drawn by lot")
            case _:
                await self._queue.requeue(job)
                self._ledger.waiting[person].insert(0, job.id)
        if end != "requeued":
            self._failed_last[person] = end == "failed"

    async def _record(self) -> None:
        """Record the last picture, as the dispatcher does: behind the next claim, if one comes."""
        if self._finishing is not None:
            job, seconds = self._finishing
            result = ImageResult(png=b"", sha256="", seconds=seconds, model="none")
            await self._queue.record_drawn(job, picture="none", result=result)
            self._finishing = None


class Stage:
    """One queue on which history after history is played, each with people of its own."""

    def __init__(self, database: Database) -> None:
        self._clock = Clock()
        self._database, self._queue = database, JobQueue(database, limits=LIMITS, now=self._clock)
        self._interactions, self._users = count(1), count(1, 100)

    async def play(self, history: History) -> float:
        """Play one and return the worst drift as a fraction of the bound; the queue is empty afterwards."""
        ids = self._interactions.__next__
        worst = await Player(self._database, self._clock, history, ids=ids, first_user=next(self._users)).play()
        await self._database.write(lambda session: session.execute(_EMPTY))
        await self._queue.recover()  # counts anew who waits
        return worst
