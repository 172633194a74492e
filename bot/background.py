"""Tasks of the process's own: kept until they end, their errors logged. And patience with a database that refuses.

Knows no Discord and no job.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import TypeVar

from bot.errors import QueueUnavailable

PAUSE_FIRST, PAUSE_MAX = 1.0, 120.0  # seconds between tries

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class Tasks:
    """What runs beside everything else."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], *, name: str) -> asyncio.Task[None]:
        """Begin `work`; an error in it is logged under `name`."""
        task = asyncio.create_task(_logged(work, name=name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, *, at_most: timedelta) -> None:
        """Give what is under way a little time to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=at_most.total_seconds())

    async def aclose(self) -> None:
        """Stop what is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def patiently(ask: Callable[[], Coroutine[object, object, _T]]) -> _T:
    """Ask the queue until it answers: a full or locked database must not cost a picture."""
    pauses = backoff()
    while True:
        try:
            return await ask()
        except QueueUnavailable:
            await asyncio.sleep(next(pauses))


def backoff() -> Iterator[float]:
    """Pauses in seconds that double up to two minutes, each with up to half of it again by chance."""
    pause = PAUSE_FIRST
    while True:
        yield pause * (1 + random.random() / 2)
        pause = min(pause * 2, PAUSE_MAX)


async def _logged(work: Coroutine[object, object, None], *, name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("%s: stopped by an error", name)
