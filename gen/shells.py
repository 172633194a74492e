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

from gen.flux_blocks import Adapter, Block, Operands, Streams
from gen.modulation import Modulation
from gen.streaming.slots import Slots


class Handoff:
    """What a block has made ready for the next one, which takes it if it is given the very tensors of the last.

    Whatever stands between two blocks, a ControlNet say, gives others, or the same with another version.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[Tensor, ...], list[int], Operands] | None = None

    def leave(self, streams: Streams, operands: Operands) -> None:
        """Keep this for the next block, unless nothing would tell that the streams were changed."""
        if not any(tensor.is_inference() for tensor in streams):
            self._kept = streams, [tensor._version for tensor in streams], operands

    def take(self, streams: Streams) -> Operands | None:
        """What was left for these streams; whatever it was, it is let go."""
        kept, self._kept = self._kept, None
        if kept is None or any(one is not other for one, other in zip(kept[0], streams, strict=True)):
            return None
        return kept[2] if kept[1] == [tensor._version for tensor in streams] else None

    def forget(self) -> None:
        """Let go of what nobody came for."""
        self._kept = None


class FluxShell(nn.Module):
    """Block `index` of a DiT: the arena's entry `name` and its row of the modulation, through one block function."""

    def __init__(  # noqa: PLR0913
        self,
        index: int,
        name: str,
        *,
        block: Block,
        is_last: bool,
        slots: Slots,
        modulation: Modulation,
        handoff: Handoff,
    ) -> None:
        """`is_last`: no other of its kind follows."""
        super().__init__()
        self._index, self._name, self._slots, self._modulation = index, name, slots, modulation
        self._following, self._handoff = index if is_last else index + 1, handoff
        self.block = block  # replaced where sums must be exact

    def forward(
        self,
        hidden_states: Tensor,
        prompt_emb: Tensor,
        conditioning: Tensor,
        image_rotary_emb: Tensor,
        attn_mask: Tensor | None = None,
        ipadapter_kwargs_list: Adapter = None,
    ) -> Streams:
        """As DiffSynth calls its blocks; the conditioning is used only where no table was prepared."""
        row, following = (self._modulation.row(index, conditioning) for index in (self._index, self._following))
        streams = hidden_states, prompt_emb
        operands = self._handoff.take(streams)
        with self._slots.visit(self._name) as weights:
            operands = operands or self.block.begin(weights, streams, row)
            streams, operands = self.block.run(
                weights, streams, operands, row, following, image_rotary_emb, attn_mask, ipadapter_kwargs_list
            )
        if self._following != self._index:
            self._handoff.leave(streams, operands)
        return streams


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
