"""What stands in a model's lists of blocks: modules without weights, which run a block when its weights visit.

`FluxShell` has the signature of DiffSynth's FLUX blocks and runs a function. `Guest` is a small model that is on the
card only while it is needed. None knows what DiffSynth or a plan is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gen.flux_blocks import Adapter, Block
from gen.modulation import Modulation
from gen.streaming.slots import Slots


class FluxShell(nn.Module):
    """Block `index` of a DiT: the arena's entry `name` and its row of the modulation, through one block function."""

    def __init__(self, index: int, name: str, *, run: Block, slots: Slots, modulation: Modulation) -> None:
        super().__init__()
        self._index, self._name, self._slots, self._modulation = index, name, slots, modulation
        self.run = run  # replaced where sums must be exact

    def forward(
        self,
        hidden_states: Tensor,
        prompt_emb: Tensor,
        conditioning: Tensor,
        image_rotary_emb: Tensor,
        attn_mask: Tensor | None = None,
        ipadapter_kwargs_list: Adapter = None,
    ) -> tuple[Tensor, Tensor]:
        """As DiffSynth calls its blocks; the conditioning is used only where no table was prepared."""
        row = self._modulation.row(self._index, conditioning)
        with self._slots.visit(self._name) as weights:
            streams = hidden_states, prompt_emb
            return self.run(weights, streams, row, image_rotary_emb, attn_mask, ipadapter_kwargs_list)


class Guest(nn.Module):
    """A small model that is copied to the card as one entry for each call, unless it rests there."""

    def __init__(self, name: str, module: nn.Module, *, slots: Slots) -> None:
        super().__init__()
        self._name, self._slots, self._module = name, slots, (module,)
        for child in module.modules():
            child._parameters.clear()

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Whatever the module's own forward does."""
        with self.here() as module:
            return module(*arguments, **named)

    @contextmanager
    def here(self) -> Iterator[nn.Module]:
        """The module with its weights on the card, for as long as the `with` lasts."""
        with self._slots.host(self._name) as weights:
            for name, tensor in weights.items():
                owner, _, attribute = name.rpartition(".")
                object.__setattr__(self._module[0].get_submodule(owner), attribute, tensor)
            try:
                yield self._module[0]
            finally:
                for name in weights:
                    owner, _, attribute = name.rpartition(".")
                    object.__delattr__(self._module[0].get_submodule(owner), attribute)


class HostEmbedding(nn.Module):
    """A token table that stays with the host: (B, N) ids anywhere → (B, N, width) on `device`."""

    def __init__(self, table: Tensor, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._table, self._device, self._dtype = table, device, dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Look the rows up on the CPU and send them."""
        return nn.functional.embedding(ids.cpu(), self._table).to(self._device, self._dtype)
