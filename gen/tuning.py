"""What an operator may choose about a model's speed and memory. Knows no torch, no environment and no settings file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gen.streaming.sizes import Precision

PINNED_SHARE = 0.6  # of the host's memory, for weights that stream; locking more starves the rest of the system


def default_cache(environment: Mapping[str, str]) -> Path | None:
    """The folder `kiln` among the user's caches; None where there is no home."""
    try:
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kiln"
    except RuntimeError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a model is to run; what is left out is chosen for the device."""

    budget: str = ""  # of the card's memory, "6.8GiB"; empty or "all": what is free, less half a GiB
    precision: Precision | None = None  # of linear layers' weights; None: float8 on a card, float32 on a CPU
    compiled: bool = True  # on a card
    cache: Path | None = None  # folder of packed weights and compiled graphs; None: neither is kept

    @property
    def is_plain(self) -> bool:
        """True if nothing asks for the streamed engine where it is not needed."""
        return not self.budget and self.precision is None
