"""How many bytes and FLOPs a model's parts have, computed from its shape. Knows no card, no budget, no torch.

Widths follow FLUX: a joint block has two streams of qkv (3d), out (d) and MLP (4d + 4d); a single block one linear
into qkv and MLP (7d) and one out of both (5d). 1024x1024 with FLUX.1-dev: 59.49 TFLOP of GEMM and 14.87 of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gen.weights import FluxShape

_BF16 = 2  # bytes
_PATCH = 16  # pixels a side of one image token
_SLOT_PARTS = 24  # tensors in a block, each begins on a boundary
_ALIGN = 256


class Precision(StrEnum):
    """How the streamed weights are stored."""

    FLOAT8 = "float8"  # scaled e4m3, one float32 scale an output row
    BFLOAT16 = "bfloat16"  # exact, twice the bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a plan must be able to draw."""

    width: int  # pixels
    height: int  # pixels
    steps: int = 20
    prompts: int = 1  # a step: two with a cfg_scale
    lora_rank: int = 0  # all LoRAs together, after padding; 0 is none

    def tokens(self, shape: FluxShape) -> int:
        """Length of the DiT's sequence: image and text."""
        return -(-self.width // _PATCH) * -(-self.height // _PATCH) + shape.t5_tokens


def block_bytes(shape: FluxShape, precision: Precision, *, lora_rank: int = 0) -> tuple[int, ...]:
    """Bytes of each block's weights and of the LoRA branches that go with them, the joint blocks first.

    Modulation is not among them.
    """
    dim, head = shape.dim, shape.dim // shape.heads
    joint = _packed(24 * dim * dim, rows=18 * dim, precision=precision) + 4 * head * _BF16
    single = _packed(12 * dim * dim, rows=8 * dim, precision=precision) + 2 * head * _BF16
    joint, single = joint + _branches(32 * dim, lora_rank), single + _branches(14 * dim, lora_rank)
    return (joint,) * shape.joint_blocks + (single,) * shape.single_blocks


def t5_layer_bytes(shape: FluxShape, precision: Precision) -> int:
    """Bytes of one T5 layer: q, k, v, o and the three linears of its gated MLP."""
    inner = shape.t5_heads * shape.t5_head_dim
    weights = 4 * inner * shape.t5_dim + 3 * shape.t5_dim * shape.t5_hidden
    rows = 3 * inner + 2 * shape.t5_dim + 2 * shape.t5_hidden
    return _packed(weights, rows=rows, precision=precision)


def text_bytes(shape: FluxShape, precision: Precision) -> int:
    """Bytes of both text encoders on the card; T5's token table stays with the host, which looks tokens up."""
    return shape.t5_layers * t5_layer_bytes(shape, precision) + clip_bytes(shape)


def clip_bytes(shape: FluxShape) -> int:
    """Bytes of CLIP in bfloat16."""
    layer = 4 * shape.clip_dim**2 + 2 * shape.clip_dim * shape.clip_hidden
    return _BF16 * (shape.clip_layers * layer + (shape.clip_vocabulary + 77) * shape.clip_dim)


def modulation_bytes(shape: FluxShape, *, lora_rank: int = 0) -> int:
    """Bytes of all modulation linears, which stay bfloat16, and of their LoRA branches."""
    widths = 12 * shape.joint_blocks + 3 * shape.single_blocks + 2
    branches = (14 * shape.joint_blocks + 4 * shape.single_blocks) * shape.dim
    return _BF16 * (widths * shape.dim * (shape.dim + 1) + branches * lora_rank)


def table_bytes(shape: FluxShape, wanted: Wanted) -> int:
    """Bytes of all steps' modulation in bfloat16."""
    return _BF16 * wanted.prompts * wanted.steps * shape.dim * (12 * shape.joint_blocks + 3 * shape.single_blocks + 2)


def embedder_bytes(shape: FluxShape) -> int:
    """Bytes of what always rests on the card: the embedders of image, text, time, guidance, and the last linear."""
    dim = shape.dim
    weights = dim * (64 + shape.t5_dim + 2 * (256 + dim) + shape.clip_dim + dim + 64)
    return _BF16 * (weights + 12 * dim)


def slot_bytes(shape: FluxShape, precision: Precision, *, lora_rank: int = 0) -> int:
    """Bytes of one slot: it takes any block, any T5 layer and a joint block's modulation, with their LoRA branches."""
    modulation = _BF16 * 12 * shape.dim * (shape.dim + 1) + _branches(14 * shape.dim, lora_rank)
    return max(*block_bytes(shape, precision, lora_rank=lora_rank), t5_layer_bytes(shape, precision), modulation)


def dit_activation_bytes(shape: FluxShape, wanted: Wanted) -> int:
    """Bytes at a single block's widest moment in bfloat16, in units of a token's width.

    Residual 1, normalized 1, qkv and MLP 7, rotated q and k 2, attention 1, joined 5: 17. A joint block needs less.
    Beside them the rotation's table in float32, and q and k as float32 where they are not fused.
    """
    return wanted.tokens(shape) * (17 * _BF16 * shape.dim + 8 * shape.dim // shape.heads)


def recording_bytes(shape: FluxShape, wanted: Wanted, *, keeps_heads: bool) -> int:
    """Bytes that a recorded step keeps beside its activations: a second workspace of cuBLAS.

    With FlashAttention 4 it kept 2.0 GiB more, two rows a token and single block (H200, 2026-11): `keeps_heads`.
    """
    heads = shape.single_blocks * 2 * _BF16 * shape.dim * wanted.tokens(shape)
    return 40 * 2**20 + (heads if keeps_heads else 0)


def text_activation_bytes(shape: FluxShape) -> int:
    """Bytes of T5 at its widest: its position bias twice, two widened weights, four tensors of the MLP's width."""
    bias = 2 * _BF16 * shape.t5_heads * shape.t5_tokens**2
    return bias + _BF16 * shape.t5_hidden * (2 * shape.t5_dim + 4 * shape.t5_tokens)


def gemm_flops(shape: FluxShape, wanted: Wanted) -> float:
    """FLOPs of one step's block linears."""
    weights = 12.0 * shape.dim**2 * (shape.joint_blocks + shape.single_blocks)
    return 2 * weights * wanted.tokens(shape)


def attention_flops(shape: FluxShape, wanted: Wanted) -> float:
    """FLOPs of one step's attention."""
    return 4.0 * wanted.tokens(shape) ** 2 * shape.dim * (shape.joint_blocks + shape.single_blocks)


def text_flops(shape: FluxShape) -> float:
    """FLOPs of T5's linears for one prompt."""
    return 2.0 * shape.t5_tokens * shape.t5_layers * t5_layer_bytes(shape, Precision.BFLOAT16) / _BF16


def _branches(widths: int, rank: int) -> int:
    """Bytes of low-rank branches on linears whose inputs and outputs are `widths` together."""
    return _BF16 * rank * widths + (_SLOT_PARTS * _ALIGN if rank else 0)


def _packed(weights: int, *, rows: int, precision: Precision) -> int:
    """Bytes of linears in an arena: weights, row scales where they are float8, bfloat16 biases, alignment."""
    aligned = _SLOT_PARTS * _ALIGN
    if precision is Precision.FLOAT8:
        return weights + rows * (4 + _BF16) + aligned
    return _BF16 * (weights + rows) + aligned
