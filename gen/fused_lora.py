"""Triton kernels for a LoRA's branch beside a float8 product: down from the float8 rows, up onto what the product made.

With torch's own operators the rows would have to be made wide once more, and the product gone over three times. Needs a
CUDA card and Triton: import it only there. Knows no weights and no blocks.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

STRETCH = 3072  # of the width: a program for each, so that a wide one still fills the card


@triton.jit  # type: ignore[untyped-decorator]
def _down(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    rows,
    scales,
    down,
    out,
    count,
    width: tl.constexpr,
    rank: tl.constexpr,
    part: tl.constexpr,
    stretch: tl.constexpr,
    tile: tl.constexpr,
    block: tl.constexpr,
):
    """One program a tile of tokens, of the rank, and a stretch of the width: rows · down, times each token's scale."""
    begin = tl.program_id(2) * stretch
    at = (tl.program_id(0) * tile + tl.arange(0, tile)).to(tl.int64)
    columns = tl.program_id(1) * part + tl.arange(0, part)
    total = tl.zeros([tile, part], tl.float32)
    for start in range(0, stretch, block):
        inner = begin + start + tl.arange(0, block)
        inside = inner < width
        x = tl.load(rows + at[:, None] * width + inner[None], mask=(at < count)[:, None] & inside[None], other=0.0)
        by = tl.load(down + columns[None] * width + inner[:, None], mask=inside[:, None], other=0.0)
        total = tl.dot(x.to(by.dtype), by, total)
    total *= tl.load(scales + at, mask=at < count, other=0.0)[:, None]
    place = out + (tl.program_id(2) * count + at)[:, None] * rank + columns[None]
    tl.store(place, total.to(out.dtype.element_ty), mask=(at < count)[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _up(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    low, up, y, count, width, rank: tl.constexpr, part: tl.constexpr, tile: tl.constexpr, across: tl.constexpr
):
    """One program a tile of y, to which low · up is added where it stands."""
    at = (tl.program_id(0) * tile + tl.arange(0, tile)).to(tl.int64)
    columns = tl.program_id(1) * across + tl.arange(0, across)
    total = tl.zeros([tile, across], tl.float32)
    for start in tl.static_range(0, rank, part):
        inner = start + tl.arange(0, part)
        a = tl.load(low + at[:, None] * rank + inner[None], mask=(at < count)[:, None], other=0.0)
        b = tl.load(up + columns[None] * rank + inner[:, None], mask=(columns < width)[None], other=0.0)
        total = tl.dot(a, b, total)
    inside = (at < count)[:, None] & (columns < width)[None]
    place = y + at[:, None] * width + columns[None]
    tl.store(place, (tl.load(place, mask=inside, other=0.0).to(tl.float32) + total).to(y.dtype.element_ty), mask=inside)


def add_branch(y: Tensor, rows: Tensor, scales: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """y (N, out) bfloat16, plus rows (N, in) float8 times scales (N, 1) · down (R, in) · up (out, R), written over y.

    R is a power of two of 16 or more; down and up are bfloat16, everything is contiguous.
    """
    (count, width), rank = rows.shape, down.shape[0]
    part = min(rank, 64)  # of the rank, at a time
    stretches = triton.cdiv(width, STRETCH)
    low = torch.empty(stretches, count, rank, dtype=y.dtype if stretches == 1 else torch.float32, device=y.device)
    _down[(triton.cdiv(count, 64), rank // part, stretches)](
        rows,
        scales,
        down,
        low,
        count,
        width=width,
        rank=rank,
        part=part,
        stretch=STRETCH,
        tile=64,
        block=128,
        num_warps=4,
    )
    low = low[0] if stretches == 1 else low.sum(0).to(y.dtype)
    _up[(triton.cdiv(count, 64), triton.cdiv(y.shape[1], 128))](
        low, up, y, count, y.shape[1], rank=rank, part=part, tile=64, across=128, num_warps=4
    )
    return y
