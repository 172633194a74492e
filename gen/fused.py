"""Triton kernels that quantize activations in one pass over memory: a row stays in registers from load to store.

torch.compile makes two or three passes of each, because it splits a row's maximum over programs (torch 2.11). Needs a
CUDA card and Triton: import it only there. Knows no weights and no blocks.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _modulate(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    x, shift, scale, out, scales, tokens, x_row, m_row, width: tl.constexpr, block: tl.constexpr
):
    """One program a token: layer norm, modulation, row scale, float8."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < width
    values = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values) / width, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred) / width + 1e-6)
    place = (row // tokens) * m_row + columns
    by = tl.load(scale + place, mask=inside, other=0.0).to(tl.float32)
    to = tl.load(shift + place, mask=inside, other=0.0).to(tl.float32)
    made = normed * (1.0 + by) + to
    size = tl.maximum(tl.max(tl.abs(made)), 1e-12) / 448.0
    tl.store(out + row * width + columns, (made / size).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, size)


@triton.jit  # type: ignore[untyped-decorator]
def _gelu(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    left,
    wide,
    out,
    scales,
    left_row,
    wide_row,
    w_left: tl.constexpr,
    width: tl.constexpr,
    b_left: tl.constexpr,
    block: tl.constexpr,
):
    """One program a token: `left` beside GELU(`wide`), row scale, float8. No left if w_left is 0."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < width
    x = tl.load(wide + row * wide_row + columns, mask=inside, other=0.0).to(tl.float32)
    # x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    made = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    most = tl.max(tl.abs(made))
    if w_left > 0:
        beside = tl.arange(0, b_left)
        held = tl.load(left + row * left_row + beside, mask=beside < w_left, other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.max(tl.abs(held)))
    size = tl.maximum(most, 1e-12) / 448.0
    start = out + row * (w_left + width)
    if w_left > 0:
        tl.store(start + beside, (held / size).to(out.dtype.element_ty), mask=beside < w_left)
    tl.store(start + w_left + columns, (made / size).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, size)


def modulated_rows(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Layer norm of x (B, N, D), times 1 + scale plus shift (1 or B, 1, D) → float8 (B N, D), float32 (B N, 1)."""
    rows, width = x.shape[0] * x.shape[1], x.shape[2]
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    tokens = rows if shift.shape[0] == 1 else x.shape[1]
    x = x.reshape(rows, width)
    block = triton.next_power_of_2(width)
    _modulate[(rows,)](
        x, shift, scale, out, scales, tokens, x.stride(0), shift.stride(0), width=width, block=block, num_warps=8
    )
    return out, scales


def gelu_rows(left: Tensor | None, wide: Tensor) -> tuple[Tensor, Tensor]:
    """Left (B, N, L) beside GELU of wide (B, N, W) → float8 (B N, L + W), float32 (B N, 1)."""
    rows, width = wide.shape[0] * wide.shape[1], wide.shape[2]
    wide = wide.reshape(rows, width)
    side = wide if left is None else left.reshape(rows, -1)
    w_left = 0 if left is None else side.shape[1]
    out = torch.empty(rows, w_left + width, dtype=torch.float8_e4m3fn, device=wide.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=wide.device)
    blocks = triton.next_power_of_2(max(w_left, 1)), triton.next_power_of_2(width)
    _gelu[(rows,)](
        side,
        wide,
        out,
        scales,
        side.stride(0),
        wide.stride(0),
        w_left=w_left,
        width=width,
        b_left=blocks[0],
        block=blocks[1],
        num_warps=16,
    )
    return out, scales
