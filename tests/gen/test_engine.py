"""The demo model through the engine: streamed is resident bit for bit, hoisted is direct, errors leave nothing."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen.compiling import Compiled
from gen.errors import BadPicture, GenerationCancelled, InvalidRequest, OutOfMemory
from gen.flux import build_engine, load_generator
from gen.flux_blocks import Block, Operands, Streams
from gen.generator import FluxGenerator
from gen.lora_names import linears
from gen.recipe_reader import read_recipe
from gen.request import StepReport
from gen.step_graph import StepGraph
from gen.streaming import arena, sizes
from gen.streaming.arena import Arena
from gen.streaming.planner import Rung
from gen.streaming.sizes import Precision
from gen.streaming.slots import Slots
from gen.sums import ExactSums, FusedSums
from gen.tuning import Tuning, host_memory, most_pinned
from gen.weight_file import sha256
from gen.weights import DEMO_WEIGHTS, FluxShape, find_weights
from tests.gen.engine_models import CPU, EVERYTHING, USUAL, DemoEngine

PRECISIONS = [None, Precision.BFLOAT16, Precision.FLOAT8]


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoEngine]:
    made = DemoEngine(precision=Precision.FLOAT8)
    yield made
    made.generator.close()


def _ignore(_: StepReport) -> None:
    return None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_streamed_is_resident_bit_for_bit_with_poisoned_slots(precision: Precision | None) -> None:
    made = DemoEngine(precision=precision)
    exact = made.latents(EVERYTHING)
    assert bool(exact.isfinite().all())
    for resident, slots in (((), 2), ((1, 4, 6), 2), ((0, 2, 3, 5, 7), 3)):
        assert torch.equal(made.latents(Rung(resident=resident, slots=slots, vae_tile=None)), exact)
        assert torch.equal(made.latents(), exact)  # the end of the first guessed wrongly what comes next


def test_the_pictures_are_the_plain_models_within_the_precisions_error() -> None:
    plain = load_generator(DEMO_WEIGHTS, device="cpu")
    request = plain.profile.request("a red house at night", seed=42, steps=4, size="128x128")
    exact = _pixels(plain, request)
    for precision, allowed in ((Precision.BFLOAT16, 0.01), (Precision.FLOAT8, 8.0)):
        engine = load_generator(DEMO_WEIGHTS, device="cpu", tuning=Tuning(precision=precision))
        assert np.abs(_pixels(engine, request) - exact).mean() < allowed, precision


def _pixels(generator: FluxGenerator, request: object) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    png = generator.draw(request, on_step=_ignore).png  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.float32)


def test_a_table_of_all_steps_is_what_diffsynths_own_modulation_makes() -> None:
    made, plain = DemoEngine(), load_generator(DEMO_WEIGHTS, device="cpu")
    conditioning = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    table = made.engine.modulation.table(conditioning)
    dit, begin = plain._pipe.dit, 0
    for block in (*dit.blocks, *dit.single_blocks):
        for name in ("norm1_a", "norm1_b") if hasattr(block, "norm1_a") else ("norm",):
            wanted = getattr(block, name).linear(torch.nn.functional.silu(conditioning))
            assert torch.allclose(table[:, begin : begin + wanted.shape[1]], wanted, atol=1e-5)
            begin += wanted.shape[1]
    assert begin == table.shape[1]


def test_without_a_table_blocks_make_their_modulation_themselves(demo: DemoEngine) -> None:
    usual = demo.latents(EVERYTHING)
    guided = demo.latents(cfg_scale=1.0001)  # two prompts at each step, told apart without a table of their own
    assert torch.allclose(guided, usual, atol=0.05)


def test_what_the_callback_raises_leaves_the_engine_as_it_was(demo: DemoEngine) -> None:
    def cancel(_: StepReport) -> None:
        raise GenerationCancelled

    demo.engine._settle(Rung(resident=(1,), slots=2, vae_tile=None))
    before = demo.generator.draw(demo.ask(), on_step=_ignore)
    resident = demo.engine.slots.resident
    for _ in range(3):
        with pytest.raises(GenerationCancelled):
            demo.generator.draw(demo.ask(steps=9), on_step=cancel)
        assert demo.engine.slots.ahead == ()
        assert demo.engine.slots.resident == resident
        assert (demo.pipe.model_fn.estimate, demo.pipe.model_fn._tables) == (None, [])
    assert demo.generator.draw(demo.ask(), on_step=_ignore).png == before.png


def test_memory_that_runs_out_is_tried_once_with_a_smaller_plan(
    demo: DemoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrinks: list[float] = []
    decode, prepare = demo.pipe.vae_decoder.forward, demo.engine._prepare

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    def note(wanted: object, shrink: float) -> None:
        shrinks.append(shrink)
        monkeypatch.setattr(demo.pipe.vae_decoder, "forward", full if len(shrinks) < needed else decode)
        prepare(wanted, shrink)  # type: ignore[arg-type]

    monkeypatch.setattr(demo.engine, "_prepare", note)
    needed = 2
    assert demo.generator.draw(demo.ask(), on_step=_ignore).png
    assert shrinks == [1.0, 0.85]
    needed = 9
    with pytest.raises(OutOfMemory, match="128x128"):
        demo.generator.draw(demo.ask(), on_step=_ignore)
    assert shrinks == [1.0, 0.85, 1.0, 0.85]


def test_a_card_that_others_fill_while_a_plan_is_placed_gets_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = DemoEngine(precision=Precision.FLOAT8, budget_bytes=2**30)
    exact = made.generator.draw(made.ask(), on_step=_ignore).png
    settle, tries = made.engine.slots.settle, []

    def full(**plan: object) -> None:
        tries.append(plan)
        if len(tries) < needed:
            raise torch.OutOfMemoryError
        settle(**plan)  # type: ignore[arg-type]

    monkeypatch.setattr(made.engine.slots, "settle", full)
    needed, made.engine.rung = 2, None
    assert made.generator.draw(made.ask(), on_step=_ignore).png == exact
    assert len(tries) == 2
    needed, made.engine.rung = 9, None
    with pytest.raises(OutOfMemory, match="128x128 needs more memory"):
        made.generator.draw(made.ask(), on_step=_ignore)
    needed = 0
    assert made.generator.draw(made.ask(), on_step=_ignore).png == exact
    made.generator.close()


def test_a_budget_without_a_smaller_plan_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = DemoEngine(precision=Precision.FLOAT8, budget_bytes=158 * 2**20)
    with pytest.raises(OutOfMemory, match=r"A budget of 0\.15 GiB is too small for 384x384"):
        made.generator.draw(made.ask(size="384x384"), on_step=_ignore)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(made.pipe.vae_decoder, "forward", full)
    with pytest.raises(OutOfMemory, match="256x256 needs more memory"):
        made.generator.draw(made.ask(size="256x256"), on_step=_ignore)
    assert "again" not in caplog.text
    made.generator.close()


def test_a_bad_picture_is_tried_once_with_exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    made = DemoEngine(precision=Precision.FLOAT8)
    monkeypatch.setattr(type(made.engine), "is_narrow", True)
    whole = [shell.block for shell in made.engine._shells]

    def overflowing(weights: Any, streams: Streams, operands: Operands, *_: Any) -> tuple[Streams, Operands]:
        return (streams[0] * float("nan"), streams[1]), operands

    for shell in made.engine._shells:
        shell.block = replace(shell.block, run=overflowing)
    broken = [shell.block for shell in made.engine._shells]
    assert made.generator.draw(made.ask(), on_step=_ignore).png
    assert [shell.block for shell in made.engine._shells] == broken
    assert whole != broken


def test_a_picture_that_stays_bad_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = DemoEngine(precision=Precision.FLOAT8)
    monkeypatch.setattr(type(made.engine), "is_narrow", True)
    monkeypatch.setattr(
        made.pipe.vae_decoder, "forward", lambda latents, **_: latents[:, :3].new_zeros(1, 3, 128, 128) - 1
    )
    with pytest.raises(BadPicture, match="black"):
        made.generator.draw(made.ask(), on_step=_ignore)


def test_a_recipe_tells_what_had_a_part_in_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactSums, "packages", ("pillow",))
    made = DemoEngine(precision=Precision.FLOAT8)
    found = read_recipe(made.generator.draw(made.ask(), on_step=_ignore).png)
    assert found is not None
    assert found.versions["pillow"] == metadata.version("pillow")


@pytest.mark.parametrize(("is_narrow", "is_compiled"), [(True, False), (False, True)])
def test_only_fused_blocks_in_float8_are_not_compiled(
    monkeypatch: pytest.MonkeyPatch, is_narrow: bool, is_compiled: bool
) -> None:
    made = DemoEngine(precision=Precision.FLOAT8, compiled=True)
    monkeypatch.setattr(type(made.engine), "is_narrow", is_narrow)
    assert [isinstance(block.run, Compiled) for block in made.engine._blocks(FusedSums())] == [is_compiled] * 2
    assert all(isinstance(block.run, Compiled) for block in made.engine._blocks(ExactSums()))


def test_blocks_and_prompts_and_seeds_share_two_graphs() -> None:
    made = DemoEngine(precision=Precision.FLOAT8)
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    kinds = (made.engine._shells[0].block, made.engine._shells[-1].block)
    joint, single = (torch.compile(kind.run, backend=count, fullgraph=True, dynamic=False) for kind in kinds)
    for index, shell in enumerate(made.engine._shells):
        shell.block = replace(shell.block, run=joint if index < 3 else single)
    made.latents(Rung(resident=(1, 4), slots=2, vae_tile=None))
    assert len(graphs) == 2
    made.latents(Rung(resident=(0, 6), slots=3, vae_tile=None), seed=2, prompt="a boat", num_inference_steps=3)
    assert len(graphs) == 2
    made.latents(width=192)
    assert len(graphs) == 4  # another size compiles once more


def test_a_block_begins_by_itself_only_where_none_of_its_kind_came_before() -> None:
    made, begun = DemoEngine(precision=Precision.FLOAT8), []
    for shell in made.engine._shells:
        block = shell.block

        def begin(*given: Any, shell: Any = shell, block: Block = block) -> Operands:
            begun.append(shell._name)
            return block.begin(*given)

        shell.block = replace(block, begin=begin)
    made.latents(num_inference_steps=2)
    assert begun == [made.engine.dit[0], made.engine.dit[3]] * 2


def test_a_recorded_step_is_forgotten_whenever_something_moves() -> None:
    made = DemoEngine(precision=Precision.FLOAT8)
    graph = made.engine._graph = StepGraph(lambda step: (step(), lambda: None))

    def record() -> None:
        for _ in range(2):
            made.latents(EVERYTHING)
        assert graph._recorded is not None

    streamed = Rung(resident=(1,), slots=2, vae_tile=None)
    made.engine._handoff.leave((torch.zeros(1), torch.zeros(1)), ())
    made.engine.recover()
    assert made.engine._handoff._kept is None
    worn = [_branches(made.weights.shape, 4) for _ in range(2)]  # of one rank, so that only their values change
    moves: list[Callable[[], None]] = [lambda: made.engine._settle(streamed)]
    moves += [partial(made.engine.adapt, one) for one in (*worn, None)]
    for move in (*moves, made.engine.recover):
        record()
        move()
        assert graph._recorded is None
    record()
    with made.engine.exactly():
        assert graph._recorded is None
        made.latents(EVERYTHING)
        made.latents(EVERYTHING)
        assert graph._recorded is None
    record()
    made.engine.close()
    assert graph._recorded is None


def test_an_engine_that_cannot_be_built_leaves_nothing_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Arena] = []
    monkeypatch.setattr(Arena, "close", lambda arena: closed.append(arena))
    monkeypatch.setattr(Slots, "settle", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        DemoEngine()
    assert any(arena.entries for arena in closed)


def test_weights_and_loras_together_keep_to_the_memory_that_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: dict[int, int] = {}
    monkeypatch.setattr(arena, "pin", lambda buffer: locked.update({buffer.data_ptr(): buffer.nbytes}) or True)
    monkeypatch.setattr(arena, "unpin", lambda buffer: locked.pop(buffer.data_ptr()))
    streamed = Rung(resident=(), slots=2, vae_tile=None)
    most = DemoEngine().engine.arena.size // 2
    for limit in (most, 0):
        made = DemoEngine(pinned_bytes=limit).engine
        made._options = replace(made._options, device=torch.device("cuda"))  # where memory is locked at all
        made._settle(streamed)
        alone = sum(locked.values())
        assert 0.9 * limit <= alone <= limit
        made.adapt(_branches(made._shape, 4))
        made._settle(streamed)
        assert 0.9 * limit <= sum(locked.values()) <= limit
        assert made._beside.pinned == (made._beside.size if limit else 0), "else each visit took the slower way"
        assert made.arena.pinned + made._beside.pinned == sum(locked.values())
        made._options = replace(made._options, device=CPU)
        made.adapt(None)
        made.close()
        assert locked == {}


def test_more_locked_memory_than_the_machine_has_is_refused_by_both_numbers() -> None:
    assert most_pinned(None) == round(0.6 * host_memory())
    assert most_pinned(host_memory()) == host_memory()
    with pytest.raises(InvalidRequest, match=r"^8388608\.00 GiB of pinned memory is more than this machine has: \d"):
        load_generator(DEMO_WEIGHTS, device="cpu", tuning=Tuning(precision=Precision.FLOAT8, pinned_bytes=2**53))


def test_the_recipe_knows_the_checkpoint(demo: DemoEngine) -> None:
    assert demo.engine.arena.sha256 == sha256(DEMO_WEIGHTS / "kiln-demo.safetensors")


def _branches(shape: FluxShape, rank: int, *, seed: int = 1) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        module: (
            torch.randn(rank, inputs, generator=generator) * 0.1,
            torch.randn(outputs, rank, generator=generator) * 0.1,
        )
        for module, (inputs, outputs) in linears(shape).items()
    }


def test_a_lora_streamed_or_resident_is_the_merged_model() -> None:
    made, plain = DemoEngine(), load_generator(DEMO_WEIGHTS, device="cpu")
    without, branches = made.latents(EVERYTHING), _branches(made.weights.shape, 4)
    for module, (down, up) in branches.items():
        plain._pipe.dit.get_submodule(module).weight.data += up @ down
    kept = []
    plain._pipe.vae_decoder.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    plain.draw(plain.profile.request("a red house", seed=1, size="128x128", steps=2), on_step=_ignore)
    made.engine.adapt(branches)
    with_lora = made.latents()
    assert torch.allclose(with_lora, kept[0], atol=2e-3)
    assert not torch.allclose(with_lora, without, atol=0.1)
    assert torch.equal(made.latents(Rung(resident=(1, 4, 6), slots=2, vae_tile=None)), with_lora)
    made.engine.adapt(_branches(made.weights.shape, 4, seed=2))
    other = made.latents()
    assert not torch.equal(other, with_lora)
    assert torch.equal(made.latents(EVERYTHING), other)
    made.engine.adapt(branches)
    assert torch.equal(made.latents(), with_lora)
    made.engine.adapt(None)
    assert torch.equal(made.latents(), without)


@pytest.mark.parametrize("rank", [0, 16])
def test_blocks_with_their_branches_have_the_bytes_that_the_planner_reckons_with(rank: int) -> None:
    weights = find_weights(DEMO_WEIGHTS)
    options = replace(USUAL, precision=Precision.FLOAT8, dtype=torch.bfloat16)
    (_, engine), shape = build_engine(weights, options), weights.shape  # nothing is drawn: some CPUs take minutes
    engine.adapt(_branches(shape, rank) if rank else None)
    found = [engine._size(name) for name in engine.dit]
    planned = sizes.block_bytes(shape, Precision.FLOAT8, lora_rank=rank)
    assert found == pytest.approx(planned, rel=0.05)
    assert all(size <= most for size, most in zip(found, planned, strict=True))
    modulation = sum(engine._size(name) for name in engine._modulation_names)
    assert modulation == pytest.approx(sizes.modulation_bytes(shape, lora_rank=rank), rel=0.05)
    assert max(map(engine._size, engine._modulation_names)) <= sizes.slot_bytes(shape, Precision.FLOAT8, lora_rank=rank)
    engine.close()
