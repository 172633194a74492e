"""Looks at the card and at the operator's wishes, and holds the queue when it must: the hands of `bot.host.courtesy`.

A pause is a file in the data folder, however it was asked for: so it is kept over a restart, and `kiln pause`, a
signal, `/mod` and `touch` all mean the same. Whatever fails here is logged, and never holds the queue. Knows no
Discord: what changed goes to `tell`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.errors import QueueUnavailable
from bot.host.card_reader import Reading
from bot.host.courteous import CourteousExecutor
from bot.host.courtesy import FREES, URGENT, Judge, Manners, Why, believable, unheeded
from bot.language import Message
from bot.queue.job_reader import JobReader

LOOK_SECONDS = 2.0  # between two looks
READ_SECONDS = 5.0  # for the driver to answer; one that hangs is not waited for
PAUSE_FILE = "paused"

log = logging.getLogger(__name__)


class Pause:
    """The operator's wish, as a file."""

    def __init__(self, data: Path) -> None:
        self._file = data / PAUSE_FILE

    def is_asked(self) -> bool:
        """Whether the file is there."""
        return self._file.exists()

    def begin(self) -> None:
        """Ask for a pause; OSError if the folder takes no file."""
        self._file.touch()

    def end(self) -> None:
        """Ask for it no more."""
        self._file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """What is perceived of the machine."""

    read: Callable[[], Reading | None]  # asks the card, blocking; on a thread of its own
    is_asked: Callable[[], bool]  # whether a pause is asked for
    clock: Callable[[], float] = time.monotonic  # seconds
    local: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone()  # with the machine's zone


class Caretaker:
    """One for the process. `why` says what holds the queue now."""

    def __init__(
        self,
        *,
        manners: Manners,
        senses: Senses,
        executor: CourteousExecutor,
        queue: JobReader,
        tell: Callable[[Message | None], None],
    ) -> None:
        """`tell` is called with what people are told when nothing is drawn, and with None when drawing goes on."""
        self.why: Why | None = None
        self.reading: Reading | None = None
        self.is_resting = False  # the model was let go, and comes back with the next job
        self._manners, self._senses, self._executor = manners, senses, executor
        self._queue, self._tell = queue, tell
        self._judge = Judge(manners)
        self._warned: set[str] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nvml")
        self._reading: asyncio.Future[Reading | None] | None = None
        self._busy_at, self._begun = senses.clock(), executor.begun

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("a look at the card failed; the queue goes on")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once, and act."""
        self.reading = believable(await self._ask_card())
        self._warn()
        now = self._senses.clock()
        if self._executor.needs_room:
            self._executor.needs_room = False
            self._judge.no_room(now=now)
        why = self._judge.look(self.reading, asked=self._senses.is_asked(), local=self._senses.local(), now=now)
        if why is not self.why:
            self._change(why)
        if await self._is_idle(now) or why in FREES:
            await self._let_go()
        self.is_resting = self.is_resting and not self._executor.is_loaded

    def _warn(self) -> None:
        """Say once what cannot be heeded."""
        for line in unheeded(self._manners, self.reading):
            if line not in self._warned:
                self._warned.add(line)
                log.warning("%s", line)

    def _change(self, why: Why | None) -> None:
        self.why = why
        self._executor.is_held = why is not None
        if why in URGENT:
            self._executor.stop()
        words = None if why is None else self._judge.words(why)
        log.info("drawing goes on" if words is None else str(words))
        self._queue.held = words
        self._tell(words)

    async def _is_idle(self, now: float) -> bool:
        """Whether there was no job for so long that the card's memory goes back."""
        if self._manners.unload_after is None:
            return False
        try:
            overview = await self._queue.overview()
        except QueueUnavailable:
            return False
        if overview.waiting or self._executor.is_drawing or self._executor.begun != self._begun:
            self._busy_at, self._begun = now, self._executor.begun
        return now - self._busy_at >= self._manners.unload_after.total_seconds()

    async def _let_go(self) -> None:
        if await self._executor.let_go():
            self.is_resting = True
            self._queue.cooled()
            log.info("the model is out of memory until it is needed")

    async def _ask_card(self) -> Reading | None:
        """What the card says; None: nothing, or not in time. A driver that hangs is asked no more until it answers."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().run_in_executor(self._thread, self._senses.read)
        await asyncio.wait({self._reading}, timeout=READ_SECONDS)
        if not self._reading.done():
            return None
        answered, self._reading = self._reading, None
        try:
            return answered.result()
        except Exception:
            log.debug("the card cannot be read", exc_info=True)
            return None
