"""Many thousand jobs through one process: what must not grow with their number is sampled all the way.

Queue, dispatcher, GPU thread and delivery are the real ones; the generator is the fake, and Discord is silent: each
post and edit succeeds at once. (The real transport is what the kills go through.)
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, cast

import discord
from sqlalchemy import text

from bot.cards.captions import Origin
from bot.delivery.delivery import Delivery
from bot.delivery.posting import Notes, Posted, Poster, Target
from bot.errors import Refusal
from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Job, JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database, open_database
from gen.executor import GpuExecutor
from gen.request import ImageResult
from tests.fakes import FakeGenerator, image_request, new_job

WAITING, PEOPLE, SAMPLES = 20, 40, 50
PLENTY = Limits(waiting_per_user=1000, pictures_per_hour=3600, burst=1_000_000)
GROWTH_MAX = 0.05  # of RSS, from the end of the first fifth to the end
PAGE = os.sysconf("SC_PAGE_SIZE")


class SilentDiscord:
    """A client whose edits succeed."""

    def get_guild(self, _: int) -> None:
        """Not known."""

    def get_partial_messageable(self, *_: object, **__: object) -> SilentDiscord:
        return self

    def get_partial_message(self, _: int) -> SilentDiscord:
        return self

    async def edit(self, **_: object) -> None:
        """Done."""

    async def send(self, *_: object, **__: object) -> None:
        """Done."""


class SilentPoster(Poster):
    """Posts nothing, and counts what it was asked to post."""

    def __init__(self, jobs: int) -> None:
        self.posts = bytearray(jobs + 1)  # by job; made at once, because the soak looks for what grows
        self._ids = count(10**6)

    async def post(self, job: Job, *, png: bytes, target: Target, notes: Notes, origin: Origin | None = None) -> Posted:
        await notes.begun()
        self.posts[job.id] += 1
        return Posted(message_id=next(self._ids), channel_id=job.channel_id)


class Frugal(FakeGenerator):
    """Remembers nothing of what it drew: the soak looks for what grows."""

    def draw(self, request: Any, *, on_step: Callable[..., None]) -> ImageResult:
        self.drawn.clear()
        self.begun.clear()
        self.threads.clear()
        return super().draw(request, on_step=on_step)


async def soak(folder: Path, *, jobs: int, seed: int) -> dict[str, Any]:
    """Bring so many jobs to their end in `folder`, and return the figures."""
    began, poster, chance = time.perf_counter(), SilentPoster(jobs), random.Random(seed)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(folder / "kiln.sqlite3"))
        queue = JobQueue(database, limits=PLENTY, now=lambda: datetime.now(UTC))
        executor = await stack.enter_async_context(GpuExecutor(Frugal))
        delivery = Delivery(queue=queue, data=folder, edit_every=timedelta(seconds=5), make_poster=lambda _: poster)
        await stack.enter_async_context(aclosing(delivery))
        dispatcher = Dispatcher(
            queue=queue,
            executor=executor,
            outcomes=delivery,
            pictures=folder,
        )
        await stack.enter_async_context(dispatcher)
        delivery.connect(cast(discord.Client, SilentDiscord()))
        feeder = Feeder(database=database, queue=queue, dispatcher=dispatcher, delivery=delivery, chance=chance)
        samples = await feeder.feed(jobs, wal=folder / "kiln.sqlite3-wal")
        states = await feeder.states()
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - began),
        "acknowledged": jobs,
        "acknowledged_terminal": sum(states.get(state.value, 0) for state in JobStatus if state.value not in OPEN),
        "jobs_by_state": states,
        "posts_per_job_max": max(poster.posts),
        **_growth(samples),
        "samples": samples,
    }


OPEN = ("queued", "running", "drawn")


class Feeder:
    """Keeps so many jobs waiting until all are asked for; some are taken back, some break."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        dispatcher: Dispatcher,
        delivery: Delivery,
        chance: random.Random,
    ) -> None:
        self._database, self._queue, self._dispatcher, self._delivery = database, queue, dispatcher, delivery
        self._chance = chance

    async def feed(self, jobs: int, *, wal: Path) -> list[dict[str, float]]:
        """Ask for all, wait for all; a sample every so many jobs."""
        samples, every = [], max(1, jobs // SAMPLES)
        for number in range(jobs):
            if number % every == 0:
                samples.append(_sample(number, wal))
            await self._ask(number)
            if number % WAITING == 0:
                await self._until(lambda open_jobs: open_jobs <= WAITING)
        await self._until(lambda open_jobs: open_jobs == 0)
        samples.append(_sample(jobs, wal))
        return samples

    async def states(self) -> dict[str, int]:
        counting = text("SELECT status, count(*) FROM jobs GROUP BY status ORDER BY status")
        rows = await self._database.read(lambda session: session.execute(counting).all())
        return {str(status): int(jobs) for status, jobs in rows}

    async def _ask(self, number: int) -> None:
        word = " broken" if self._chance.random() < 0.01 else ""
        request = image_request(f"a red house{word}", seed=number, steps=2)
        user = self._chance.randrange(PEOPLE)
        job = await self._queue.submit(new_job(number + 1, user_id=user, request=request))
        await self._queue.record_card(job.id, message_id=number + 1)
        self._delivery.card_shown(job.id, message_id=number + 1)
        self._dispatcher.wake()
        if self._chance.random() < 0.02:
            with suppress(Refusal):  # over already
                cancelled = await self._queue.cancel(job.id, user_id=user)
                if cancelled.status is JobStatus.RUNNING:
                    self._dispatcher.cancel(job.id)
                else:
                    self._delivery.cancelled(cancelled)

    async def _until(self, enough: Callable[[int], bool]) -> None:
        counting = text("SELECT count(*) FROM jobs WHERE status = 'queued' OR status = 'running' OR status = 'drawn'")
        while not enough(await self._database.read(lambda session: session.scalars(counting).one())):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _sample(jobs: int, wal: Path) -> dict[str, float]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return {
        "jobs": jobs,
        "rss_mib": round(resident / 2**20, 1),
        "file_descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "wal_mib": round(wal.stat().st_size / 2**20, 2) if wal.exists() else 0.0,
    }


def _growth(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Whether it is flat, once it is warm: from the first fifth on."""
    warm = samples[len(samples) // 5 :]
    growth = warm[-1]["rss_mib"] / warm[0]["rss_mib"] - 1
    spread = {name: max(s[name] for s in warm) - min(s[name] for s in warm) for name in ("file_descriptors", "threads")}
    return {
        "rss_growth": round(growth, 4),
        "file_descriptors_spread": spread["file_descriptors"],
        "threads_spread": spread["threads"],
        "wal_mib_max": max(sample["wal_mib"] for sample in samples),
        "flat": growth <= GROWTH_MAX and spread["file_descriptors"] <= 4 and spread["threads"] <= 2,
    }
