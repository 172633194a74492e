"""How fast and how fair the queue is on this machine, next to what Kiln promises: `kiln bench queue`.

Everything is the real thing on a real file: verbs, dispatcher, GPU thread. Only the generator is a sleep in native
code, which is what a GPU looks like from Python. Knows no Discord.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from bot.bench.histories import Stage, random_history
from bot.database import Database, open_database
from bot.dispatcher import Dispatcher
from bot.job import Job, Limits, NewJob
from bot.job_queue import JobQueue
from gen.executor import GpuExecutor
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport

QUEUED, FINISHED, PEOPLE = 10_000, 100_000, 500
PROMISES = {  # at most
    "claim_p99_ms": 10.0,
    "submit_p99_ms": 15.0,
    "recover_ms": 100.0,
    "ack_p99_ms": 100.0,
    "fairness_worst_over_bound": 1.0,
}
PLENTY = Limits(waiting_per_user=100_000, pictures_per_hour=3600, burst=100_000)
DRAWN = ImageResult(png=b"", sha256="", seconds=8.0, model="none")
PROFILE = ModelProfile(
    name="sleep", width=512, height=512, steps=20, guidance=3.5, side_min=128, side_max=1024, pixels_max=1024 * 1024
)
_FILL = (
    "INSERT INTO jobs (status, interaction_id, user_id, guild_id, channel_id, prompt, seed, width, height, steps, "
    "guidance, attempts, created_at, started_at, finished_at, seconds, account_id) "
    "VALUES (?, ?, ?, 1, 2, 'a fox in the snow, oil on canvas', 1, 512, 512, ?, 3.5, ?, ?, ?, ?, ?, "
    "(SELECT id FROM accounts WHERE name = ?))"
)

Figures = dict[str, float]
_T = TypeVar("_T")


def measure(folder: Path | None = None, *, histories: int, seconds: float) -> Figures:
    """Measure everything in a new folder within `folder`; acknowledgements for so many seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return asyncio.run(_measure(Path(name), histories=histories, seconds=seconds))


def lines(figures: Figures, *, as_json: bool) -> Iterator[str]:
    """The figures as one JSON object, or as a table beside what is promised."""
    if as_json:
        yield json.dumps(figures, indent=2)
        return
    yield f"{'':28}{'measured':>12}{'at most':>12}"
    for name, value in figures.items():
        promise = PROMISES.get(name)
        kept = "" if promise is None else f"{promise:12g}  {'kept' if value <= promise else 'BROKEN'}"
        yield f"{name:28}{value:12g}{kept}"


async def _measure(folder: Path, *, histories: int, seconds: float) -> Figures:
    figures = await _verbs(folder / "full.sqlite3")
    figures |= await _acknowledge(folder / "asked.sqlite3", seconds=seconds)
    figures["gap_ms"] = await _gap(folder)
    async with open_database(folder / "fair.sqlite3") as database:
        stage = Stage(database)
        worst = [await stage.play(random_history(seed)) for seed in range(histories)]
    figures["fairness_histories"] = histories
    figures["fairness_worst_over_bound"] = round(max(worst, default=0.0), 6)  # the books are kept in microseconds
    return figures


async def _verbs(path: Path, *, rounds: int = 300) -> Figures:
    """Claim, submit and recover among many jobs."""
    async with open_database(path):
        pass
    await asyncio.to_thread(_fill, path)
    async with open_database(path) as database:
        queue, asked = _queue(database), count(10**9)
        claims, submits = [], []
        for number in range(rounds):
            submits.append(await _timed(partial(queue.submit, _new(next(asked), number % PEOPLE))))
            took, job = await _timed(queue.claim)
            claims.append((took, job))
            assert isinstance(job, Job)
            await queue.record_drawn(job, picture="none", result=DRAWN)
        place = [await _timed(partial(queue.place, number)) for number in range(FINISHED, FINISHED + 20)]
        await queue.claim()
    async with open_database(path) as database:
        recover, _ = await _timed(_queue(database).recover)
    return {
        "claim_p50_ms": _quantile([took for took, _ in claims], 0.5),
        "claim_p99_ms": _quantile([took for took, _ in claims], 0.99),
        "submit_p50_ms": _quantile([took for took, _ in submits], 0.5),
        "submit_p99_ms": _quantile([took for took, _ in submits], 0.99),
        "place_p50_ms": _quantile([took for took, _ in place], 0.5),
        "recover_ms": round(recover, 2),
    }


