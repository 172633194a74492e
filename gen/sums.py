"""The linears of a block together with what comes right before them, so that it can be one kernel with quantization.

`ExactSums` use the stored weights' exact values, `Float8Sums` float8 on both sides, `FusedSums` besides that kernels
that write float8 at once. Knows no blocks, no files and no streams.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.float8 import Views, exact_linear, float8_linear, is_narrow, multiply

EPSILON = 1e-6


class ExactSums:
    """In the activations' dtype."""

    def plain(self, weights: Views, name: str, x: Tensor) -> Tensor:
        """(B, N, in) → (B, N, out)."""
        return exact_linear(weights, name, x)

    def modulated(self, weights: Views, name: str, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The linear of x's layer norm (B, N, in), times 1 + scale plus shift (1 or B, 1, in)."""
        return self.plain(weights, name, F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift)

    def gelu(self, weights: Views, name: str, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """The linear of GELU of x (B, N, in), to the right of `beside` if that is given."""
        active = F.gelu(x, approximate="tanh")
        return self.plain(weights, name, active if beside is None else torch.cat((beside, active), dim=-1))


class Float8Sums(ExactSums):
    """In float8, one scale a token and one a weight's row."""

    def plain(self, weights: Views, name: str, x: Tensor) -> Tensor:
        """(B, N, in) bfloat16 → (B, N, out) bfloat16."""
        return float8_linear(weights, name, x)


class FusedSums(Float8Sums):
    """In float8, quantized in the pass that makes the activations; not beside a LoRA, which needs them wide."""

    def __init__(self) -> None:
        from gen.fused import gelu_rows, modulated_rows  # brings Triton, which only cards have

        self._modulated_rows, self._gelu_rows = modulated_rows, gelu_rows

    def modulated(self, weights: Views, name: str, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """As `ExactSums.modulated`."""
        if not _is_fused(weights, name):
            return super().modulated(weights, name, x, shift, scale)
        return multiply(weights, name, *self._modulated_rows(x, shift, scale)).view(*x.shape[:-1], -1)

    def gelu(self, weights: Views, name: str, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """As `ExactSums.gelu`."""
        if not _is_fused(weights, name):
            return super().gelu(weights, name, x, beside)
        return multiply(weights, name, *self._gelu_rows(beside, x)).view(*x.shape[:-1], -1)


def _is_fused(weights: Views, name: str) -> bool:
    return is_narrow(weights, name) and f"{name}.down" not in weights


def has_float8_cores(device: torch.device) -> bool:
    """True where torch multiplies float8 with row-wise scales: sm_89 and newer."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def pick_sums(device: torch.device) -> ExactSums:
    """The fastest that `device` can."""
    if not has_float8_cores(device):
        return ExactSums()
    return FusedSums() if importlib.util.find_spec("triton") else Float8Sums()
