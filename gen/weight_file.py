"""One safetensors file: its tensors' names and shapes, how they are stored, its digest.

No tensor is ever read, and torch is not needed. Does not know what a model is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from gen.errors import WeightsMissing

SCALES = (".scale_weight", ".weight_scale")  # how float8 checkpoints name the scale of `X.weight`
Shapes = dict[str, tuple[int, ...]]
_PIECE = 8 * 2**20
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch's archives, and bare ones


def read_shapes(path: Path) -> Shapes:
    """The tensors of a safetensors file: name -> shape. No tensor is loaded.

    Raise WeightsMissing when the file is missing, not safetensors, shorter or longer than its header says, or has two
    tensors of one name.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        twice = doubled_name(path)
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        if _is_pickle(path):
            raise WeightsMissing(
                f"{path} is a pickle, whatever its name says: reading one can run code. Kiln takes safetensors only."
            ) from error
        raise WeightsMissing(f"{path} is damaged, or not a safetensors file: {error}.") from error
    if twice:
        raise WeightsMissing(f"{path} is damaged: its header has the key {twice[:120]!r} twice.")
    return shapes


def doubled_name(path: Path) -> str | None:
    """The first name that a whole safetensors file's header has twice: readers differ in which they take."""
    doubled: list[str] = []

    def read(pairs: list[tuple[str, object]]) -> dict[str, object]:
        doubled[:] = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        return dict(pairs)  # the outermost is read last, and its names are tensors'

    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=read)
    return next(iter(doubled), None)


def stored_as(path: Path) -> str:
    """How a checkpoint's linear layers are stored: bfloat16, float16, float32, float8, or float8 with scales.

    Told by most of the bytes. Raise WeightsMissing as `read_shapes` does.
    """
    read_shapes(path)
    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        sizes: dict[str, int] = {}
        for tensor in map(file.get_slice, names):
            sizes[tensor.get_dtype()] = sizes.get(tensor.get_dtype(), 0) + math.prod(tensor.get_shape())
    kind = max(sizes, key=sizes.__getitem__, default="")
    if kind.startswith("F8"):
        return "float8 with scales" if any(name.endswith(SCALES) for name in names) else "float8"
    return {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(kind, kind)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes; raise WeightsMissing when it cannot be read."""
    return digest(path, lambda _: None)


def digest(path: Path, progress: Callable[[int], object]) -> str:
    """As `sha256`, telling `progress` of each piece that was read, in bytes."""
    counted = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                counted.update(piece)
                progress(len(piece))
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror}.") from error
    return counted.hexdigest()


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(2).startswith(_PICKLES)
