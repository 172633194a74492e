"""The engine on a card: streamed is resident bit for bit, nothing compiles twice, budgets hold, memory comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from gen.engine import Engine
from gen.errors import GenerationCancelled
from gen.request import StepReport
from gen.step_graph import StepGraph, record_on_card
from gen.streaming.planner import Rung, resting
from gen.streaming.sizes import Precision
from tests.gpu.card_models import EVERYTHING, GIB, ON_CARD, STREAMED, Model

pytestmark = ON_CARD


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    made = Model(folder)
    yield made
    made.generator.close()


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("resident", [(), (0, 3), (1, 2, 4, 5)])
def test_streamed_is_resident_bit_for_bit(model: Model, slots: int, resident: tuple[int, ...]) -> None:
    exact = model.latents(EVERYTHING)
    assert bool(exact.isfinite().all())
    streamed = model.latents(Rung(resident=resident, slots=slots, vae_tile=None))
    assert torch.equal(streamed, exact)
    assert torch.equal(model.latents(), exact)  # what was sent for ahead at the first one's end was a wrong guess


def test_weights_that_are_not_pinned_pass_through_the_ring_bit_for_bit(folder: Path, model: Model) -> None:
    unpinned = Model(folder, pinned_bytes=1)
    assert [one.engine.card.is_link_measured for one in (model, unpinned)] == [True, False]
    assert torch.equal(unpinned.latents(STREAMED), model.latents(EVERYTHING))
    half = Model(folder, pinned_bytes=GIB // 2)  # some of each: copies of both kinds share the slots
    assert torch.equal(half.latents(STREAMED), model.latents(EVERYTHING))
    unpinned.generator.close()
    half.generator.close()


@pytest.mark.parametrize("precision", Precision)
def test_compiled_streamed_is_compiled_resident_and_nothing_compiles_twice(folder: Path, precision: Precision) -> None:
    compiled = Model(folder, compiled=True, precision=precision)
    exact = compiled.latents(EVERYTHING)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(compiled.latents(STREAMED), exact)
        other = compiled.latents(Rung(resident=(1, 4), slots=3, vae_tile=None), seed=2, prompt="a red house")
    assert not torch.equal(other, exact)
    compiled.generator.close()


def _recordings(model: Model) -> list[None]:
    """One more for each step that is recorded from here on."""
    done: list[None] = []
    record = model.engine._graph._record
    assert record is not None

    def counted(step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        done.append(None)  # not the step, which holds on to its tensors
        return record(step)

    model.engine._graph._record = counted
    return done


def test_recorded_steps_draw_what_their_kernels_draw_one_by_one(folder: Path) -> None:
    made = Model(folder, compiled=True)
    plain = resting(EVERYTHING.resident, recorded=False)
    asked: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2, "prompt": "a red house"}, {"size": "512x384"}, {}, {}]
    wanted = [made.latents(plain, steps=5, **one) for one in asked]
    with made.engine.exactly():
        exact_sums = made.latents(EVERYTHING, steps=5)
    for _ in range(2):
        made.latents(EVERYTHING, steps=5)
    made.engine.recover()  # the first sums and recordings of a process leave workspaces of libraries behind
    before, done = torch.cuda.memory_allocated(), _recordings(made)
    for one, exact in zip(asked, wanted, strict=True):
        assert torch.equal(made.latents(EVERYTHING, steps=5, **one), exact)
    assert len(done) == 2  # for each second picture of a size in a row
    with made.engine.exactly():  # what was recorded of other sums is not replayed
        assert torch.equal(made.latents(EVERYTHING, steps=5), exact_sums)
    assert not torch.equal(exact_sums, wanted[-1])
    assert torch.equal(made.latents(plain, steps=5), wanted[-1])
    assert torch.equal(made.latents(EVERYTHING, steps=5), wanted[-1])
    made.engine.recover()
    assert torch.cuda.memory_allocated() == before
    made.generator.close()


def test_weights_that_went_and_came_back_are_read_where_they_are(folder: Path) -> None:
    made = Model(folder, compiled=True)
    wanted, done = made.latents(STREAMED, steps=4), _recordings(made)
    for _ in range(2):
        assert torch.equal(made.latents(EVERYTHING, steps=4), wanted)
        assert torch.equal(made.latents(EVERYTHING, steps=4), wanted)
        assert torch.equal(made.latents(STREAMED, steps=4), wanted)
    assert len(done) == 2
    made.generator.close()


def test_a_picture_that_is_cancelled_while_its_steps_are_replayed_leaves_nothing(folder: Path) -> None:
    made = Model(folder, compiled=True)
    made.engine._settle(EVERYTHING)
    asked, done = made.ask(steps=8), _recordings(made)

    def cancelled() -> int:
        def cancel(report: StepReport) -> None:
            if report.step == 3:
                raise GenerationCancelled

        for _ in range(2):
            made.generator.draw(asked, on_step=lambda _: None)
        with pytest.raises(GenerationCancelled):
            made.generator.draw(asked, on_step=cancel)
        return torch.cuda.memory_allocated()

    before = cancelled()
    assert [cancelled() for _ in range(2)] == [before] * 2
    assert len(done) == 3
    made.generator.close()


def test_two_prompts_a_step_are_recorded_as_one_kind(folder: Path) -> None:
    made = Model(folder, compiled=True)
    asked = replace(made.ask(steps=4), negative="a boat", cfg_scale=3.0)
    pictures = []
    for rung in (resting(EVERYTHING.resident, recorded=False), EVERYTHING, EVERYTHING):
        made.engine._settle(rung)
        pictures.append(made.generator.draw(asked, on_step=lambda _: None).png)
    assert pictures[0] == pictures[1] == pictures[2]
    made.generator.close()


def test_a_step_that_cannot_be_recorded_leaves_the_card_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    stream, x = torch.cuda.current_stream(), torch.ones(8, device="cuda")

    def model(latents: torch.Tensor, progress_id: int) -> torch.Tensor:
        return latents * latents.sum().item()  # waits for the card, which no recording may

    graph = StepGraph(record_on_card)
    for _ in range(3):
        for step in range(2):
            assert torch.equal(graph(model, {"latents": x, "progress_id": step}), x * 8)
    assert caplog.text.count("This step was not recorded") == 1
    assert torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()  # asserts that no memory is still given to a recording
    assert float(torch.rand(8, device="cuda").std()) > 0  # the card's dice are thrown again
    assert bool((torch.zeros(2**20, device="cuda") == 0).all())


def test_a_table_of_all_steps_is_what_each_step_would_have_made(model: Model) -> None:
    model.engine._settle(EVERYTHING)
    conditioning = torch.randn(20, 3072, device="cuda").bfloat16()
    table = model.engine.modulation.table(conditioning)
    for step in (0, 7, 19):
        alone = model.engine.modulation.table(conditioning[step : step + 1])
        assert torch.allclose(table[step : step + 1], alone, rtol=2**-7, atol=2**-7)


def test_memory_is_as_before_after_a_cancelled_picture(model: Model) -> None:
    def cancel(report: StepReport) -> None:
        raise GenerationCancelled

    model.engine._settle(STREAMED)
    model.generator.draw(model.ask(steps=20), on_step=lambda _: None)
    model.engine.recover()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        with pytest.raises(GenerationCancelled):
            model.generator.draw(model.ask(steps=20), on_step=cancel)
        assert torch.cuda.memory_allocated() == before
    assert torch.equal(model.latents(), model.latents(EVERYTHING))


def test_a_stopped_picture_ends_within_a_step(model: Model) -> None:
    model.engine._settle(STREAMED)
    reported: list[int] = []
    begun: list[int] = []  # what had been reported when each step began

    def stop(report: StepReport) -> None:
        reported.append(report.step)
        if report.step == 3:
            raise GenerationCancelled

    watch = model.generator._pipe.dit.x_embedder.register_forward_pre_hook(lambda *_: begun.append(len(reported)))
    try:
        with pytest.raises(GenerationCancelled):
            model.generator.draw(model.ask(steps=20), on_step=stop)
    finally:
        watch.remove()
    assert reported == [1, 2, 3]
    assert begun == [0, 0, 1, 2]  # the fourth was queued before the third was reported, and no fifth came
    assert torch.cuda.current_stream().query()  # nothing is left to do


def test_reports_are_of_steps_that_the_card_has_done(model: Model) -> None:
    model.engine._settle(STREAMED)
    seen: list[StepReport] = []
    model.generator.draw(model.ask(steps=5), on_step=seen.append)
    assert [report.step for report in seen] == [1, 2, 3, 4, 5]
    gaps = [after.seconds - before.seconds for before, after in pairwise(seen[1:])]
    assert min(gaps) > 0.2 * max(gaps)  # all at once would mean that reports run ahead of the card


def test_closing_gives_all_memory_back(folder: Path) -> None:
    before = torch.cuda.memory_allocated()
    made: Engine
    other = Model(folder)
    made = other.engine
    other.latents(STREAMED)
    other.generator.close()
    del other
    assert made.slots.resident == frozenset()
    made.modulation.forget()
    assert torch.cuda.memory_allocated() - before < 300 * 2**20  # the pipeline's own embedders go with it
