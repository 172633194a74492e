"""LoRA files: read, checked against the model's shape, and joined to one low-rank side branch for each linear.

A branch adds up (out, R) · down (R, in) to a linear's weight, scaled by strength and alpha / rank. All branches of a
set have one rank R out of a few, so that changing LoRAs changes no shapes. Users give names, never paths. Knows no
engine and no card; `gen.lora_names` knows whose key means what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gen.errors import InvalidRequest
from gen.lora_index import list_loras
from gen.lora_names import ALPHA, DOWN, ENDS, UP, Target, is_of_text_encoder, linears, read_key, targets
from gen.message import Message, msg
from gen.request import LORA_STRENGTH_MAX, is_lora_name
from gen.weight_file import doubled_name
from gen.weights import FluxShape

RANKS = (16, 32, 64, 128, 256, 512)  # what a set's rank is padded to
FILE_MAX_BYTES = 4 * 2**30
KEYS_MAX = 10_000
NUMBER_MAX = torch.finfo(torch.bfloat16).max / LORA_STRENGTH_MAX  # so that it fits at every strength
STORED = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # safetensors' names of what a matrix may be made of
Branches = dict[str, tuple[Tensor, Tensor]]  # module → down (R, in), up (out, R), in bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one pair of a file's tensors does."""

    target: Target
    down: Tensor  # (rank, in), as stored
    up: Tensor  # (rows, rank), as stored
    scale: float  # alpha / rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """One file, known to fit the model."""

    name: str
    pieces: tuple[Piece, ...]
    left_out: int  # tensors for the text encoders, which are not used


def read_lora(folder: Path, name: str, shape: FluxShape) -> Lora:
    """Read the LoRA of that name; raise InvalidRequest for a name that is none, or a file that does not fit."""
    if not is_lora_name(name) or name not in list_loras(folder):
        raise InvalidRequest(msg("There is no LoRA named {name!r}."), name=name[:80])
    path = folder / f"{name}.safetensors"
    if path.stat().st_size > FILE_MAX_BYTES:
        raise InvalidRequest(
            msg("The LoRA {name} has {value:,} bytes; {most:,} is the most."),
            name=name,
            value=path.stat().st_size,
            most=FILE_MAX_BYTES,
        )
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            if not 0 < len(keys) <= KEYS_MAX:
                raise _unfit(
                    name, msg("it has {value:,} tensors, 1 to {most:,} are possible"), value=len(keys), most=KEYS_MAX
                )
            if twice := doubled_name(path):
                raise _unfit(name, msg("its header has the key {key!r} twice"), key=twice[:120])
            parts = _sort(name, keys, targets(shape))
            pieces = tuple(
                _piece(name, target, {role: (key, _tensor(name, file, role, key)) for role, key in roles.items()})
                for target, roles in parts.values()
            )
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(msg("The LoRA {name} is damaged, or not a safetensors file."), name=name) from error
    if not pieces:
        raise _unfit(name, msg("it changes the text encoders alone"))
    return Lora(name=name, pieces=pieces, left_out=sum(map(is_of_text_encoder, keys)))


def combine(loras: Sequence[tuple[Lora, float]], shape: FluxShape, *, rank: int | None = None) -> Branches:
    """One branch for each linear of every block from LoRAs with their strengths; zeros where no LoRA has any.

    `rank` is the smallest of RANKS that holds the sum of the LoRAs' ranks unless it is given. Raise InvalidRequest for
    a strength outside ±4, or ranks that are more than `rank` or 512 together.
    """
    for lora, strength in loras:
        if not -LORA_STRENGTH_MAX <= strength <= LORA_STRENGTH_MAX:  # false for NaN too
            raise InvalidRequest(
                msg("The strength of {name} is {least:g} to {most:g}; it is {value:g}."),
                name=lora.name,
                least=-LORA_STRENGTH_MAX,
                most=LORA_STRENGTH_MAX,
                value=strength,
            )
    by_module: dict[str, list[tuple[Piece, float]]] = {}
    for lora, strength in loras:
        for piece in lora.pieces:
            by_module.setdefault(piece.target.module, []).append((piece, strength))
    needed = max((sum(len(piece.down) for piece, _ in pieces) for pieces in by_module.values()), default=0)
    width = bucket(needed) if rank is None else rank
    if needed > width:
        raise InvalidRequest(
            msg("These LoRAs have rank {value:,} together; there is room for {most}."), value=needed, most=width
        )
    none: dict[tuple[int, int], Tensor] = {}
    return {
        module: _join(by_module[module], size, width) if module in by_module else _zeros(none, size, width)
        for module, size in linears(shape).items()
    }


def bucket(rank: int) -> int:
    """The smallest of RANKS that holds `rank`; raise InvalidRequest for more than the largest."""
    found = next((size for size in RANKS if size >= rank), None)
    if found is None:
        raise InvalidRequest(
            msg("These LoRAs have rank {value:,} together; {most} is the most."), value=rank, most=RANKS[-1]
        )
    return found


