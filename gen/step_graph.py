"""One denoising step as a CUDA graph, for a model that rests on the card as a whole.

A step is a thousand kernels. Asked for one by one they take the host half as long as a fast card, with Python's lock
held, and lie apart on the card; recorded once, they are asked for by one call. The second picture of a kind begins with
recording a step, which takes about as long as a step, and replays it; so pictures that are all unlike pay nothing.
Whatever a picture has besides its prompt (a ControlNet, masks, references) is drawn as before. Knows DiffSynth's
model function only by the names of its parameters, and no streams.
"""

from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Model = Callable[..., Tensor]
Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]  # → what each replay writes, and replay
INPUTS = ("latents", "timestep", "prompt_emb", "pooled_prompt_emb", "guidance", "text_ids", "image_ids")
_UNREAD = ("dit", "progress_id", "num_inference_steps")  # always the same, or read only by what is left out here


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    kind: tuple[Any, ...]
    inputs: Mapping[str, Tensor]  # read by each replay
    made: Tensor
    replay: Callable[[], None]


def record_on_card(step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Record what `step` asks of the current card. Raise RuntimeError, torch.OutOfMemoryError for one, if it cannot."""
    graph, stream, pool = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
    dice = torch.cuda.default_generators[stream.device_index]
    usual = dice.clone_state()
    collects = gc.isenabled()
    gc.disable()  # what it frees may ask the card for what a recording forbids
    try:
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # other threads may ask the card
            made = step()
    except BaseException:
        torch.cuda.set_stream(stream)  # torch 2.11 leaves its own behind, its memory open, where the end fails
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        dice.graphsafe_set_state(usual)  # or it is taken to be recorded still, and draws no more
        raise
    finally:
        if collects:
            gc.enable()
    return made, graph.replay


class StepGraph:
    """Runs a model function, by a graph where it can. Weights and modulation must stay where they are, or `forget`."""

    def __init__(self, record: Record | None) -> None:
        """`record` is None where nothing can be recorded."""
        self._record = record
        self._recorded: _Recorded | None = None
        self._seen: tuple[Any, ...] = ()  # the kind of the last step

    def __call__(self, model: Model, arguments: Mapping[str, Any]) -> Tensor:
        """What `model` makes of its named arguments, in memory of its own."""
        kind = _kind(model, arguments) if self._record else None
        if kind is None:
            self.forget()
            return model(**arguments)
        if self._recorded is None or self._recorded.kind != kind:
            is_another = self._seen == kind and arguments.get("progress_id") == 0
            self.forget()  # its memory first
            self._seen = kind
            self._recorded = self._made(model, arguments, kind) if is_another else None
            if self._recorded is None:
                return model(**arguments)
        for name, held in self._recorded.inputs.items():
            held.copy_(arguments[name])
        self._recorded.replay()
        return self._recorded.made.clone()

    def forget(self) -> None:
        """Let go of what was recorded, and its memory: it read what may move now."""
        self._recorded, self._seen = None, ()

    def _made(self, model: Model, arguments: Mapping[str, Any], kind: tuple[Any, ...]) -> _Recorded | None:
        """None where the card cannot; it is tried again, with the next picture, only where memory was short."""
        assert self._record is not None
        inputs = {name: arguments[name].clone() for name in INPUTS if isinstance(arguments.get(name), Tensor)}
        try:
            made, replay = self._record(lambda: model(**{**arguments, **inputs}))
        except RuntimeError as error:  # its text alone, since a record may be kept
            log.warning("This step was not recorded, and each of its kernels is asked for by itself: %s", str(error))
            if not isinstance(error, torch.OutOfMemoryError):
                self._record = None
            return None
        return _Recorded(kind=kind, inputs=inputs, made=made, replay=replay)


def _kind(model: Model, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What decides the kernels of a step; None if it has more than a prompt."""
    found: list[Any] = []
    for name in inspect.signature(model).parameters:
        value = arguments.get(name)
        if name in INPUTS and isinstance(value, Tensor):
            found.append((name, value.shape, value.dtype, value.device))
        elif isinstance(value, bool | int | float):
            found.append((name, value) if name not in _UNREAD else name)
        elif name not in _UNREAD and value is not None and value != {}:
            return None
    return tuple(found)
