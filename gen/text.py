"""Encoded prompts, kept while there is room: drawing a prompt again skips both text encoders.

Bounded in bytes, the least recently used goes first. A prompt of FLUX.1-dev takes 4.2 MB (512 tokens of 4,096 in
bfloat16). Lives on the GPU thread. Knows no encoder: whoever asks names it and brings the function.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

Encoded = tuple[Tensor, ...]


class PromptCache:
    """Encoded prompts in the host's memory; what is returned must not be changed in place."""

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"a cache has 0 bytes or more; it is {limit_bytes}")
        self._limit = limit_bytes
        self._kept: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def encode(self, prompt: str, encoder: str, make: Callable[[], Encoded]) -> Encoded:
        """The prompt as `encoder` encodes it, from `make` if it is not kept; on the device that `make` puts it on.

        `encoder` is all that the result depends on beside the prompt: weights, precision, length, device.
        """
        key = (encoder, prompt)
        if key not in self._kept:
            made = make()
            self._keep(key, made)
            return made
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size_bytes = 0

    def _keep(self, key: tuple[str, str], encoded: Encoded) -> None:
        size = _bytes(encoded)
        if size > self._limit:
            return
        self._kept[key] = encoded
        self.size_bytes += size
        while self.size_bytes > self._limit:
            _, gone = self._kept.popitem(last=False)
            self.size_bytes -= _bytes(gone)


def _bytes(encoded: Encoded) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in encoded)