def _sort(name: str, keys: Sequence[str], known: Mapping[str, Target]) -> dict[str, tuple[Target, dict[str, str]]]:
    """The file's keys by what they change: target's name → target, role → key. The first that fits nothing is told."""
    parts: dict[str, tuple[Target, dict[str, str]]] = {}
    for key in keys:
        if is_of_text_encoder(key):
            continue
        found = read_key(key)
        if found is None:
            raise _unfit(name, msg("its key {key!r} ends in none of {wanted}"), key=key[:120], wanted=", ".join(ENDS))
        target = known.get(found[0])
        if target is None:
            text = msg("its key {key!r} is for no linear layer of the model's blocks, and only those can be changed")
            raise _unfit(name, text, key=key[:120])
        roles = parts.setdefault(found[0], (target, {}))[1]
        if found[1] in roles:
            raise _unfit(
                name,
                msg("its keys {first!r} and {second!r} are the same thing"),
                first=roles[found[1]][:120],
                second=key[:120],
            )
        roles[found[1]] = key
    return parts


def _tensor(name: str, file: Any, role: str, key: str) -> Tensor:
    """One tensor of an open file, which is not read at all unless it is made of usable numbers."""
    wanted = (*STORED, "I64", "I32") if role == ALPHA else STORED  # some trainers' alpha is an integer
    if (found := file.get_slice(key).get_dtype()) not in wanted:
        text = msg("its key {key!r} is stored as {value}, and should be one of {wanted}")
        raise _unfit(name, text, key=key[:120], value=found, wanted=", ".join(wanted))
    tensor: Tensor = file.get_tensor(key)
    return tensor


def _piece(name: str, target: Target, tensors: Mapping[str, tuple[str, Tensor]]) -> Piece:
    """One pair of tensors, checked: shapes, rank, values."""
    first = next(iter(tensors.values()))[0]
    if DOWN not in tensors or UP not in tensors:
        raise _unfit(name, msg("its key {key!r} has no counterpart"), key=first[:120])
    (down_key, down), (up_key, up) = tensors[DOWN], tensors[UP]
    rank = down.shape[0] if down.dim() == 2 else 0
    for key, tensor, expected in ((down_key, down, (rank, target.inputs)), (up_key, up, (target.rows, rank))):
        if not 0 < rank <= RANKS[-1] or tuple(tensor.shape) != expected:
            wanted = str(expected) if 0 < rank <= RANKS[-1] else f"(1 to {RANKS[-1]}, {target.inputs})"
            text = msg("its key {key!r} is {value}, and should be {wanted}")
            raise _unfit(name, text, key=key[:120], value=str(tuple(tensor.shape)), wanted=wanted)
    scale = _scale(name, tensors.get(ALPHA), rank)
    _check_values(name, down_key, down)
    largest = _check_values(name, up_key, up) * abs(scale)  # as in `_join`
    if largest > NUMBER_MAX:
        raise _too_large(name, tensors[ALPHA][0], largest)
    return Piece(target=target, down=down, up=up, scale=scale)


def _check_values(name: str, key: str, tensor: Tensor) -> float:
    """The largest of a tensor's values, without sign, which are known to fit bfloat16."""
    wide = tensor if tensor.dtype is torch.float64 else tensor.float()
    largest = float(wide.abs().max())  # NaN if any is
    if not math.isfinite(largest):
        raise _unfit(name, msg("its key {key!r} has values that are no finite numbers"), key=key[:120])
    if largest > NUMBER_MAX:
        raise _too_large(name, key, largest)
    return largest


def _too_large(name: str, key: str, value: float) -> InvalidRequest:
    text = msg("its key {key!r} makes numbers of up to {value:.3g}; {most:.3g} fit bfloat16 at every strength")
    return _unfit(name, text, key=key[:120], value=value, most=NUMBER_MAX)


def _scale(name: str, alpha: tuple[str, Tensor] | None, rank: int) -> float:
    if alpha is None:
        return 1.0
    key, value = alpha
    if value.numel() != 1 or not math.isfinite(float(value)):
        raise _unfit(name, msg("its key {key!r} is not one finite number"), key=key[:120])
    if abs(float(value)) > NUMBER_MAX:
        raise _too_large(name, key, abs(float(value)))
    return float(value) / rank


def _join(pieces: Sequence[tuple[Piece, float]], size: tuple[int, int], rank: int) -> tuple[Tensor, Tensor]:
    """Stack pieces along the rank: down on down, up beside up, each up in the rows that it changes."""
    down, up = torch.zeros(rank, size[0]), torch.zeros(size[1], rank)
    place = 0
    for piece, strength in pieces:
        end, target = place + len(piece.down), piece.target
        down[place:end] = piece.down
        up[target.first : target.end, place:end] = piece.up.float() * (strength * piece.scale)
        place = end
    return down.bfloat16(), up.bfloat16()


def _zeros(none: dict[tuple[int, int], Tensor], size: tuple[int, int], rank: int) -> tuple[Tensor, Tensor]:
    """A branch that does nothing; branches of one size share their memory."""
    return tuple(
        none.setdefault(shape, torch.zeros(shape, dtype=torch.bfloat16)) for shape in ((rank, size[0]), (size[1], rank))
    )  # type: ignore[return-value]


def _unfit(name: str, why: str, **values: object) -> InvalidRequest:
    """`why` is a text of its own, marked, with its values."""
    return InvalidRequest(msg("The LoRA {name} does not fit this model: {why}."), name=name, why=Message(why, **values))
