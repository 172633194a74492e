"""Which steps are recorded, and that a replay reads the step's own inputs; what a card records is in tests/gpu."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffsynth.pipelines.flux_image import model_fn_flux_image
from torch import Tensor

from gen import step_graph
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


def _draw(graph: StepGraph, model: Model, *, steps: int = 3, **more: Any) -> list[Tensor]:
    return [graph(model, _arguments(step, **more)) for step in range(steps)]


def _wanted(*, size: int = 3, steps: int = 3) -> list[Tensor]:
    return [torch.full((1, size), step * (step + 0.5) + 2.0) for step in range(steps)]


def _same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_the_second_picture_of_a_kind_is_recorded_and_every_replay_is_of_its_own_inputs(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for _ in range(3):  # none of a picture's results is overwritten by a later one
        assert _same(_draw(graph, model, ipadapter_kwargs_list={}), _wanted())
    assert (recorder.recorded, recorder.replayed) == (1, 6)


def test_pictures_that_are_all_unlike_record_nothing(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for size in (3, 4, 3, 4):
        assert _same(_draw(graph, model, size=size), _wanted(size=size))
    assert recorder.recorded == 0
    assert _same(_draw(graph, model, size=4), _wanted(size=4))
    _draw(graph, model, size=4, tiled=True)
    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_a_step_with_more_than_a_prompt_is_not_recorded(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    for _ in range(3):
        made = _draw(graph, model, controlnet_conditionings=[torch.full((1, 3), 0.25)])
        assert _same([one - 0.25 for one in made], _wanted())
    assert recorder.recorded == 0


def test_what_was_recorded_is_forgotten_when_weights_move(recorder: Recorder) -> None:
    graph, model = StepGraph(recorder), Model()
    _draw(graph, model)
    _draw(graph, model)
    graph.forget()
    _draw(graph, model)
    assert (recorder.recorded, recorder.replayed) == (1, 3)
    _draw(graph, model)
    assert (recorder.recorded, recorder.replayed) == (2, 6)


@pytest.mark.parametrize(("error", "tries"), [(RuntimeError, 1), (torch.OutOfMemoryError, 5)])
def test_where_a_step_cannot_be_recorded_it_is_drawn_and_said(
    error: type[RuntimeError], tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory that was short once may be there for the next picture."""

    def fails(_: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        raise error("it cannot")

    graph, model = StepGraph(fails), Model()
    for _ in range(6):
        assert _same(_draw(graph, model), _wanted())
    assert (
        caplog.text.count("This step was not recorded, and each of its kernels is asked for by itself: it cannot")
        == tries
    )


def test_its_inputs_and_what_it_leaves_out_are_parameters_of_diffsynths_model_function() -> None:
    assert {*INPUTS, *step_graph._UNREAD} <= set(inspect.signature(model_fn_flux_image).parameters)
