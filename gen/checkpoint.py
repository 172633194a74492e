"""A part of a model in its safetensors files: tensors by the names that the module gives them, one at a time.

A file is opened for each tensor and closed with it, so that a 24 GB checkpoint never stands in memory. Converters of
names are passed in. Knows no model and no card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gen.errors import WeightsMissing
from gen.weight_file import SCALES

_UNUSED = (".scale_input", ".input_scale", "scaled_fp8")  # activation scales, and a mark
Convert = Callable[[Any], Any]


class _Key(str):
    """A key that passes through converters of whole tensors."""

    __slots__ = ()
    shape = (0, 0)

    def reshape(self, *_: object) -> Self:
        return self


class Checkpoint:
    """Reads the tensors of one part."""

    def __init__(self, files: Iterable[Path], convert: Convert) -> None:
        self._where: dict[str, Path] = {}
        for path in files:
            with _opened(path) as file:
                self._where.update(dict.fromkeys(file.keys(), path))
        self._first = next(iter(self._where.values()))
        self._scales = {f"{_stem(key)}.weight": key for key in self._where if key.endswith(SCALES)}
        plain = [key for key in self._where if not key.endswith((*SCALES, *_UNUSED))]
        try:
            self._keys: dict[str, str] = dict(convert({key: _Key(key) for key in plain}))
        except KeyError as error:
            raise WeightsMissing(
                f"{self._first} does not fit the model's shape: it has unknown tensors {error}."
            ) from None

    def check(self, module: nn.Module) -> None:
        """Raise WeightsMissing unless the files hold each of the module's parameters, and nothing unknown."""
        wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(remove_duplicate=False)}
        if missing := [name for name in wanted if name not in self._keys]:
            raise WeightsMissing(f"{self._first} does not fit the model's shape: it lacks {missing[0]}.")
        if unknown := [name for name in self._keys if name not in wanted]:
            raise WeightsMissing(f"{self._first} does not fit the model's shape: it has {unknown[0]} besides.")

    def is_float8(self, name: str) -> bool:
        """True if the tensor is stored in eight bits."""
        with _opened(self._where[self._keys[name]]) as file:
            return str(file.get_slice(self._keys[name]).get_dtype()).startswith("F8")

    def reader(self, prefix: str = "") -> Callable[[str], Tensor]:
        """What reads tensors by their names after `prefix`; `X.scale` is a float8 weight's own scale, else KeyError."""
        return lambda name: self.read(prefix + name)

    def read(self, name: str) -> Tensor:
        """One tensor in its dtype on disk; raise KeyError if there is none, WeightsMissing if it cannot be read."""
        key = (
            self._scales[self._keys[f"{_stem(name)}.weight"]]
            if name.rpartition(".")[2] == "scale"
            else self._keys[name]
        )
        path = self._where[key]
        with _opened(path) as file:
            try:
                tensor: Tensor = file.get_tensor(key)
            except (SafetensorError, RuntimeError) as error:
                raise WeightsMissing(f"{path} cannot be loaded: {error}.") from error
        return tensor


def _stem(key: str) -> str:
    return key.rpartition(".")[0]


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(f"{path} cannot be loaded: {error}.") from error
