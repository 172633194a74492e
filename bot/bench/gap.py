"""How long the GPU idles between two pictures while others wait: dispatcher, GPU thread, files and database for real.

Only the generator is none: it sleeps in native code, as a GPU looks from Python, and leaves a picture of noise behind,
which is compressed as a real one is. Knows no Discord.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

from PIL import Image

from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Job, Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import open_database
from gen.executor import GpuExecutor, Unfinished
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport

DRAWING_SECONDS = 0.6  # as a fast card takes for a small picture: long enough for the last one to be compressed
SIDE = 1024  # pixels
PROFILE = ModelProfile(
    name="sleep", width=512, height=512, steps=20, guidance=3.5, side_min=128, side_max=1024, pixels_max=1024 * 1024
)


class Sleeper:
    """A generator that draws noise, and notes when it began and ended."""

    profile = PROFILE

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.compressing: list[float] = []  # seconds
        noise = Image.frombytes("L", (SIDE, SIDE), os.urandom(SIDE * SIDE)).point(lambda value: value // 16)
        self._picture = Image.merge("RGB", (noise, noise, noise))

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Sleep."""
        began = time.perf_counter()
        time.sleep(DRAWING_SECONDS)
        on_step(StepReport(step=1, steps=1, seconds=DRAWING_SECONDS))
        ended = time.perf_counter()
        self.spans.append((began, ended))
        return Unfinished(seconds=ended - began, finish=partial(self._finish, ended - began))

    def close(self) -> None:
        """Nothing to free."""

    def _finish(self, seconds: float) -> ImageResult:
        began = time.perf_counter()
        file = io.BytesIO()
        self._picture.save(file, format="PNG", compress_level=6)
        self.compressing.append(time.perf_counter() - began)
        return ImageResult(png=file.getvalue(), sha256="", seconds=seconds, model="sleep")


class _Counter:
    """Outcomes that nobody hears of; notes when so many are drawn."""

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


async def measure_gap(path: Path, *, jobs: int = 20) -> dict[str, float]:
    """Draw so many of the jobs that wait in the database at `path`.

    `gap_ms` is the median from one picture's pixels to the next drawing's begin; `finish_ms` what a picture takes
    meanwhile to be compressed, of which nothing is in the gap.
    """
    sleeper, counter = Sleeper(), _Counter(jobs)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(path))
        queue = JobQueue(database, limits=Limits(), now=lambda: datetime.now(UTC))
        await queue.recover()
        executor = await stack.enter_async_context(GpuExecutor(lambda: sleeper))
        dispatcher = Dispatcher(
            queue=queue,
            executor=executor,
            outcomes=counter,
            pictures=path.parent,
        )
        await stack.enter_async_context(dispatcher)
        dispatcher.wake()
        await counter.done.wait()
    gaps = [after[0] - before[1] for before, after in zip(sleeper.spans, sleeper.spans[1:], strict=False)]
    return {
        "gap_ms": round(median(gaps) * 1000, 2),
        "gap_worst_ms": round(max(gaps) * 1000, 2),
        "finish_ms": round(median(sleeper.compressing) * 1000, 2),
    }
