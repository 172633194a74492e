"""FLUX's two kinds of blocks as functions of (weights, activations, modulation): one graph of each serves all blocks.

They compute what DiffSynth's modules compute (a test compares them), arranged so that norm, modulation and quantization
are one kernel, by torch.compile or by the sums themselves. Weights come as a mapping of tensors, so neither a block's
number nor the slot it stands in is part of a graph. Knows no DiffSynth, no files and no streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gen.attention import attend
from gen.float8 import Views
from gen.sums import ExactSums, Norms, Operand, split_heads

Adapter = dict[str, Any] | None  # an IP-Adapter's keys and values for one block: ip_k, ip_v, scale
Streams = tuple[Tensor, Tensor]
Operands = tuple[Operand, ...]  # of the first linear of each stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One kind of block. Each ends with what the next one of its kind begins with, made in one pass with its sums."""

    begin: Callable[..., Operands]  # (weights, streams, modulation) → the operands of a block that nothing came before
    run: Callable[..., tuple[Streams, Operands]]  # → its streams, and the operands of the next block


def joint_block(heads: int, sums: ExactSums) -> Block:
    """A block with two streams, image (a) and text (b), that meet in attention.

    Image (B, N, D) and text (B, T, D); modulation (1 or B, 12 D): shift, scale, gate twice for a, then for b.
    """

    def begin(weights: Views, streams: Streams, modulation: Tensor) -> Operands:
        parts = _parts(modulation, 12)
        return (
            sums.operand(weights, "attn.a_to_qkv", streams[0], *parts[:2]),
            sums.operand(weights, "attn.b_to_qkv", streams[1], *parts[6:8]),
        )

    def run(  # noqa: PLR0913
        weights: Views,
        streams: Streams,
        operands: Operands,
        modulation: Tensor,
        following: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        adapter: Adapter = None,
    ) -> tuple[Streams, Operands]:
        image, text = streams
        parts, next_parts = _parts(modulation, 12), _parts(following, 12)
        a, b = parts[:6], parts[6:]
        seen_a, seen_b = _met(sums, weights, operands, rotation, mask, adapter, heads=heads)
        out_a, out_b = sums.plain(weights, "attn.a_to_out", seen_a), sums.plain(weights, "attn.b_to_out", seen_b)
        image, ready_a = sums.gated(weights, "ff_a.0", image, a[2], out_a, a[3], a[4])
        text, ready_b = sums.gated(weights, "ff_b.0", text, b[2], out_b, b[3], b[4])
        ready_a = sums.gelu(weights, "ff_a.2", sums.product(weights, "ff_a.0", ready_a))
        ready_b = sums.gelu(weights, "ff_b.2", sums.product(weights, "ff_b.0", ready_b))
        out_a, out_b = sums.product(weights, "ff_a.2", ready_a), sums.product(weights, "ff_b.2", ready_b)
        image, ready_a = sums.gated(weights, "attn.a_to_qkv", image, a[5], out_a, *next_parts[:2])
        text, ready_b = sums.gated(weights, "attn.b_to_qkv", text, b[5], out_b, *next_parts[6:8])
        return (image, text), (ready_a, ready_b)

    return Block(begin=begin, run=run)


def _met(  # noqa: PLR0913
    sums: ExactSums,
    weights: Views,
    operands: Operands,
    rotation: Tensor,
    mask: Tensor | None,
    adapter: Adapter,
    *,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """What image (B, N, D) and text (B, T, D) see of both."""
    qkv_a = sums.product(weights, "attn.a_to_qkv", operands[0])
    qkv_b = sums.product(weights, "attn.b_to_qkv", operands[1])
    norms_a, norms_b = (Norms(weights[f"attn.norm_q_{s}.weight"], weights[f"attn.norm_k_{s}.weight"]) for s in "ab")
    q, k, v = sums.turned((qkv_b, norms_b), (qkv_a, norms_a), rotation, heads=heads)
    seen, length = sums.attend(q, k, v, mask), qkv_b.shape[1]
    seen_a = seen[:, length:]
    if adapter is not None:
        seen_a = _adapted(seen_a, split_heads(qkv_a, norms_a, heads=heads)[0], adapter)
    return seen_a, seen[:, :length]


def single_block(heads: int, sums: ExactSums) -> Block:
    """A block with one stream, text before image; attention and MLP stand side by side.

    Streams joined (B, T + N, D), and text, which is only handed on; modulation (1 or B, 3 D): shift, scale, gate.
    """

    def begin(weights: Views, streams: Streams, modulation: Tensor) -> Operands:
        return (sums.operand(weights, "to_qkv_mlp", streams[0], *_parts(modulation, 3)[:2]),)

    def run(  # noqa: PLR0913
        weights: Views,
        streams: Streams,
        operands: Operands,
        modulation: Tensor,
        following: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        adapter: Adapter = None,
    ) -> tuple[Streams, Operands]:
        joined, text = streams
        seen = _seen_beside(sums, weights, operands[0], rotation, mask, adapter, heads=heads)
        made, gate = sums.product(weights, "proj_out", seen), _parts(modulation, 3)[2]
        joined, ready = sums.gated(weights, "to_qkv_mlp", joined, gate, made, *_parts(following, 3)[:2])
        return (joined, text), (ready,)

    return Block(begin=begin, run=run)


def _seen_beside(  # noqa: PLR0913
    sums: ExactSums,
    weights: Views,
    operand: Operand,
    rotation: Tensor,
    mask: Tensor | None,
    adapter: Adapter,
    *,
    heads: int,
) -> Operand:
    """What each token sees, beside its own MLP, ready for the last linear; the first one's output is let go."""
    wide, width = sums.product(weights, "to_qkv_mlp", operand), operand[0].shape[-1]
    norms = Norms(weights["norm_q_a.weight"], weights["norm_k_a.weight"])
    q, k, v = sums.turned(None, (wide[..., : 3 * width], norms), rotation, heads=heads)
    seen = sums.attend(q, k, v, mask)
    if adapter is not None:
        seen = _adapted(seen, q, adapter)
    return sums.gelu(weights, "proj_out", wide[..., 3 * width :], seen)


def _parts(modulation: Tensor, count: int) -> tuple[Tensor, ...]:
    """(1 or B, count D) → count of (1 or B, 1, D)."""
    return modulation[:, None].chunk(count, dim=-1)


def _adapted(seen: Tensor, q: Tensor, adapter: dict[str, Any]) -> Tensor:
    """Add what an IP-Adapter's picture says to these queries (B, N, heads, d)."""
    keys, values = adapter["ip_k"].transpose(1, 2), adapter["ip_v"].transpose(1, 2)
    added: Tensor = adapter["scale"] * attend(q, keys, values)
    return seen + added
