"""How fast and how fair the queue is on this machine, next to what Kiln promises: `kiln bench queue`.

Everything is the real thing on a real file. Acknowledgements are measured twice: while a thread sleeps in native code,
which is what a GPU looks like from Python, and while a model draws on the CPU of this process. Knows no Discord.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from bot.bench.gap import measure_gap
from bot.bench.histories import Stage, random_history
from bot.queue.job import Job, Limits, NewJob
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database, open_database
from gen.errors import GenerationCancelled
from gen.executor import Generator
from gen.request import ImageRequest, ImageResult, StepReport

QUEUED, FINISHED, PEOPLE = 10_000, 100_000, 500
RATE = 200  # asks a second
PROMISES = {  # at most
    "claim_p99_ms": 10.0,
    "submit_p99_ms": 15.0,
    "recover_ms": 100.0,
    "ack_p99_ms": 100.0,
    "fairness_worst_over_bound": 1.0,
}
PLENTY = Limits(waiting_per_user=100_000, pictures_per_hour=3600, burst=100_000)
DRAWN = ImageResult(png=b"", sha256="", seconds=8.0, model="none")
_FILL = (
    "INSERT INTO jobs (status, interaction_id, user_id, guild_id, channel_id, prompt, seed, width, height, steps, "
    "guidance, attempts, created_at, started_at, finished_at, seconds, account_id) "
    "VALUES (?, ?, ?, 1, 2, 'a fox in the snow, oil on canvas', 1, 512, 512, ?, 3.5, ?, ?, ?, ?, ?, "
    "(SELECT id FROM accounts WHERE name = ?))"
)

Figures = dict[str, float]
_T = TypeVar("_T")


def measure(folder: Path | None = None, *, load: Callable[[], Generator], histories: int, seconds: float) -> Figures:
    """Measure everything in a new folder within `folder`; acknowledgements for so many seconds, twice.

    `load` brings a model that draws on the CPU of this process.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return asyncio.run(_measure(Path(name), load=load, histories=histories, seconds=seconds))


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


async def _measure(folder: Path, *, load: Callable[[], Generator], histories: int, seconds: float) -> Figures:
    figures = await _verbs(folder / "full.sqlite3")
    names = "ack{}_p50_ms", "ack{}_p99_ms", "ack{}_with_place_p99_ms"
    for path, kind, gpu in (("asked", "", _sleep), ("drawing", "_drawing", partial(_draw, load))):
        asked = await _acknowledge(folder / f"{path}.sqlite3", seconds=seconds, gpu=gpu)
        figures |= dict(zip((name.format(kind) for name in names), asked, strict=True))
    figures |= await measure_gap(folder / "full.sqlite3")
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


async def _acknowledge(path: Path, *, seconds: float, gpu: Callable[[threading.Event], None]) -> tuple[float, ...]:
    """Ask at an even rate whatever the answers do, while `gpu` is busy on a thread until the event is set.

    Milliseconds from when an ask was due until its job was stored: p50, p99; and p99 with its place in the queue.
    """
    stop, total = threading.Event(), int(seconds * RATE)
    thread = threading.Thread(target=gpu, args=(stop,), name="gpu")
    async with open_database(path) as database:
        queue = _queue(database)

        async def ask(number: int, due: float, *, with_place: bool) -> float:
            job = await queue.submit(_new(number, number % PEOPLE))
            if with_place:
                await queue.place_of_new(job.id)  # as the command does
            return (time.perf_counter() - due) * 1000

        thread.start()
        try:
            stored = await _evenly(lambda n, due: ask(n, due, with_place=False), total=total, rate=RATE)
            placed = await _evenly(lambda n, due: ask(10**6 + n, due, with_place=True), total=total, rate=RATE)
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)
    return _quantile(stored, 0.5), _quantile(stored, 0.99), _quantile(placed, 0.99)


def _sleep(stop: threading.Event) -> None:
    """Wait in native code, as the thread of a real GPU does."""
    stop.wait()


def _draw(load: Callable[[], Generator], stop: threading.Event) -> None:
    """Draw with a real model on the CPU of this process; blocking."""
    generator = load()
    request = generator.profile.request("a red house", seed=1)

    def step(report: StepReport) -> None:
        if stop.is_set():
            raise GenerationCancelled("measured")

    with contextlib.suppress(GenerationCancelled):
        while not stop.is_set():
            generator.paint(request, on_step=step)
    generator.close()


async def _evenly(ask: Callable[[int, float], Awaitable[float]], *, total: int, rate: int) -> list[float]:
    """Start `total` asks, so many a second; each gets its number and when it was due."""
    began = time.perf_counter()
    under_way = []
    for number in range(total):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.append(asyncio.ensure_future(ask(number, due)))
    return await asyncio.gather(*under_way)


def _queue(database: Database) -> JobQueue:
    return JobQueue(database, limits=PLENTY, now=lambda: datetime.now(UTC))


def _new(interaction_id: int, user_id: int) -> NewJob:
    request = ImageRequest(prompt="a fox", seed=1, width=512, height=512, steps=20, guidance=3.5)
    return NewJob(interaction_id=interaction_id, user_id=user_id, guild_id=1, channel_id=2, request=request)


def _fill(path: Path) -> None:
    """Finished and queued jobs of many people, straight into the file; blocking."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
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
