"""LoRAs by name as the branches that a model wears: read when they are asked for, the last set kept.

A model without an engine wears them merged into its weights for the length of a picture. Lives on the GPU thread.
Knows no plan and no card.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from gen.errors import InvalidRequest
from gen.lora import Branches, Lora, combine, read_lora
from gen.message import msg
from gen.request import LoraUse
from gen.weight_file import sha256
from gen.weights import FluxShape

log = logging.getLogger(__name__)
State = tuple[int, int]  # a file's time of change in ns, and its bytes


class LoraShelf:
    """One folder's LoRAs for one model."""

    def __init__(self, folder: Path, shape: FluxShape) -> None:
        self._folder, self._shape = folder, shape
        self._last: tuple[tuple[tuple[LoraUse, State], ...], Branches | None] = ((), None)
        self._sums: dict[tuple[str, State], str] = {}
        self._told: set[tuple[str, State]] = set()  # files of which the log has what is left out

    def branches(self, uses: tuple[LoraUse, ...]) -> Branches | None:
        """What these LoRAs do together, None for none; the same object as long as set and files are the same.

        Raise InvalidRequest for a LoRA that is not there or does not fit.
        """
        wanted = tuple((use, self._state(use.name)) for use in uses)
        if wanted != self._last[0]:
            self._last = ((), None)  # its memory first
            loras = [(self._read(use.name, state), use.strength) for use, state in wanted]
            self._last = (wanted, combine(loras, self._shape) if loras else None)
        return self._last[1]

    def _read(self, name: str, state: State) -> Lora:
        lora = read_lora(self._folder, name, self._shape)
        if lora.left_out and (name, state) not in self._told:
            self._told.add((name, state))
            log.info("What the LoRA %s has for the text encoders is not used; tensors: %d", name, lora.left_out)
        return lora

    def sha256(self, name: str) -> str:
        """Hex digest of a LoRA's file, computed once for each state of it."""
        key = name, self._state(name)
        if key not in self._sums:
            self._sums[key] = sha256(self._folder / f"{name}.safetensors")
        return self._sums[key]

    def _state(self, name: str) -> State:
        try:
            status = (self._folder / f"{name}.safetensors").stat()
        except OSError as error:
            raise InvalidRequest(msg("There is no LoRA named {name!r}."), name=name) from error
        return status.st_mtime_ns, status.st_size


@contextmanager
def merged(dit: nn.Module, branches: Branches | None) -> Iterator[None]:
    """Let a model's linears be what they are with these branches; afterwards they are the very tensors of before."""
    usual = {}
    try:
        for module, (down, up) in (branches or {}).items():
            weight = dit.get_submodule(module).weight
            assert isinstance(weight, nn.Parameter)
            if up.any():
                usual[module] = weight.data
                weight.data = weight.data + (up.float() @ down.float()).to(weight)
        yield
    finally:
        for module, tensor in usual.items():
            dit.get_submodule(module).weight.data = tensor
