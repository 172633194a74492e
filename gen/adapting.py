"""LoRA branches as entries that travel beside their blocks: laid out once a rank, refilled when the set changes.

Knows no files of LoRAs (`gen.lora` does), no plan and no card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gen.flux_sources import LISTS
from gen.streaming.arena import Arena, Entry, Layout, host_buffer, lay_out

Branches = Mapping[str, tuple[Tensor, Tensor]]  # DiffSynth's module → down (rank, in), up (out, rank)


def entry_of(module: str) -> tuple[str, str]:
    """The arena's entry in which a linear lies, and the linear's name there."""
    kind, index, name = module.split(".", 2)
    if kind not in LISTS:
        raise ValueError(f"{module} is in no block")
    if name.startswith("norm"):
        return f"modulation.{module}", ""
    return f"dit.{kind}.{index}", name


def lay_out_branches(branches: Branches, dtype: torch.dtype) -> Arena:
    """An arena of empty entries for these branches; equal layouts are one object."""
    shapes: dict[str, list[tuple[str, torch.dtype, tuple[int, ...]]]] = {}
    for module, (down, up) in branches.items():
        entry, name = entry_of(module)
        prefix = f"{name}." if name else ""
        shapes.setdefault(entry, []).extend(
            (f"{prefix}{side}", dtype, tuple(tensor.shape)) for side, tensor in (("down", down), ("up", up))
        )
    known: dict[Layout, Layout] = {}
    layouts = {name: known.setdefault(layout, layout) for name, layout in _laid_out(shapes.items())}
    return Arena(Entry(name=name, layout=layout, host=host_buffer(layout.size)) for name, layout in layouts.items())


def fill(arena: Arena, branches: Branches) -> None:
    """Write the branches' values into their entries; nothing may be reading them."""
    views = {name: entry.layout.views(entry.host) for name, entry in arena.entries.items()}
    for module, pair in branches.items():
        entry, name = entry_of(module)
        prefix = f"{name}." if name else ""
        for side, tensor in zip(("down", "up"), pair, strict=True):
            views[entry][f"{prefix}{side}"].copy_(tensor)


def _laid_out(
    shapes: Iterable[tuple[str, list[tuple[str, torch.dtype, tuple[int, ...]]]]],
) -> Iterable[tuple[str, Layout]]:
    return ((name, lay_out(parts)) for name, parts in shapes)