async def _acknowledge(path: Path, *, seconds: float, rate: int = 200) -> Figures:
    """Ask at an even rate whatever the answers do, while a thread sleeps in native code as the GPU's does."""
    stop = threading.Event()
    gpu = threading.Thread(target=stop.wait, name="gpu")
    async with open_database(path) as database:
        queue = _queue(database)

        async def ask(number: int, due: float, *, with_place: bool) -> float:
            job = await queue.submit(_new(number, number % PEOPLE))
            if with_place:
                await queue.place(job.id)
            return (time.perf_counter() - due) * 1000

        gpu.start()
        try:
            stored = await _evenly(lambda n, due: ask(n, due, with_place=False), total=int(seconds * rate), rate=rate)
            placed = await _evenly(
                lambda n, due: ask(10**6 + n, due, with_place=True), total=int(seconds * rate), rate=rate
            )
        finally:
            stop.set()
            gpu.join()
    return {
        "ack_p50_ms": _quantile(stored, 0.5),
        "ack_p99_ms": _quantile(stored, 0.99),
        "ack_with_place_p99_ms": _quantile(placed, 0.99),
    }


async def _evenly(ask: Callable[[int, float], Awaitable[float]], *, total: int, rate: int) -> list[float]:
    """Start `total` asks, so many a second; each gets its number and when it was due."""
    began = time.perf_counter()
    under_way = []
    for number in range(total):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.append(asyncio.ensure_future(ask(number, due)))
    return await asyncio.gather(*under_way)


class _Sleeper:
    """A generator that draws nothing, and notes when it began and ended."""

    profile = PROFILE

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        """Sleep."""
        began = time.perf_counter()
        time.sleep(0.02)
        on_step(StepReport(step=1, steps=1, seconds=0.02))
        ended = time.perf_counter()
        self.spans.append((began, ended))
        return ImageResult(png=bytes(500_000), sha256="", seconds=ended - began, model="sleep")

    def close(self) -> None:
        """Nothing to free."""


class _Nobody:
    """Outcomes that nobody hears of; notes when all are drawn."""

    def __init__(self, jobs: int) -> None:
        self.left, self.done = jobs, asyncio.Event()

    def drawn(self, job: Job) -> None:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            self.done.set()

    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, report: StepReport) -> None: ...
    def failed(self, job: Job) -> None: ...
    def cancelled(self, job: Job) -> None: ...
    def requeued(self, job: Job) -> None: ...


async def _gap(folder: Path, *, jobs: int = 40) -> float:
    """Median time that the GPU thread idles between two jobs: picture to disk, row, next claim."""
    sleeper, nobody = _Sleeper(), _Nobody(jobs)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(folder / "gap.sqlite3"))
        queue = _queue(database)
        for number in range(jobs):
            await queue.submit(_new(number, number % 5))
        executor = await stack.enter_async_context(GpuExecutor(lambda: sleeper))
        dispatcher = Dispatcher(queue=queue, executor=executor, outcomes=nobody, pictures=folder)
        await stack.enter_async_context(dispatcher)
        dispatcher.wake()
        await nobody.done.wait()
    pairs = zip(sleeper.spans, sleeper.spans[1:], strict=False)
    return _quantile([(after[0] - before[1]) * 1000 for before, after in pairs], 0.5)


def _queue(database: Database) -> JobQueue:
    return JobQueue(database, limits=PLENTY, now=lambda: datetime.now(UTC))


def _new(interaction_id: int, user_id: int) -> NewJob:
    request = ImageRequest(prompt="a fox", seed=1, width=512, height=512, steps=20, guidance=3.5)
    return NewJob(interaction_id=interaction_id, user_id=user_id, guild_id=1, channel_id=2, request=request)


def _fill(path: Path) -> None:
    """Finished and queued jobs of many people, straight into the file; blocking."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany(
            "INSERT INTO users (id, theoretical_arrival) VALUES (?, '2026-01-01 00:00:00.000000')",
            [(user,) for user in range(PEOPLE)],
        )
        raw.executemany(
            "INSERT INTO accounts (name, parent_id, waiting) VALUES (?, 1, ?)",
            [(f"user:{user}", QUEUED // PEOPLE) for user in range(PEOPLE)],
        )
        raw.executemany(_FILL, (_row(number, began) for number in range(FINISHED + QUEUED)))


def _row(number: int, began: datetime) -> tuple[object, ...]:
    at = f"{began + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.%f}"
    user, steps = number % PEOPLE, (8, 20, 30)[number % 3]
    if number < FINISHED:
        return "delivered", -1 - number, user, steps, 1, at, at, at, 0.4 * steps, f"user:{user}"
    return "queued", -1 - number, user, steps, 0, at, None, None, None, f"user:{user}"


async def _timed(verb: Callable[[], Awaitable[_T]]) -> tuple[float, _T]:
    """Milliseconds, and what it returned."""
    began = time.perf_counter()
    result = await verb()
    return (time.perf_counter() - began) * 1000, result


def _quantile(milliseconds: list[float], share: float) -> float:
    ranked = sorted(milliseconds)
    return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 2)
