"""A block's linears with what comes right before them, its queries and keys with what comes after, and its attention.

`ExactSums` use the stored weights' exact values, `Float8Sums` float8 on both sides, `FusedSums` besides that kernels
that write float8 at once. Knows no blocks, no files and no streams.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.attention import FLASH, FLASH_SIZE, Attention, attend, pick_flash
from gen.float8 import Linear, Views, exact_linear, float8_linear, is_narrow, multiply

EPSILON = 1e-6


class Norms(NamedTuple):
    """RMS norms of one stream's queries and keys, (D / heads,) each."""

    q: Tensor
    k: Tensor


Operand = tuple[Tensor, ...]  # what a linear takes: activations (B, N, in), or those in float8 and their scales
Heads = tuple[Tensor, Tensor, Tensor]  # queries, keys, values (B, N, heads, D / heads)
Stream = tuple[Tensor, Norms]  # queries, keys and values side by side (B, N, 3 D), and their norms


class ExactSums:
    """In the activations' dtype."""

    packages: tuple[str, ...] = ()  # beside torch, that have a part in the sums

    def plain(self, weights: Views, name: str, x: Tensor) -> Tensor:
        """(B, N, in) → (B, N, out)."""
        return exact_linear(weights, name, x)

    def product(self, weights: Views, name: str, operand: Operand) -> Tensor:
        """The linear of what `operand`, `gated` or `gelu` made ready for it."""
        return self.plain(weights, name, operand[0])

    def operand(self, weights: Views, name: str, x: Tensor, shift: Tensor, scale: Tensor) -> Operand:
        """What linear `name` takes: x's layer norm (B, N, in), times 1 + scale plus shift (1 or B, 1, in)."""
        return (F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift,)

    def gated(  # noqa: PLR0913
        self, weights: Views, name: str, x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Operand]:
        """x + gate y (B, N, in), gate like shift; and the operand of that for linear `name`."""
        x = x + gate * y
        return x, self.operand(weights, name, x, shift, scale)

    def gelu(self, weights: Views, name: str, x: Tensor, beside: Tensor | None = None) -> Operand:
        """What linear `name` takes: GELU of x (B, N, in), to the right of `beside` if that is given."""
        active = F.gelu(x, approximate="tanh")
        return (active if beside is None else torch.cat((beside, active), dim=-1),)

    def turned(self, text: Stream | None, image: Stream, rotation: Tensor, *, heads: int) -> Heads:
        """Normalized and turned by RoPE, text before image; rotation (1 or B, 1, T + N, D / heads / 2, 2, 2)."""
        streams = [stream for stream in (text, image) if stream is not None]
        parts, begin = [], 0
        for qkv, norms in streams:
            q, k, v = split_heads(qkv, norms, heads=heads)
            turn = rotation[:, :, begin : begin + qkv.shape[1]]
            parts.append((_rotated(q, turn), _rotated(k, turn), v))
            begin += qkv.shape[1]
        q, k, v = (torch.cat(part, dim=1) if text else part[0] for part in zip(*parts, strict=True))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What each query sees: (B, N, heads, d) each → (B, N, heads d)."""
        return attend(q, k, v, mask)


class Float8Sums(ExactSums):
    """In float8, one scale a token and one a weight's row."""

    def plain(self, weights: Views, name: str, x: Tensor) -> Tensor:
        """(B, N, in) bfloat16 → (B, N, out) bfloat16."""
        return float8_linear(weights, name, x)


