"""FLUX's two kinds of blocks as functions of (weights, activations, modulation): one graph of each serves all blocks.

They compute what DiffSynth's modules compute (a test compares them), arranged so that torch.compile fuses norm,
modulation and quantization. Weights come as a mapping of tensors, so
neither a block's number nor the slot it stands in is part of a graph. Knows no DiffSynth, no files and no streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.float8 import Views
from gen.sums import ExactSums, Norms, split_heads

Adapter = dict[str, Any] | None  # an IP-Adapter's keys and values for one block: ip_k, ip_v, scale
Block = Callable[..., tuple[Tensor, Tensor]]


def joint_block(heads: int, sums: ExactSums) -> Block:
    """A block with two streams, image (a) and text (b), that meet in attention."""

    def run(
        weights: Views,
        streams: tuple[Tensor, Tensor],
        modulation: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        adapter: Adapter = None,
    ) -> tuple[Tensor, Tensor]:
        """Image (B, N, D) and text (B, T, D); modulation (1 or B, 12 D): shift, scale, gate twice for a, then b."""
        image, text = streams
        first, second = modulation[:, None].chunk(2, dim=-1)
        a, b = first.chunk(6, dim=-1), second.chunk(6, dim=-1)
        qkv_a = sums.modulated(weights, "attn.a_to_qkv", image, a[0], a[1])
        qkv_b = sums.modulated(weights, "attn.b_to_qkv", text, b[0], b[1])
        norms_a, norms_b = (Norms(weights[f"attn.norm_q_{s}.weight"], weights[f"attn.norm_k_{s}.weight"]) for s in "ab")
        q, k, v = sums.turned((qkv_b, norms_b), (qkv_a, norms_a), rotation, heads=heads)
        seen, length = _attention(q, k, v, mask), text.shape[1]
        seen_a = seen[:, length:]
        if adapter is not None:
            seen_a = _adapted(seen_a, split_heads(qkv_a, norms_a, heads=heads)[0], adapter)
        image = image + a[2] * sums.plain(weights, "attn.a_to_out", seen_a)
        text = text + b[2] * sums.plain(weights, "attn.b_to_out", seen[:, :length])
        image = image + a[5] * sums.gelu(weights, "ff_a.2", sums.modulated(weights, "ff_a.0", image, a[3], a[4]))
        text = text + b[5] * sums.gelu(weights, "ff_b.2", sums.modulated(weights, "ff_b.0", text, b[3], b[4]))
        return image, text

    return run


def single_block(heads: int, sums: ExactSums) -> Block:
    """A block with one stream, text before image; attention and MLP stand side by side."""

    def run(
        weights: Views,
        streams: tuple[Tensor, Tensor],
        modulation: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        adapter: Adapter = None,
    ) -> tuple[Tensor, Tensor]:
        """Streams joined (B, T + N, D) and text, only handed on; modulation (1 or B, 3 D): shift, scale, gate."""
        joined, text = streams
        shift, scale, gate = modulation[:, None].chunk(3, dim=-1)
        width = joined.shape[-1]
        wide = sums.modulated(weights, "to_qkv_mlp", joined, shift, scale)
        norms = Norms(weights["norm_q_a.weight"], weights["norm_k_a.weight"])
        q, k, v = sums.turned(None, (wide[..., : 3 * width], norms), rotation, heads=heads)
        seen = _attention(q, k, v, mask)
        if adapter is not None:
            seen = _adapted(seen, q, adapter)
        return joined + gate * sums.gelu(weights, "proj_out", wide[..., 3 * width :], seen), text

    return run


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(B, N, heads, d) each → (B, N, heads d)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    seen: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    joined: Tensor = seen.transpose(1, 2).reshape(seen.shape[0], seen.shape[2], -1)
    return joined


def _adapted(seen: Tensor, q: Tensor, adapter: dict[str, Any]) -> Tensor:
    """Add what an IP-Adapter's picture says to these queries (B, N, heads, d)."""
    keys, values = adapter["ip_k"].transpose(1, 2), adapter["ip_v"].transpose(1, 2)
    added: Tensor = adapter["scale"] * _attention(q, keys, values, None)
    return seen + added
