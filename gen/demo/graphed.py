"""Training steps as CUDA graphs: a small model's step is hundreds of launches that cost more than what they launch.

A step is captured whole, once for each shapes of its inputs, and then replayed. Knows no model and no loss.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gen.demo import parallel
from gen.demo.report import Log

WARM_UP = 3  # direct steps for each shape: kernels are compiled and chosen, the optimizer's moments made
Key = tuple[tuple[torch.Size, torch.dtype], ...]


class Graphed:
    """A training step, tensors → figures, that is replayed from the fourth call with the same shapes on.

    Every call is one step: the first ones are direct. The step must clear its gradients itself, read nothing on the
    host, and find what changes between calls in its inputs or in tensors that are filled in place (the learning
    rate). Random numbers may come from the card's own generator. Without a card, with several processes, or after a
    capture failed, every call is direct. One thread only; no other thread may wait for the whole card meanwhile.
    """

    def __init__(self, step: Callable[..., Tensor], *, log: Log) -> None:
        self._step, self._log = step, log
        self._calls: Counter[Key] = Counter()
        self._captured: dict[Key, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}
        self._works = torch.cuda.is_available() and parallel.world() == 1
        if self._works:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step; the figures are the caller's own."""
        if not (self._works and inputs[0].is_cuda):
            return self._step(*inputs)
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self._calls[key] += 1
        if self._calls[key] <= WARM_UP:
            return self._beside(inputs)
        if key not in self._captured and not self._capture(key, inputs):
            return self._step(*inputs)
        graph, held, figures = self._captured[key]
        for place, tensor in zip(held, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return figures.clone()  # the graphs share their memory: the next one may write where these figures are

    def _beside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """A direct step on the stream that will be captured, where autograd must not have met another one."""
        before = torch.cuda.current_stream()
        self._side.wait_stream(before)
        with torch.cuda.stream(self._side):
            figures = self._step(*inputs)
        before.wait_stream(self._side)
        return figures

    def _capture(self, key: Key, inputs: tuple[Tensor, ...]) -> bool:
        """Record a step, running nothing; whether that worked."""
        graph, held = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
                figures = self._step(*held)
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on without graphs
            torch.cuda.set_stream(before)  # torch leaves its own where ending the capture fails
            self._give_up(error)
            return False
        self._captured[key] = graph, held, figures
        return True

    def _give_up(self, error: Exception) -> None:
        self._works = False
        self._captured.clear()
        cause: BaseException = error  # "capture invalidated" says nothing; what invalidated it came first
        while cause.__context__ is not None:
            cause = cause.__context__
        place = traceback.extract_tb(cause.__traceback__)[-1]
        told = (str(cause).splitlines() or [""])[0]
        self._log.add(
            "graphs", error=f"{type(cause).__name__}: {told}", at=f"{Path(place.filename).name}:{place.lineno}"
        )
        _free_generator()


def _free_generator() -> None:
    """Give the card's generator a state of its own again: a failed capture leaves it refusing every direct call."""
    device = torch.cuda.current_device()
    fresh = torch.Generator(device=f"cuda:{device}").manual_seed(torch.initial_seed() + 1)
    torch.cuda.default_generators[device].graphsafe_set_state(fresh.graphsafe_get_state())