class FusedSums(Float8Sums):
    """In float8, quantized in the pass that makes the activations; a LoRA's branch begins with what that made."""

    def __init__(self, flash: Attention | None = None) -> None:
        """`flash` is a faster attention than torch's, for heads of FLASH_SIZE in bfloat16 and no mask."""
        from gen import fused_rows  # brings Triton, which only cards have
        from gen.fused import turned_heads
        from gen.fused_lora import add_branch

        self._rows, self._turned_heads, self._add_branch = fused_rows, turned_heads, add_branch
        self._flash, self.packages = flash, (FLASH,) if flash else ()

    def plain(self, weights: Views, name: str, x: Tensor) -> Tensor:
        """As `Float8Sums.plain`."""
        if not is_narrow(weights, name):
            return super().plain(weights, name, x)
        return self.product(weights, name, self._rows.narrow_rows(x))

    def product(self, weights: Views, name: str, operand: Operand) -> Tensor:
        """As `ExactSums.product`, a LoRA's branch added."""
        if not is_narrow(weights, name):
            return super().product(weights, name, operand)
        shape, (rows, scales) = operand[0].shape[:-1], (part.flatten(0, -2) for part in operand)
        y = multiply(weights, name, rows, scales)
        if f"{name}.down" in weights:
            y = self._add_branch(y, rows, scales, weights[f"{name}.down"], weights[f"{name}.up"])
        return y.view(*shape, -1)

    def operand(self, weights: Views, name: str, x: Tensor, shift: Tensor, scale: Tensor) -> Operand:
        """As `ExactSums.operand`."""
        if not is_narrow(weights, name):
            return super().operand(weights, name, x, shift, scale)
        return self._rows.modulated_rows(x, shift, scale)

    def gated(  # noqa: PLR0913
        self, weights: Views, name: str, x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Operand]:
        """As `ExactSums.gated`."""
        if not is_narrow(weights, name):
            return super().gated(weights, name, x, gate, y, shift, scale)
        return self._rows.gated_rows(x, gate, y, shift, scale)

    def gelu(self, weights: Views, name: str, x: Tensor, beside: Tensor | None = None) -> Operand:
        """As `ExactSums.gelu`."""
        if not is_narrow(weights, name):
            return super().gelu(weights, name, x, beside)
        return self._rows.gelu_rows(beside, x)

    def turned(self, text: Stream | None, image: Stream, rotation: Tensor, *, heads: int) -> Heads:
        """As `ExactSums.turned`."""
        qkv, norms = image
        size = qkv.shape[-1] // (3 * heads)
        if rotation.shape[0] != 1 or size & (size - 1):
            return super().turned(text, image, rotation, heads=heads)
        side, side_norms = text or (None, norms)
        made = self._turned_heads(side, qkv, (*side_norms, *norms), rotation, heads=heads).unbind(0)
        return made[0], made[1], made[2] if text else qkv.view(*qkv.shape[:2], 3, heads, size)[:, :, 2]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """As `ExactSums.attend`."""
        fits = mask is None and q.dtype == torch.bfloat16 and q.shape[-1] == FLASH_SIZE
        return self._flash(q, k, v) if self._flash and fits else super().attend(q, k, v, mask)


def split_heads(qkv: Tensor, norms: Norms, *, heads: int) -> Heads:
    """(B, N, 3 D) → queries and keys, normalized, and values."""
    q, k, v = qkv.view(*qkv.shape[:2], 3, heads, -1).unbind(2)
    return rms_norm(q, norms.q), rms_norm(k, norms.k), v


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., D) over its root mean square, times weight (D,), in the dtype of x."""
    size = x.float().square().mean(-1, keepdim=True)
    return (x * torch.rsqrt(size + EPSILON)).to(x.dtype) * weight.to(x.dtype)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of x (B, N, heads, d) by rotation (B, 1, N, d / 2, 2, 2) float32, as RoPE does."""
    turn = rotation.transpose(1, 2)  # (B, N, 1, d / 2, 2, 2)
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    turned: Tensor = turn[..., 0] * pairs[..., 0] + turn[..., 1] * pairs[..., 1]
    return turned.reshape(x.shape).to(x.dtype)


def has_float8_cores(device: torch.device) -> bool:
    """True where torch multiplies float8 with row-wise scales: sm_89 and newer."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def pick_sums(device: torch.device, *, is_narrow: bool, size: int) -> ExactSums:
    """The fastest that `device` can, for heads of `size`; `is_narrow`: for weights in float8, not to be compiled."""
    if not has_float8_cores(device):
        return ExactSums()
    return FusedSums(pick_flash(device, size=size) if is_narrow else None) if has_kernels(device) else Float8Sums()


def pick_exact(device: torch.device) -> Linear:
    """The fastest linear with exact values that `device` can."""
    if not has_kernels(device):
        return exact_linear
    from gen.fused import widened

    return partial(exact_linear, widen=widened)


def has_kernels(device: torch.device) -> bool:
    """True where `gen.fused` can run."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
