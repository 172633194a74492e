"""What of a FLUX model goes into its arena, entry by entry, in the order in which pictures need it.

    t5.0 …  clip  modulation.blocks.0.norm1_a.linear …  dit  dit.blocks.0 …  dit.single_blocks.0 …  vae_decoder

and t5's norm and token table, which are no visitors. Modulation linears are no part of their blocks: they are visited
once a picture. Knows parts of a model as modules without memory and their checkpoints; no DiffSynth, no card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gen.checkpoint import Checkpoint
from gen.modulation import Source as ModulationSource
from gen.streaming.arena import FLOAT8, Layout, layout_of
from gen.streaming.packing import Source
from gen.streaming.sizes import Precision

LISTS = ("blocks", "single_blocks")  # of the DiT
_MODULATION = {"blocks": ("norm1_a.linear", "norm1_b.linear"), "single_blocks": ("norm.linear",)}
_STORED = {Precision.FLOAT8: FLOAT8, Precision.BFLOAT16: torch.bfloat16}
_T5_TOKENS = "encoder.embed_tokens.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A model before its weights: modules on the meta device, and where their tensors are."""

    dit: nn.Module
    clip: nn.Module
    t5: nn.Module
    vae_encoder: nn.Module
    vae_decoder: nn.Module
    checkpoints: Mapping[str, Checkpoint]  # by the field's name


def stored_dtype(precision: Precision | None, wide: torch.dtype) -> torch.dtype:
    """The dtype of linear layers' weights; without a precision they are what everything else is."""
    return wide if precision is None else _STORED[precision]


def dit_names(dit: nn.Module) -> list[str]:
    """Entries of the DiT's blocks in the order of a step."""
    return [f"dit.{kind}.{index}" for kind in LISTS for index in range(len(dit.get_submodule(kind)))]  # type: ignore[arg-type]


def t5_names(t5: nn.Module) -> list[str]:
    """Entries of T5's layers in order."""
    return [f"t5.{index}" for index in range(len(t5.get_submodule("encoder.block")))]  # type: ignore[arg-type]


def modulation_sources(dit: nn.Module) -> list[ModulationSource]:
    """For each block in order, the entries that make its modulation."""
    found = []
    for kind in LISTS:
        for index, block in enumerate(dit.get_submodule(kind).children()):
            width = sum(block.get_submodule(name).out_features for name in _MODULATION[kind])  # type: ignore[misc]
            names = tuple(f"modulation.{kind}.{index}.{name}" for name in _MODULATION[kind])
            found.append(ModulationSource(entries=names, width=width))
    return found


def flux_sources(parts: Parts, *, stored: torch.dtype, wide: torch.dtype) -> Iterator[Source]:
    """Every entry of the arena; raise WeightsMissing if a checkpoint does not fit its module."""
    for name, checkpoint in parts.checkpoints.items():
        checkpoint.check(getattr(parts, name))
    yield from _t5_sources(parts, stored=stored, wide=wide)
    yield _whole(parts, "clip", wide)
    yield from _modulation_sources(parts, wide=wide)
    yield from _dit_sources(parts, stored=stored, wide=wide)
    yield _whole(parts, "vae_decoder", wide)
    yield _whole(parts, "vae_encoder", wide)


def _whole(parts: Parts, name: str, wide: torch.dtype) -> Source:
    layout = layout_of(getattr(parts, name), stored=wide, wide=wide)
    return Source(name=name, layout=layout, read=parts.checkpoints[name].reader())


def _t5_sources(parts: Parts, *, stored: torch.dtype, wide: torch.dtype) -> Iterator[Source]:
    read = parts.checkpoints["t5"]
    layers = list(parts.t5.get_submodule("encoder.block").children())
    first, others = (layout_of(layer, stored=stored, wide=wide) for layer in (layers[0], layers[-1]))
    for index in range(len(layers)):
        layout = others if index else first  # the first layer has the position bias besides
        yield Source(name=f"t5.{index}", layout=layout, read=read.reader(f"encoder.block.{index}."))
    tokens = layout_of(parts.t5, stored=wide, wide=wide, skip=lambda name: name != _shared(parts.t5))
    yield Source(name="t5.tokens", layout=tokens, read=read.reader())
    norm = layout_of(parts.t5, stored=wide, wide=wide, skip=lambda name: "final_layer_norm" not in name)
    yield Source(name="t5", layout=norm, read=read.reader())


def _shared(t5: nn.Module) -> str:
    """The name under which T5's one token table is listed; it is known by two."""
    return next(name for name, _ in t5.named_parameters() if name in ("shared.weight", _T5_TOKENS))


def _modulation_sources(parts: Parts, *, wide: torch.dtype) -> Iterator[Source]:
    """Modulation stays wide, unless the checkpoint has it in eight bits: more would be bytes without content."""
    read, layouts = parts.checkpoints["dit"], dict[tuple[str, bool], Layout]()
    for kind in LISTS:
        for index, block in enumerate(parts.dit.get_submodule(kind).children()):
            for name in _MODULATION[kind]:
                path = f"{kind}.{index}.{name}"
                narrow = read.is_float8(f"{path}.weight")
                if (name, narrow) not in layouts:
                    linear = block.get_submodule(name)
                    layouts[name, narrow] = layout_of(linear, stored=FLOAT8 if narrow else wide, wide=wide)
                yield Source(name=f"modulation.{path}", layout=layouts[name, narrow], read=read.reader(f"{path}."))


def _dit_sources(parts: Parts, *, stored: torch.dtype, wide: torch.dtype) -> Iterator[Source]:
    read = parts.checkpoints["dit"]
    rest = layout_of(parts.dit, stored=wide, wide=wide, skip=_starts(tuple(f"{kind}." for kind in LISTS)))
    yield Source(name="dit", layout=rest, read=read.reader())
    for kind in LISTS:
        blocks = list(parts.dit.get_submodule(kind).children())
        hoisted = tuple(f"{name}." for name in _MODULATION[kind])
        layout = layout_of(blocks[0], stored=stored, wide=wide, skip=_starts(hoisted))
        for index in range(len(blocks)):
            yield Source(name=f"dit.{kind}.{index}", layout=layout, read=read.reader(f"{kind}.{index}."))


def _starts(prefixes: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefixes)
