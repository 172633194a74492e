"""FLUX's two kinds of blocks as functions of (weights, activations, modulation): one graph of each serves all blocks.

They compute what DiffSynth's modules compute (a test compares them), arranged so that torch.compile fuses norm,
modulation and quantization, and rotates q and k where the linear left them. Weights come as a mapping of tensors, so
neither a block's number nor the slot it stands in is part of a graph. Knows no DiffSynth, no files and no streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.float8 import Views
from gen.sums import EPSILON, ExactSums

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
        q_a, k_a, v_a = _heads(weights, qkv_a, heads, "attn.norm_q_a", "attn.norm_k_a")
        q_b, k_b, v_b = _heads(weights, qkv_b, heads, "attn.norm_q_b", "attn.norm_k_b")
        length = text.shape[1]
        turn_b, turn_a = rotation[:, :, :length], rotation[:, :, length:]
        # Turned before they are joined: joined first, they would be written twice.
        q = torch.cat((_rotated(q_b, turn_b), _rotated(q_a, turn_a)), dim=1)
        k = torch.cat((_rotated(k_b, turn_b), _rotated(k_a, turn_a)), dim=1)
        seen = _attention(q, k, torch.cat((v_b, v_a), dim=1), mask)
        seen_a = _adapted(seen[:, length:], q_a, adapter)
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
        q, k, v = _heads(weights, wide[..., : 3 * width], heads, "norm_q_a", "norm_k_a")
        q = _rotated(q, rotation)
        seen = _adapted(_attention(q, _rotated(k, rotation), v, mask), q, adapter)
        return joined + gate * sums.gelu(weights, "proj_out", wide[..., 3 * width :], seen), text

    return run


def _heads(weights: Views, qkv: Tensor, heads: int, q_norm: str, k_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 D) → q, k, v (B, N, heads, D / heads), q and k normalized."""
    q, k, v = qkv.view(*qkv.shape[:2], 3, heads, -1).unbind(2)
    return _rms(q, weights[f"{q_norm}.weight"]), _rms(k, weights[f"{k_norm}.weight"]), v


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    size = x.float().square().mean(-1, keepdim=True)
    return (x * torch.rsqrt(size + EPSILON)).to(x.dtype) * weight.to(x.dtype)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of x (B, N, heads, d) by rotation (B, 1, N, d / 2, 2, 2) float32, as RoPE does."""
    turn = rotation.transpose(1, 2)  # (B, N, 1, d / 2, 2, 2)
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    turned: Tensor = turn[..., 0] * pairs[..., 0] + turn[..., 1] * pairs[..., 1]
    return turned.reshape(x.shape).to(x.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(B, N, heads, d) each → (B, N, heads d)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    seen: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    joined: Tensor = seen.transpose(1, 2).reshape(seen.shape[0], seen.shape[2], -1)
    return joined


def _adapted(seen: Tensor, q: Tensor, adapter: Adapter) -> Tensor:
    """Add what an IP-Adapter's picture says to these queries (B, N, heads, d)."""
    if adapter is None:
        return seen
    keys, values = adapter["ip_k"].transpose(1, 2), adapter["ip_v"].transpose(1, 2)
    added: Tensor = adapter["scale"] * _attention(q, keys, values, None)
    return seen + added
