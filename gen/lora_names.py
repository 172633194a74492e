"""Which linear of the DiT a LoRA's key means: the names that people's files use, mapped to DiffSynth's modules.

Files come in Black Forest Labs' names (kohya's are these), in diffusers' (PEFT), or in DiffSynth's own; with dots or,
in kohya's manner, underscores. diffusers has q, k, v and a single block's MLP apart, where the module has them as one:
they are rows of its output. Knows no tensors and no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gen.weights import FluxShape

_PREFIXES = re.compile(
    r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)+"
)
_PARTS = re.compile(
    r"\.(?P<part>lora_A|lora_B|lora_down|lora_up)(?:\.default|\.default_0)?\.weight$|\.(?P<alpha>alpha)$"
)
_TEXT = re.compile(r"^(?:lora_te\d?_|text_encoder(?:_2)?\.|lora_te)")
DOWN, UP, ALPHA = "down", "up", "alpha"
ENDS = (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".alpha")  # of a usable key
_ROLES = {"lora_A": DOWN, "lora_down": DOWN, "lora_B": UP, "lora_up": UP}
# DiffSynth's name, inputs and outputs in units of the width, Black Forest Labs' name
_JOINT = (
    ("attn.{}_to_qkv", 1, 3, "{}_attn.qkv"),
    ("attn.{}_to_out", 1, 1, "{}_attn.proj"),
    ("ff_{}.0", 1, 4, "{}_mlp.0"),
    ("ff_{}.2", 4, 1, "{}_mlp.2"),
    ("norm1_{}.linear", 1, 6, "{}_mod.lin"),
)
_SINGLE = (("to_qkv_mlp", 1, 7, "linear1"), ("proj_out", 5, 1, "linear2"), ("norm.linear", 1, 3, "modulation.lin"))
# diffusers' name, module, first and last row in units of the width
_DIFFUSERS_JOINT = (
    ("attn.to_q", "attn.a_to_qkv", 0, 1),
    ("attn.to_k", "attn.a_to_qkv", 1, 2),
    ("attn.to_v", "attn.a_to_qkv", 2, 3),
    ("attn.add_q_proj", "attn.b_to_qkv", 0, 1),
    ("attn.add_k_proj", "attn.b_to_qkv", 1, 2),
    ("attn.add_v_proj", "attn.b_to_qkv", 2, 3),
    ("attn.to_out.0", "attn.a_to_out", 0, 1),
    ("attn.to_add_out", "attn.b_to_out", 0, 1),
    ("ff.net.0.proj", "ff_a.0", 0, 4),
    ("ff.net.2", "ff_a.2", 0, 1),
    ("ff_context.net.0.proj", "ff_b.0", 0, 4),
    ("ff_context.net.2", "ff_b.2", 0, 1),
    ("norm1.linear", "norm1_a.linear", 0, 6),
    ("norm1_context.linear", "norm1_b.linear", 0, 6),
)
_DIFFUSERS_SINGLE = (
    ("attn.to_q", "to_qkv_mlp", 0, 1),
    ("attn.to_k", "to_qkv_mlp", 1, 2),
    ("attn.to_v", "to_qkv_mlp", 2, 3),
    ("proj_mlp", "to_qkv_mlp", 3, 7),
    ("proj_out", "proj_out", 0, 1),
    ("norm.linear", "norm.linear", 0, 3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Some rows of one linear's output."""

    module: str  # such as "blocks.3.attn.a_to_qkv"
    inputs: int
    outputs: int  # of the whole linear
    first: int  # row
    end: int  # row after the last

    @property
    def rows(self) -> int:
        """Rows that the key's weights change."""
        return self.end - self.first


def linears(shape: FluxShape) -> dict[str, tuple[int, int]]:
    """Every linear of the DiT's blocks that a LoRA may change: module → (inputs, outputs); modulation among them."""
    return {
        target.module: (target.inputs, target.outputs)
        for target in targets(shape).values()
        if target.rows == target.outputs
    }


def targets(shape: FluxShape) -> dict[str, Target]:
    """Every name of every target, dots and underscores made one."""
    return {_plain(name): target for name, target in _named(shape)}


def read_key(key: str) -> tuple[str, str] | None:
    """A tensor's key → (the target's name, its role: down, up or alpha); None for a key that is none of these."""
    found = _PARTS.search(key)
    if found is None:
        return None
    role = ALPHA if found["alpha"] else _ROLES[found["part"]]
    return _plain(_PREFIXES.sub("", key[: found.start()])), role


def is_of_text_encoder(key: str) -> bool:
    """Whether a key changes CLIP or T5, which Kiln leaves as they are."""
    return _TEXT.match(key) is not None


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _named(shape: FluxShape) -> Iterator[tuple[str, Target]]:
    dim = shape.dim
    for block in range(shape.joint_blocks):
        whole = {}
        for ours, inputs, outputs, theirs in _JOINT:
            for stream, other in (("a", "img"), ("b", "txt")):
                name = ours.format(stream)
                whole[name] = _whole(f"blocks.{block}.{name}", inputs * dim, outputs * dim)
                yield f"blocks.{block}.{name}", whole[name]
                yield f"double_blocks.{block}.{theirs.format(other)}", whole[name]
        for theirs, name, first, end in _DIFFUSERS_JOINT:
            yield f"transformer_blocks.{block}.{theirs}", _rows(whole[name], first * dim, end * dim)
    for block in range(shape.single_blocks):
        whole = {}
        for name, inputs, outputs, theirs in _SINGLE:
            whole[name] = _whole(f"single_blocks.{block}.{name}", inputs * dim, outputs * dim)
            yield f"single_blocks.{block}.{name}", whole[name]
            yield f"single_blocks.{block}.{theirs}", whole[name]
        for theirs, name, first, end in _DIFFUSERS_SINGLE:
            yield f"single_transformer_blocks.{block}.{theirs}", _rows(whole[name], first * dim, end * dim)


def _whole(module: str, inputs: int, outputs: int) -> Target:
    return Target(module=module, inputs=inputs, outputs=outputs, first=0, end=outputs)


def _rows(target: Target, first: int, end: int) -> Target:
    return Target(module=target.module, inputs=target.inputs, outputs=target.outputs, first=first, end=end)
