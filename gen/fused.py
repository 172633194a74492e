"""Triton kernels that go over memory once where torch.compile or torch itself makes several passes or slow ones.

Turning queries and keys, widening float8, group norms; `gen.fused_rows` has those that write float8. Needs a CUDA card
and Triton: import it only there. Knows no weights and no blocks.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _rotated(x, rotation, block: tl.constexpr, size: tl.constexpr):  # type: ignore[no-untyped-def]
    """Turn pairs of x (block, size) by one token's 2x2 matrices, each cos, -sin, sin, cos."""
    even, odd = tl.split(tl.reshape(x, (block, size // 2, 2)))
    place = rotation + tl.arange(0, size // 2)[None] * 4
    cosine, sine = tl.load(place), tl.load(place + 2)
    turned = tl.join(even * cosine - odd * sine, even * sine + odd * cosine)
    return tl.reshape(turned, (block, size))


@triton.jit  # type: ignore[untyped-decorator]
def _turn(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    text,
    image,
    q_text,
    k_text,
    q_image,
    k_image,
    rotation,
    out,
    text_row,
    image_row,
    length,
    tokens,
    heads: tl.constexpr,
    block: tl.constexpr,
    size: tl.constexpr,
):
    """One program a token and part (0 q, 1 k, 2 v): RMS norm of each head, turned in pairs; v is copied."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    batch, place = row // tokens, row % tokens
    if place < length:
        start = text + (batch * length + place) * text_row
        norm = q_text if part == 0 else k_text
    else:
        start = image + (batch * (tokens - length) + place - length) * image_row
        norm = q_image if part == 0 else k_image
    head, column = tl.arange(0, block)[:, None], tl.arange(0, size)[None]
    inside = head < heads
    at = head * size + column
    x = tl.load(start + part * heads * size + at, mask=inside, other=0.0)
    to = out + part.to(tl.int64) * tl.num_programs(0) * heads * size + row * heads * size
    if part < 2:
        wide = x.to(tl.float32)
        wide *= tl.rsqrt(tl.sum(wide * wide, axis=1) / size + 1e-6)[:, None]
        wide *= tl.load(norm + column).to(tl.float32)
        x = _rotated(wide, rotation + place * size * 2, block, size).to(x.dtype)
    tl.store(to + at, x, mask=inside)


def turned_heads(
    text: Tensor | None, image: Tensor, norms: tuple[Tensor, Tensor, Tensor, Tensor], rotation: Tensor, *, heads: int
) -> Tensor:
    """Queries, keys and values of text (B, T, 3 D) before image (B, N, 3 D) → (2 or 3, B, T + N, heads, D / heads).

    `norms` (D / heads,) are of q and k of the text, then of the image; rotation (1, 1, T + N, D / heads / 2, 2, 2)
    float32. Without text there is nothing to join, and values are left where they stand.
    """
    side = image if text is None else text
    length = 0 if text is None else text.shape[1]
    batch, tokens = image.shape[0], image.shape[1] + length
    size = image.shape[2] // (3 * heads)
    parts = 2 if text is None else 3
    out = torch.empty(parts, batch, tokens, heads, size, dtype=image.dtype, device=image.device)
    _turn[(batch * tokens, parts)](
        side,
        image,
        *norms,
        rotation,
        out,
        side.stride(1),
        image.stride(1),
        length,
        tokens,
        heads=heads,
        block=triton.next_power_of_2(heads),
        size=size,
        num_warps=4,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _widen(x, out, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Float8 → the dtype of `out`, value by value."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    tl.store(out + at, tl.load(x + at, mask=at < count).to(out.dtype.element_ty), mask=at < count)


def widened(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous float8 weight's values in a wide dtype; torch's own conversion takes five times as long (2.11)."""
    out = torch.empty_like(weight, dtype=dtype)
    block = 8192
    _widen[(triton.cdiv(weight.numel(), block),)](weight, out, weight.numel(), block=block, num_warps=8)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _moments(x, sums, length, part: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a group and part of it: the sum of its values, and of their squares."""
    group, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    total, squares = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    for start in range(0, part, block):
        at = piece * part + start + tl.arange(0, block)
        values = tl.load(x + group * length + at, mask=at < length, other=0.0).to(tl.float32)
        total += values
        squares += values * values
    place = sums + (group * tl.num_programs(1) + piece) * 2
    tl.store(place, tl.sum(total))
    tl.store(place + 1, tl.sum(squares))


@triton.jit  # type: ignore[untyped-decorator]
def _affine(x, weight, bias, out, length, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a channel and part of it."""
    channel = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    values = tl.load(x + channel * length + at, mask=at < length).to(tl.float32)
    made = values * tl.load(weight + channel) + tl.load(bias + channel)
    tl.store(out + channel * length + at, made.to(out.dtype.element_ty), mask=at < length)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm of x (B, C, ...), weight and bias (C,). torch gives each group one program, which fills a quarter
    of a large card for half of the VAE's time (2.11)."""
    x = x.contiguous()
    batch, channels, length = x.shape[0], x.shape[1], x[0, 0].numel()
    inside, part = length * channels // groups, 65536
    sums = torch.empty(batch * groups, triton.cdiv(inside, part), 2, dtype=torch.float32, device=x.device)
    _moments[sums.shape[:2]](x, sums, inside, part=part, block=4096, num_warps=8)
    mean, square = (sums.double().sum(1) / inside).view(batch, groups, 1, 2).unbind(-1)
    scale = torch.rsqrt(square - mean * mean + eps) * weight.double().view(groups, -1)
    shift = (bias.double().view(groups, -1) - mean * scale).float()
    out = torch.empty_like(x)
    block = 8192
    _affine[(batch * channels, triton.cdiv(length, block))](
        x, scale.float().contiguous(), shift.contiguous(), out, length, block=block, num_warps=8
    )
    return out
