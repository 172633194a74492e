"""Linear layers over stored weights: float8 with a scale for each row, or a wide dtype, each with an optional LoRA.

float8 is e4m3fn: 3 mantissa bits, largest value 448. A row w of a weight is stored as w / s with s = max|w| / 448.
Cards with float8 tensor cores multiply float8 activations (one scale a token) with float8 weights; everything else
multiplies the exact values of the stored weights in the activations' dtype (`gen.sums` chooses). Plain functions over
a mapping of tensors, so that one compiled graph serves every block and slot. Knows no model, no files and no streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

LARGEST = 448.0  # of float8_e4m3fn
TINY = 1e-12  # a row of zeros has this for its scale, so that nothing is divided by zero
MULTIPLE = 16  # what _scaled_mm asks of both sizes of a weight

Views = Mapping[str, Tensor]  # a block's tensors by name; `X.weight`, `X.scale`, `X.bias`, `X.down`, `X.up`
Linear = Callable[[Views, str, Tensor], Tensor]


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) of any float dtype → float8_e4m3fn of the same shape, float32 scales (rows,)."""
    wide = weight.float()
    scale = wide.abs().amax(-1).clamp(min=TINY) / LARGEST
    return (wide / scale[:, None]).to(torch.float8_e4m3fn), scale


def sqnr(exact: Tensor, approximate: Tensor) -> Tensor:
    """Signal to quantization noise of each row in dB: 10 log10(Σ exact² / Σ (exact - approximate)²)."""
    exact, noise = exact.double(), exact.double() - approximate.double()
    return 10 * torch.log10(exact.square().sum(-1) / noise.square().sum(-1))


def exact_linear(
    weights: Views, name: str, x: Tensor, *, widen: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to
) -> Tensor:
    """(..., in) → (..., out) with the stored weight's exact values, in the dtype of `x`."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    if weight.dtype != torch.float8_e4m3fn:
        y = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return with_lora(weights, name, x, y)
    # The scales are applied to the output: the weight's own values are exact in bfloat16, scaled they would not be.
    y = F.linear(x, widen(weight, x.dtype)).float() * weights[f"{name}.scale"]
    return with_lora(weights, name, x, (y if bias is None else y + bias.float()).to(x.dtype))


def float8_linear(weights: Views, name: str, x: Tensor) -> Tensor:
    """(..., in) bfloat16 → (..., out) bfloat16: both sides in float8, one scale a token and one a row."""
    if not is_narrow(weights, name):
        return exact_linear(weights, name, x)
    y = multiply(weights, name, *quantize_tokens(x))
    return with_lora(weights, name, x, y.view(*x.shape[:-1], -1))


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., in) → float8 tokens (N, in), float32 scales (N, 1)."""
    tokens = x.reshape(-1, x.shape[-1])
    scale = tokens.abs().amax(-1, keepdim=True).float().clamp(min=TINY) / LARGEST
    return (tokens.float() / scale).to(torch.float8_e4m3fn), scale


def is_narrow(weights: Views, name: str) -> bool:
    """True if this weight can be multiplied in float8."""
    weight = weights[f"{name}.weight"]
    return weight.dtype == torch.float8_e4m3fn and not (weight.shape[0] % MULTIPLE or weight.shape[1] % MULTIPLE)


def multiply(weights: Views, name: str, tokens: Tensor, scale: Tensor) -> Tensor:
    """Float8 tokens (N, in) with float32 scales (N, 1) → (N, out) bfloat16."""
    return torch._scaled_mm(
        tokens,
        weights[f"{name}.weight"].t(),
        scale_a=scale,
        scale_b=weights[f"{name}.scale"][None],
        bias=weights.get(f"{name}.bias"),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def with_lora(weights: Views, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Add the low-rank side branch: x (..., in) · down (rank, in) · up (out, rank)."""
    down = weights.get(f"{name}.down")
    if down is None:
        return y
    return y + F.linear(F.linear(x, down.to(x.dtype)), weights[f"{name}.up"].to(x.dtype))
