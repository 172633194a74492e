"""The device that a model runs on, and what an operator's choices mean there. Knows no model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from gen.compiling import keep_graphs
from gen.engine import Options
from gen.errors import DeviceMissing, OutOfMemory
from gen.message import msg
from gen.streaming.cards import GIB
from gen.streaming.planner import gib, parse_budget
from gen.streaming.sizes import Precision
from gen.tuning import Tuning

LEFT_FREE = GIB // 2  # by the default budget, for the driver's context and other programs


def options_for(tuning: Tuning, device: torch.device, dtype: torch.dtype) -> Options:
    """The engine's options; on a card its memory is limited to the budget.

    Raise InvalidRequest for a bad budget, OutOfMemory for a card that others have filled.
    """
    on_card = device.type == "cuda"
    if on_card:
        _prepare(device, tuning.cache)
    return Options(
        device=device,
        dtype=dtype,
        precision=Precision.FLOAT8 if on_card and tuning.precision is None else tuning.precision,
        budget_bytes=_limited(device, tuning.budget) if on_card else _budget(tuning.budget),
        compiled=tuning.compiled and on_card,
        cache=tuning.cache,
        pinned_bytes=tuning.pinned_bytes,
    )


def _budget(text: str) -> int | None:
    """The budget in bytes where there is no card; None: everything rests."""
    return parse_budget(text, free_bytes=0) or None if text else None


def _limited(device: torch.device, text: str) -> int:
    """The budget in bytes, from here on the most that torch takes of this card."""
    free, total = torch.cuda.mem_get_info(device)
    budget = parse_budget(text or "all", free_bytes=free - LEFT_FREE)
    if budget <= 0:
        raise OutOfMemory(
            msg("Of this card's {total} only {free} are free, and {spare} of it are left to the driver and others."),
            total=gib(total),
            free=gib(free),
            spare=gib(LEFT_FREE),
        )
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)
    return budget


def _prepare(device: torch.device, cache: Path | None) -> None:
    """Settings that torch reads once: no fragments between sizes, and compiled graphs that outlive the process."""
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if cache is not None:
        keep_graphs(cache / "compiled")
    torch.cuda.set_device(device)


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or the best; raise DeviceMissing if torch cannot use it here."""
    device = torch.device(name or best_device())
    if device.type == "cuda" and device.index is None:  # torch wants it said where memory is limited
        device = torch.device("cuda", 0)
    backend = torch.get_device_module(device.type)
    if device.type != "cpu" and not (backend.is_available() and (device.index or 0) < backend.device_count()):
        raise DeviceMissing(f"There is no device {device} that torch can use here; the best is {best_device()}.")
    return device


def best_device() -> str:
    """The fastest device that torch can use here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
