"""Triton kernels that quantize activations in the pass that makes them: a scale a token, e4m3.

torch.compile splits a row's maximum over programs and goes over memory once more (2.11). Needs a CUDA card and Triton:
import it only there. Knows no weights and no blocks.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor


@triton.jit
def _both(a, b, c, d):  # type: ignore[no-untyped-def]
    return a + c, b + d


@triton.jit  # type: ignore[untyped-decorator]
def _modulate(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    x,
    y,
    gate,
    kept,
    shift,
    scale,
    out,
    scales,
    tokens,
    x_row,
    y_row,
    g_row,
    m_row,
    gated: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """One program a token: x, or x + gate y, which is kept; of that layer norm, modulation, row scale, float8."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < width
    values = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
    place = (row // tokens) * m_row + columns
    by = tl.load(scale + place, mask=inside, other=0.0).to(tl.float32)
    to = tl.load(shift + place, mask=inside, other=0.0).to(tl.float32)
    if gated:
        part = tl.load(gate + (row // tokens) * g_row + columns, mask=inside, other=0.0).to(tl.float32)
        values += part * tl.load(y + row * y_row + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(kept.dtype.element_ty)
        tl.store(kept + row * width + columns, rounded, mask=inside)
        values = rounded.to(tl.float32)
    total, squares = tl.reduce((values, values * values), 0, _both)
    mean = total / width
    normed = (values - mean) * tl.rsqrt(squares / width - mean * mean + 1e-6)
    made = tl.where(inside, normed * (1.0 + by) + to, 0.0)
    size = tl.maximum(tl.max(tl.abs(made)), 1e-12) / 448.0
    tl.store(out + row * width + columns, (made * (1.0 / size)).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, size)


@triton.jit
def _gelu_of(x):  # type: ignore[no-untyped-def]
    """x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3); the card's own tanh is good to 2^-11.

    With exp and a division instead, arithmetic takes longer than memory (H100, 2026-11).
    """
    u = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
    tanh = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [u], dtype=tl.float32, is_pure=True, pack=1)
    return 0.5 * x * (1.0 + tanh)


@triton.jit  # type: ignore[untyped-decorator]
def _gelu(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    left, wide, out, scales, left_row, wide_row, w_left: tl.constexpr, width: tl.constexpr, block: tl.constexpr
):
    """One program a token: `left` beside GELU(`wide`), row scale, float8. No left if w_left is 0.

    A row is gone through twice, the second time from the cache: kept in registers it leaves a processor half empty.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    most = tl.zeros([block], tl.float32)
    for start in tl.static_range(0, width, block):
        inside = start + columns < width
        x = tl.load(wide + row * wide_row + start + columns, mask=inside, other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.abs(_gelu_of(x)))
    for start in tl.static_range(0, w_left, block):
        inside = start + columns < w_left
        held = tl.load(left + row * left_row + start + columns, mask=inside, other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.abs(held))
    size = tl.maximum(tl.max(most), 1e-12) / 448.0
    by, to = 1.0 / size, out + row * (w_left + width)
    for start in tl.static_range(0, w_left, block):
        inside = start + columns < w_left
        held = tl.load(left + row * left_row + start + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(to + start + columns, (held * by).to(out.dtype.element_ty), mask=inside)
    for start in tl.static_range(0, width, block):
        inside = start + columns < width
        x = tl.load(wide + row * wide_row + start + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(to + w_left + start + columns, (_gelu_of(x) * by).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, size)


@triton.jit  # type: ignore[untyped-decorator]
def _narrow(x, out, scales, x_row, width: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a token: row scale, float8."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < width
    values = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
    size = tl.maximum(tl.max(tl.abs(values)), 1e-12) / 448.0
    tl.store(out + row * width + columns, (values * (1.0 / size)).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, size)


Rows = tuple[Tensor, Tensor]  # float8 (B, N, D) and each token's scale, float32 (B, N, 1)


def narrow_rows(x: Tensor) -> Rows:
    """x (B, N, D) in float8."""
    out, scales = _empty(x, x.shape[-1])
    flat = x.reshape(-1, x.shape[-1])
    block = triton.next_power_of_2(flat.shape[1])
    _narrow[(flat.shape[0],)](flat, out, scales, flat.stride(0), width=flat.shape[1], block=block, num_warps=4)
    return out, scales


def modulated_rows(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    """Layer norm of x (B, N, D), times 1 + scale plus shift (1 or B, 1, D), in float8."""
    rows = _empty(x, x.shape[-1])
    _launch(x, x, shift, rows[0], shift, scale, rows, gated=False)
    return rows


def gated_rows(x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Rows]:
    """x + gate y, (B, N, D) with gate (1 or B, 1, D); and `modulated_rows` of that."""
    kept, rows = torch.empty_like(x, memory_format=torch.contiguous_format), _empty(x, x.shape[-1])
    _launch(x, y, gate, kept, shift, scale, rows, gated=True)
    return kept, rows


def _launch(  # noqa: PLR0913
    x: Tensor, y: Tensor, gate: Tensor, kept: Tensor, shift: Tensor, scale: Tensor, rows: Rows, *, gated: bool
) -> None:
    batch, tokens, width = x.shape
    x, y = x.reshape(-1, width), y.reshape(-1, width)
    _modulate[(batch * tokens,)](
        x,
        y,
        gate,
        kept,
        shift,
        scale,
        *rows,
        batch * tokens if shift.shape[0] == 1 else tokens,
        x.stride(0),
        y.stride(0),
        gate.stride(0),
        shift.stride(0),
        gated=gated,
        width=width,
        block=triton.next_power_of_2(width),
        num_warps=4,
    )


def _empty(x: Tensor, width: int) -> Rows:
    out = torch.empty(*x.shape[:-1], width, dtype=torch.float8_e4m3fn, device=x.device)
    return out, torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device)


def gelu_rows(left: Tensor | None, wide: Tensor) -> Rows:
    """Left (B, N, L) beside GELU of wide (B, N, W), in float8 (B, N, L + W)."""
    rows, width = wide.shape[0] * wide.shape[1], wide.shape[2]
    out, scales = _empty(wide, width + (0 if left is None else left.shape[-1]))
    wide = wide.reshape(rows, width)
    side = wide if left is None else left.reshape(rows, -1)
    w_left = 0 if left is None else side.shape[1]
    block = min(4096, triton.next_power_of_2(width))
    _gelu[(rows,)](
        side, wide, out, scales, side.stride(0), wide.stride(0), w_left=w_left, width=width, block=block, num_warps=16
    )
    return out, scales
