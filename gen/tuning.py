"""What an operator may choose about a model's speed and memory. Knows no torch, no environment and no settings file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gen.errors import InvalidRequest
from gen.streaming.cards import GIB
from gen.streaming.sizes import Precision

PINNED_SHARE = 0.6  # of the host's memory, for weights that stream; locking more starves the rest of the system


def default_cache(environment: Mapping[str, str]) -> Path | None:
    """The folder `kiln` among the user's caches; None where there is no home."""
    try:
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kiln"
    except RuntimeError:
        return None


def host_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def most_pinned(asked: int | None) -> int:
    """Bytes of the host's memory that may be locked for the card; raise InvalidRequest for more than there is."""
    total = host_memory()
    if asked is not None and asked > total:
        raise InvalidRequest(
            f"{asked / GIB:.2f} GiB of pinned memory is more than this machine has: {total / GIB:.2f} GiB."
        )
    return round(total * PINNED_SHARE) if asked is None else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a model is to run; what is left out is chosen for the device."""

    budget: str = ""  # of the card's memory, "6.8GiB"; empty or "all": what is free, less half a GiB
    precision: Precision | None = None  # of linear layers' weights; None: float8 on a card, float32 on a CPU
    compiled: bool = True  # on a card
    pinned_bytes: int | None = None  # of the host's memory, at most; None: a share of it; 0: everything takes the ring
    cache: Path | None = None  # folder of packed weights and compiled graphs; None: neither is kept

    @property
    def is_plain(self) -> bool:
        """True if nothing asks for the streamed engine where it is not needed."""
        return not self.budget and self.precision is None
