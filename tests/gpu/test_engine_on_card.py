"""The engine on a card: streamed is resident bit for bit, nothing compiles twice, budgets hold, memory comes back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gen.engine import Engine
from gen.errors import GenerationCancelled
from gen.request import StepReport
from gen.streaming.planner import Rung
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
    assert torch.equal(unpinned.latents(STREAMED), model.latents(EVERYTHING))
    half = Model(folder, pinned_bytes=GIB // 2)  # some of each: copies of both kinds share the slots
    assert torch.equal(half.latents(STREAMED), model.latents(EVERYTHING))
    unpinned.generator.close()
    half.generator.close()


def test_compiled_streamed_is_compiled_resident_and_nothing_compiles_twice(folder: Path) -> None:
    compiled = Model(folder, compiled=True)
    exact = compiled.latents(EVERYTHING)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(compiled.latents(STREAMED), exact)
        other = compiled.latents(Rung(resident=(1, 4), slots=3, vae_tile=None), seed=2, prompt="a red house")
    assert not torch.equal(other, exact)
    compiled.generator.close()


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

    def cancelled() -> int:
        with pytest.raises(GenerationCancelled):
            model.generator.draw(model.ask(steps=20), on_step=cancel)
        model.engine.recover()
        return torch.cuda.memory_allocated()

    model.engine._settle(STREAMED)
    before = cancelled()  # the first one of a process leaves workspaces of libraries behind
    assert [cancelled() for _ in range(3)] == [before] * 3
    assert torch.equal(model.latents(), model.latents(EVERYTHING))


def test_a_stopped_picture_ends_within_a_step_and_reports_are_true(model: Model) -> None:
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
