"""The LoRAs that may be asked for: a list in memory, looked at again in the background, found by what is typed.

Knows files through `gen.lora_index` alone, and no Discord.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from rapidfuzz import fuzz, process

from bot.language import msg
from gen.errors import InvalidRequest
from gen.lora_index import LoraIndex, LoraInfo
from gen.request import LoraUse

LOOK_EVERY = 10.0  # seconds; a file that comes is offered after that
NEAR = 60.0  # of 100, how alike two names are that are offered for each other


class LoraList:
    """One folder's LoRAs."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds."""
        self._index, self._clock = LoraIndex(folder), clock
        self._looking = asyncio.Lock()
        self._looked_at: float | None = None
        self._known: dict[str, LoraInfo] = {}

    async def known(self) -> dict[str, LoraInfo]:
        """All of them by name, as they were ten seconds ago or later."""
        async with self._looking:
            now = self._clock()
            if self._looked_at is None or now - self._looked_at >= LOOK_EVERY:
                self._known = {one.name: one for one in await asyncio.to_thread(self._index.look)}
                self._looked_at = now
        return self._known

    async def found(self, typed: str, *, limit: int, room: int | None = None) -> list[LoraInfo]:
        """The best for what was typed, by name and trigger words; the first by name if nothing was.

        With `room`, none whose name has more characters.
        """
        known = await self.known()
        if room is not None:
            known = {name: one for name, one in known.items() if len(name) <= room}
        words = {name: " ".join([name, *one.triggers]).casefold() for name, one in known.items()}
        typed = typed.strip().casefold()
        if not typed:
            return list(known.values())[:limit]
        exact = [name for name, text in words.items() if all(part in text for part in typed.split())]
        exact.sort(key=lambda name: (not name.casefold().startswith(typed), name))
        if len(exact) < limit:
            alike = process.extract(typed, words, scorer=fuzz.WRatio, limit=limit, score_cutoff=NEAR)
            exact += [name for _, _, name in alike if name not in exact]
        return [known[name] for name in exact[:limit]]

    async def check(self, uses: tuple[LoraUse, ...]) -> None:
        """Raise InvalidRequest for the first that is not there, with the nearest name that is."""
        known = await self.known() if uses else {}
        for use in uses:
            if use.name in known:
                continue
            near = await self.found(use.name, limit=1)
            if not near:
                raise InvalidRequest(msg("There is no LoRA named {name!r}."), name=use.name)
            raise InvalidRequest(
                msg("There is no LoRA named {name!r}; did you mean {near}?"), name=use.name, near=near[0].name
            )
