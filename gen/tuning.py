"""What an operator may choose about a model's speed and memory, as text and numbers, and what follows for a device.

Knows no settings file and no environment: the command line and the bot pass values in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from gen.engine import Options
from gen.streaming.cards import GIB
from gen.streaming.planner import parse_budget
from gen.streaming.sizes import Precision

LEFT_FREE = GIB // 2  # by the default budget, for the driver's context and other programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a model is to run; what is left out is chosen for the device."""

    budget: str = ""  # "6.8GiB" of the card's memory; empty: what is free, less half a GiB; "all": no limit
    precision: Precision | None = None  # float8 on a card; float32 on a CPU
    compiled: bool = True  # on a card
    cache: Path | None = None  # folder of packed weights and compiled graphs

    def options(self, device: torch.device, dtype: torch.dtype) -> Options:
        """The engine's options on this device; raise InvalidRequest for a budget that is none."""
        on_card = device.type == "cuda"
        precision = self.precision
        if precision is None and on_card:
            precision = Precision.FLOAT8
        if on_card:
            _prepare_card(device, self.cache)
        return Options(
            device=device,
            dtype=dtype,
            precision=precision,
            budget_bytes=self._budget(device),
            compiled=self.compiled and on_card,
            cache=self.cache,
        )

    def _budget(self, device: torch.device) -> int | None:
        if device.type != "cuda":
            return parse_budget(self.budget, free_bytes=0) if self.budget else None
        free, total = torch.cuda.mem_get_info(device)
        budget = parse_budget(self.budget or "all", free_bytes=free - LEFT_FREE)
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)
        return budget


def _prepare_card(device: torch.device, cache: Path | None) -> None:
    """Settings that torch reads once: no fragments between sizes, and compiled graphs that outlive the process."""
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if cache is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "compiled"))
    torch.cuda.set_device(device)
