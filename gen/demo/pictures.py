"""The training run's pictures: rendered by all cores beside the GPU's work, and moved to the GPU when they are wanted.

Knows the data set, no model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from gen.demo import dataset

Size = tuple[int, int]  # width, height
FIELDS = ("pixels", "labels", "clip_ids", "t5_ids", "stated")


class Pictures:
    """Shards by size, filled by a thread. It leaves the device alone: a step may be being captured there."""

    def __init__(
        self, plan: Sequence[dataset.Task], device: torch.device, *, unseen: Sequence[dataset.Task] = ()
    ) -> None:
        self._planned = Counter((task.width, task.height) for task in plan)
        self._shards: dict[Size, list[dataset.Shard]] = {size: [] for size in self._planned}
        self._unseen: list[dataset.Shard] = []
        self._device = device
        self._rendering = ThreadPoolExecutor(max_workers=1).submit(self._fill, list(plan), list(unseen))

    def _fill(self, plan: list[dataset.Task], unseen: list[dataset.Task]) -> None:
        for task, shard in zip([*plan, *unseen], dataset.render([*plan, *unseen]), strict=True):
            place = self._unseen if task.held_out else self._shards[task.width, task.height]
            place.append(shard)

    def first(self, share: float) -> dict[Size, Tensor]:
        """Pixels of the first `share` of every size, on the device, the same in every run; waits for them."""
        wanted = {size: max(1, int(share * shards)) for size, shards in self._planned.items()}
        while any(len(self._shards[size]) < number for size, number in wanted.items()):
            if self._rendering.done():
                self._rendering.result()
            time.sleep(0.1)
        return {size: self._join(self._shards[size][:n], "pixels") for size, n in wanted.items()}

    def all(self) -> dict[Size, dataset.Shard]:
        """Everything, one shard a size, on the device; waits for the rendering to end. To be asked for once."""
        self._rendering.result()
        return {size: self._whole(self._shards.pop(size)) for size in list(self._shards)}

    def unseen(self) -> list[tuple[Tensor, Tensor]]:
        """Pixels and labels of the pictures that nothing is trained on, on the device; waits for them."""
        self._rendering.result()
        return [(shard.pixels.to(self._device), shard.labels.to(self._device)) for shard in self._unseen]

    def _whole(self, shards: list[dataset.Shard]) -> dataset.Shard:
        return dataset.Shard(**{name: self._join(shards, name) for name in FIELDS})

    def _join(self, shards: list[dataset.Shard], name: str) -> Tensor:
        return torch.cat([getattr(shard, name).to(self._device) for shard in shards])
