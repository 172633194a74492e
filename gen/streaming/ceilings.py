"""What this card reaches at most: copies from the host, matrix products, attention, measured in about a second.

Shapes are FLUX.1's at 1024x1024: 4,608 tokens of 3,072, 24 heads. Lives on the thread that owns the card. Knows no
model and no plan.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.attention import attend, pick_flash
from gen.streaming.cards import Card, known_card

_REPEATS = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is multiplied and copied; the small ones are for a CPU."""

    tokens: int = 4608
    dim: int = 3072
    heads: int = 24
    copied: int = 256 * 2**20  # bytes


SMALL = Sizes(tokens=256, dim=256, heads=2, copied=2**22)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Rates of one card."""

    pinned_bytes_s: float
    pageable_bytes_s: float
    bfloat16_flops: float
    float8_flops: float | None  # row-wise scales; None where torch cannot
    attention_flops: float  # bfloat16


def card_of(device: torch.device, *, host_memory_bytes: int, pinned: Tensor | None = None) -> Card:
    """What is known of a device's card; of a CPU, whose memory is the host's.

    With some `pinned` memory, (bytes,) uint8, its link is measured: a table cannot know that a slot has four lanes.
    """
    if device.type != "cuda":
        return known_card("CPU", memory_bytes=host_memory_bytes, capability=(0, 0))
    found = torch.cuda.get_device_properties(device)
    card = known_card(found.name, memory_bytes=found.total_memory, capability=(found.major, found.minor))
    if pinned is None:
        return card
    try:
        card = card.with_link(measure_link(device, pinned))
    except torch.OutOfMemoryError:  # within a budget that is too small for anything, which the planner says best
        return card
    torch.cuda.empty_cache()
    log.info("weights reach the card at %.1f GB/s", card.link_bytes_s / 1e9)
    return card


def measure_ceilings(device: torch.device, sizes: Sizes | None = None) -> Ceilings:
    """Measure all rates; raise torch.OutOfMemoryError where 0.6 GiB are not free."""
    sizes = sizes or (Sizes() if device.type == "cuda" else SMALL)
    tokens, dim = sizes.tokens, sizes.dim
    x = torch.randn(tokens, dim, device=device, dtype=torch.bfloat16)
    weight = torch.randn(7 * dim, dim, device=device, dtype=torch.bfloat16)
    products = 2.0 * tokens * dim * 7 * dim
    heads = torch.randn(3, 1, tokens, sizes.heads, dim // sizes.heads, device=device, dtype=torch.bfloat16)
    attention, flash = 4.0 * tokens**2 * dim, pick_flash(device, size=dim // sizes.heads)
    return Ceilings(
        pinned_bytes_s=_rate(_filled(sizes.copied, pinned=device.type == "cuda"), device),
        pageable_bytes_s=_rate(_filled(sizes.copied, pinned=False), device),
        bfloat16_flops=products / _seconds(lambda: F.linear(x, weight), device),
        float8_flops=_float8(x, weight, products),
        attention_flops=attention / _seconds(lambda: (flash or attend)(*heads), device),
    )


def measure_link(device: torch.device, source: Tensor | None = None) -> float:
    """Bytes a second from pinned memory to a card; raise torch.OutOfMemoryError where there is no room for a copy.

    `source` is pinned, uint8; left out, 256 MiB are taken for the occasion, which torch keeps.
    """
    return _rate(_filled(Sizes().copied, pinned=True) if source is None else source, device)


def _float8(x: Tensor, weight: Tensor, products: float) -> float | None:
    if x.device.type != "cuda" or torch.cuda.get_device_capability(x.device) < (8, 9):
        return None
    a, b = x.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn).t()
    scale_a = torch.ones(len(x), 1, device=x.device)
    scale_b = torch.ones(1, len(weight), device=x.device)

    def multiply() -> Tensor:
        return torch._scaled_mm(a, b, scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16, use_fast_accum=True)

    return products / _seconds(multiply, x.device)


def _filled(size: int, *, pinned: bool) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=pinned).fill_(1)  # touched, so that pages exist


def _rate(source: Tensor, device: torch.device) -> float:
    target = torch.empty_like(source, device=device)
    return source.nbytes / _seconds(lambda: target.copy_(source, non_blocking=True), device)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run, after three to warm up."""
    for _ in range(3):
        run()
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(_REPEATS):
        run()
    _synchronize(device)
    return (time.perf_counter() - started) / _REPEATS


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
