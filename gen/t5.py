"""T5's encoder as one function a layer, through which the layers' weights pass like a DiT's blocks.

It computes what transformers' module computes (a test compares them), in a tenth of its launches: the module's own
calls took longer than the card's work (H100, 2026-11). Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1,
with the gated GELU of T5 1.1. Knows no files, no tokenizer and no plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gen.float8 import Linear, Views
from gen.shells import HostEmbedding
from gen.streaming.slots import Slots
from gen.sums import rms_norm

FARTHEST = 128  # tokens; all beyond share a bucket
Layer = Callable[[Views, Tensor, Tensor], Tensor]

_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
_NORM = "encoder.final_layer_norm.weight"


def t5_layer(heads: int, linear: Linear) -> Layer:
    """One layer; linears are multiplied by `linear`."""

    def run(weights: Views, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, N, D) and the position bias (1, heads, N, N) → (B, N, D)."""
        normed = rms_norm(x, weights["layer.0.layer_norm.weight"])
        q, k, v = (
            linear(weights, f"layer.0.SelfAttention.{part}", normed).view(*x.shape[:2], heads, -1).transpose(1, 2)
            for part in "qkv"
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        x = x + linear(weights, "layer.0.SelfAttention.o", seen.transpose(1, 2).flatten(2))
        normed = rms_norm(x, weights["layer.1.layer_norm.weight"])
        gate = F.gelu(linear(weights, "layer.1.DenseReluDense.wi_0", normed), approximate="tanh")
        wide = gate * linear(weights, "layer.1.DenseReluDense.wi_1", normed)
        return x + linear(weights, "layer.1.DenseReluDense.wo", wide)

    return run


class StreamedT5(nn.Module):
    """The encoder as the pipeline calls it: input ids (B, N) → (B, N, D)."""

    def __init__(self, names: Sequence[str], *, embedding: HostEmbedding, layer: Layer, slots: Slots) -> None:
        super().__init__()
        self._names, self._embedding, self._layer, self._slots = names, embedding, layer, slots

    def forward(self, input_ids: Tensor) -> Tensor:
        """Padding is attended to, as FLUX was trained with it."""
        x: Tensor = self._embedding(input_ids)
        bias: Tensor | None = None
        for name in self._names:
            with self._slots.visit(name) as weights:
                if bias is None:  # the first layer has it for all
                    bias = position_bias(weights[_BIAS].to(x.dtype), input_ids.shape[1])
                x = self._layer(weights, x, bias)
        with self._slots.visit("t5") as weights:
            return rms_norm(x, weights[_NORM])


def position_bias(table: Tensor, tokens: int) -> Tensor:
    """(buckets, heads) → (1, heads, tokens, tokens): what each head adds for how far a key is from a query.

    Half of the buckets are for keys before, half for keys behind; of each half, half are for one distance each and the
    others for distances that grow as a geometric series up to 128.
    """
    place = torch.arange(tokens, device=table.device)
    offset = place[None] - place[:, None]
    half = len(table) // 2
    exact = half // 2
    distance = offset.abs()
    share = torch.log(distance.float().clamp(min=1) / exact) / math.log(FARTHEST / exact)
    far = (exact + (share * (half - exact)).to(torch.long)).clamp(max=half - 1)
    bucket = torch.where(distance < exact, distance, far) + half * (offset > 0)
    return table[bucket].permute(2, 0, 1)[None].contiguous()
