"""Training steps as CUDA graphs: what a step launches is recorded once and then replayed with a single call.

The demo model's steps are many small kernels, bound by Python and launches rather than by arithmetic. A step holds
all of it: drawing a batch, forward, backward, clipping, optimizer and average. Several processes average gradients
through NCCL and stay with the plain function, as does a CPU. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from gen.demo import parallel
from gen.demo.report import Log

WARM_UP = 2  # plain calls of each kind of step before its capture: they load kernels and make what lasts
Figures = dict[str, Tensor]


class Graphed:
    """A function of one hashable kind, called with many kinds; every kind has its graph, all graphs share memory.

    The function reads and writes tensors that outlive it, draws only from the device's default generator, and never
    waits for the device. It returns detached figures, which hold until the next call of the same kind.
    """

    def __init__(
        self,
        step: Callable[[Any], Figures],
        *,
        stage: str,
        device: torch.device,
        log: Log,
        graphs: bool = True,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Before `ready` nothing is captured: so long other threads may use the device's generator and launch."""
        self._step, self._stage, self._log, self._ready = step, stage, log, ready
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._wanted = graphs and can_capture(device)
        self._pool = torch.cuda.graph_pool_handle() if self._wanted else None
        self._calls: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Figures]] = {}

    def __call__(self, kind: Any) -> Figures:
        """Do one step."""
        if kind not in self._graphs and self._wanted and self._calls.get(kind, 0) >= WARM_UP and self._ready():
            self._capture(kind)
        if kind in self._graphs:
            graph, figures = self._graphs[kind]
            graph.replay()
            return figures
        self._calls[kind] = self._calls.get(kind, 0) + 1
        return self._plainly(kind)

    @property
    def captured(self) -> int:
        """How many kinds of step are graphs by now."""
        return len(self._graphs)

    def _plainly(self, kind: Any) -> Figures:
        """On the stream that captures, so that autograd and the libraries keep their places there."""
        if self._stream is None:
            return self._step(kind)
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            figures = self._step(kind)
        here.wait_stream(self._stream)
        return figures

    def _capture(self, kind: Any) -> None:
        """Record the step without doing it; where that fails, say so and go on without graphs."""
        assert self._stream is not None
        here = torch.cuda.current_stream(self._stream.device)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, self._pool, self._stream, "thread_local")
        try:
            with torch.cuda.stream(here), recording:  # the outer one leads back here also from a capture that failed
                figures = self._step(kind)
        except RuntimeError as error:
            self._give_up(kind, error)
            return
        self._graphs[kind] = (graph, figures)

    def _give_up(self, kind: Any, error: RuntimeError) -> None:
        assert self._stream is not None
        self._wanted = False
        self._graphs.clear()
        torch.cuda.synchronize(self._stream.device)
        generator = torch.cuda.default_generators[self._stream.device.index]
        generator.graphsafe_set_state(generator.clone_state())  # a broken capture leaves it waiting for the end
        cause = error.__context__ or error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        self._log.add(self._stage, kind=str(kind), uncaptured=reason[:300])


def can_capture(device: torch.device) -> bool:
    """Whether steps on this device can be graphs."""
    return device.type == "cuda" and parallel.world() == 1
