"""Which steps are recorded, and that a replay reads the step's own inputs; what a card records is in tests/gpu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffsynth.pipelines.flux_image import model_fn_flux_image
from torch import Tensor

from gen.step_graph import INPUTS, StepGraph


class Recorder:
    """A card's stand-in: a replay computes again from the recorded tensors, into the same memory."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        made = step()

        def replay() -> None:
            self.replayed += 1
            made.copy_(step())

        return made, replay


class Model:
    """DiffSynth's parameters, some of them, and what it makes of them."""

    def __init__(self) -> None:
        self.called = 0

    def __call__(  # noqa: PLR0913
        self,
        dit: Any = None,
        latents: Any = None,
        timestep: Any = None,
        guidance: Any = None,
        controlnet_conditionings: Any = None,
        ipadapter_kwargs_list: Any = None,
        tiled: bool = False,
        progress_id: int = 0,
        **_: Any,
    ) -> Tensor:
        self.called += 1
        made: Tensor = latents * timestep + guidance
        return made if controlnet_conditionings is None else made + controlnet_conditionings[0]


def _arguments(step: int, *, size: int = 3, **more: Any) -> dict[str, Any]:
    tensors = {"latents": torch.full((1, size), float(step)), "timestep": torch.tensor([step + 0.5])}
    return {"dit": object(), **tensors, "guidance": torch.tensor([2.0]), "progress_id": step, "seed": step, **more}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def _wanted(step: int, *, size: int = 3) -> Tensor:
    return torch.full((1, size), step * (step + 0.5) + 2.0)


def test_the_second_step_of_a_kind_is_recorded_and_every_replay_is_of_its_own_inputs(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    made = [graph(model, _arguments(step, ipadapter_kwargs_list={})) for step in range(5)]
    for step, found in enumerate(made):  # none has been overwritten by a later one
        assert torch.equal(found, _wanted(step))
    assert (recorder.recorded, recorder.replayed) == (1, 4)


def test_another_size_or_number_is_another_kind(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for size in (3, 4):
        for step in range(3):
            assert torch.equal(graph(model, _arguments(step, size=size)), _wanted(step, size=size))
    assert recorder.recorded == 2
    graph(model, _arguments(1, size=4, tiled=True))
    assert recorder.replayed == 4


def test_a_step_with_more_than_a_prompt_is_not_recorded(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for step in range(3):
        made = graph(model, _arguments(step, controlnet_conditionings=[torch.full((1, 3), 0.25)]))
        assert torch.equal(made, _wanted(step) + 0.25)
    assert recorder.recorded == 0


def test_what_was_recorded_is_forgotten_when_weights_move(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for step in range(2):
        graph(model, _arguments(step))
    graph.forget()
    graph(model, _arguments(2))
    assert (recorder.recorded, recorder.replayed) == (1, 1)
    graph(model, _arguments(3))
    assert (recorder.recorded, recorder.replayed) == (2, 2)


def test_where_a_card_cannot_record_the_step_is_drawn_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def fails(step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        tried.append(step)
        raise torch.OutOfMemoryError("out of memory")

    graph, model = StepGraph(fails), Model()
    for step in range(5):
        assert torch.equal(graph(model, _arguments(step)), _wanted(step))
    assert len(tried) == 1
    assert caplog.text.count("This card records no steps") == 1


def test_the_inputs_are_parameters_of_diffsynths_model_function(recorder: Recorder) -> None:
    given = {name: torch.zeros(1) for name in INPUTS}
    graph = StepGraph(recorder)

    def model(**_: Any) -> Tensor:
        return torch.zeros(1)

    model.__signature__ = __import__("inspect").signature(model_fn_flux_image)  # type: ignore[attr-defined]
    for _ in range(2):
        graph(model, given)
    assert recorder.recorded == 1
