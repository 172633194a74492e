"""An executor that can be held: nothing new begins, what runs can be stopped after its step, the model can be let go.

What is stopped goes back to its old place in the queue, uncounted, because to the dispatcher it looks like a drain. A
model that was let go comes back with the next job; if it cannot, the job goes back and `needs_room` says so. Knows no
reasons, no queue and no Discord.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gen.attempt import Attempt, Event
from gen.errors import GenerationCancelled
from gen.executor import GpuExecutor
from gen.message import msg

log = logging.getLogger(__name__)


class CourteousExecutor:
    """Stands between the dispatcher and the GPU thread; an `Executor` whose slots may be 0."""

    def __init__(self, executor: GpuExecutor) -> None:
        self.is_held = False
        self.needs_room = False  # the model could not be loaded; nothing begins until this is taken back
        self.begun = 0  # attempts so far
        self._executor = executor
        self._tokens: set[str] = set()
        self._moving = asyncio.Lock()  # the model comes or goes

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._executor.is_loaded

    @property
    def is_drawing(self) -> bool:
        """Whether an attempt is under way."""
        return bool(self._tokens)

    def slots(self) -> int:
        """None while nothing may begin."""
        return 0 if self.is_held or self.needs_room else self._executor.slots()

    async def run(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
        """Draw as the executor does; GenerationCancelled also while nothing may begin."""
        await self._prepare(attempt.token)
        try:
            async with aclosing(self._executor.run(attempt)) as events:
                async for event in events:
                    yield event
        finally:
            self._tokens.discard(attempt.token)

    async def _prepare(self, token: str) -> None:
        async with self._moving:
            if self.slots():  # else it was claimed while the hold came
                try:
                    await self._executor.load()
                except Exception:
                    log.exception("the model cannot be loaded again; its job goes back to the queue")
                    self.needs_room = True
            if not self.slots():
                raise GenerationCancelled(msg("The drawing was stopped."))
            self._tokens.add(token)
            self.begun += 1

    def stop(self) -> None:
        """Stop what is being drawn within one step."""
        for token in self._tokens:
            self._executor.cancel(token)

    async def let_go(self) -> bool:
        """Free the card's memory unless something is drawn; True: it was freed now."""
        async with self._moving:
            if self._tokens or not self._executor.is_loaded:
                return False
            await self._executor.unload()
            return True

    def cancel(self, token: str) -> None:
        """Stop this attempt within one step."""
        self._executor.cancel(token)

    async def adopt(self) -> frozenset[str]:
        """What goes on from an earlier process."""
        return await self._executor.adopt()

    async def aclose(self) -> None:
        """Close the executor."""
        await self._executor.aclose()
