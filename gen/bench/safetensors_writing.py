"""Safetensors files larger than the memory: header first, then tensor after tensor. Whole or absent.

The library's own writer wants every tensor at once. The format: eight bytes of length, a JSON header with each
tensor's dtype, shape and place, then the data. Knows no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BYTES = {"BF16": 2, "F8_E4M3": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlan:
    """One tensor of a file."""

    shape: tuple[int, ...]
    dtype: str  # a key of BYTES

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * BYTES[self.dtype]


def header(tensors: Mapping[str, TensorPlan]) -> bytes:
    """The file's beginning, up to the first tensor's data."""
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        end = place + tensor.size
        described[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins on a boundary, as in the library's own files
    return len(text).to_bytes(8, "little") + text


def file_size(tensors: Mapping[str, TensorPlan]) -> int:
    """Bytes of the whole file."""
    return len(header(tensors)) + sum(tensor.size for tensor in tensors.values())


def write(
    path: Path, tensors: Mapping[str, TensorPlan], data: Callable[[str, TensorPlan], Iterable[memoryview]]
) -> None:
    """Write the file; `data` gives each tensor's bytes in pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(header(tensors))
            for name, tensor in tensors.items():
                for piece in data(name, tensor):
                    file.write(piece)
        assert partial.stat().st_size == file_size(tensors), f"{path}: its tensors have other sizes than planned"
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
