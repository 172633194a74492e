"""All steps' modulation in one pass a picture.

What a block's norms are shifted, scaled and gated by depends on the timestep, the guidance and the pooled prompt,
never on the latents. So the linears that make it, 27 % of FLUX's weights, are visited once a picture with one row a
step, and blocks look their row up in a table. Knows no model function, no files and no streams but `Slots.visit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.float8 import exact_linear
from gen.streaming.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The linears of one block whose outputs, side by side, are its modulation."""

    entries: tuple[str, ...]  # names of the arena's entries, each with `weight` and `bias`
    width: int  # of all their outputs together


class Modulation:
    """Tables of modulation, and which row of which table the blocks read now."""

    def __init__(self, sources: Sequence[Source], slots: Slots) -> None:
        self._sources, self._slots = sources, slots
        self._begins = [sum(source.width for source in sources[:index]) for index in range(len(sources) + 1)]
        self._row: Tensor | None = None  # (1, width), the current step's: always in one place, where a graph finds it
        self._rows: Tensor | None = None  # the same, while a table is read
        self._direct: tuple[Tensor, Tensor] | None = None  # the conditioning last seen without a table, and its rows

    def table(self, conditioning: Tensor) -> Tensor:
        """(steps, D) → (steps, width) in the same dtype: every block's modulation at every step."""
        table = conditioning.new_empty(conditioning.shape[0], self._begins[-1])
        active = F.silu(conditioning)
        for source, begin in zip(self._sources, self._begins, strict=False):
            for name in source.entries:
                with self._slots.visit(name) as weights:
                    named = {f".{key}": tensor for key, tensor in weights.items()}
                    made = exact_linear(named, "", active)
                table[:, begin : begin + made.shape[1]] = made
                begin += made.shape[1]
        return table

    @contextmanager
    def at(self, table: Tensor, step: int) -> Iterator[None]:
        """Blocks read row `step` of `table` within this."""
        if self._row is None or self._row.dtype != table.dtype:
            self._row = torch.empty_like(table[:1])
        self._rows = self._row.copy_(table[step : step + 1])
        try:
            yield
        finally:
            self._rows = None

    def row(self, block: int, conditioning: Tensor) -> Tensor:
        """(1, width of the block), or (B, width) computed now where no table was prepared for this call."""
        rows = self._rows
        if rows is None:
            if self._direct is None or self._direct[0] is not conditioning:
                self._direct = conditioning, self.table(conditioning)
            rows = self._direct[1]
        return rows[:, self._begins[block] : self._begins[block + 1]]

    def forget(self) -> None:
        """Let go of what was computed without a table."""
        self._direct = None
