"""Whole pictures on a card: LoRAs, tiles, the budget's limit, memory that others take, numbers that break."""

from __future__ import annotations

import gc
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen.bench.synth import synthesize_lora
from gen.errors import BadPicture, OutOfMemory
from gen.float8 import sqnr
from gen.flux import build_pipeline, load_generator
from gen.generator import SMALLER_PLAN, FluxGenerator
from gen.request import ImageRequest, LoraUse, StepReport
from gen.streaming.ceilings import card_of
from gen.streaming.planner import LARGE_TILE, SMALL_TILE, Planner, resting
from gen.streaming.sizes import Precision, Wanted
from gen.tuning import Tuning
from gen.vae import seam
from gen.weights import DEMO_WEIGHTS
from tests.gpu.card_models import EVERYTHING, GIB, ON_CARD, STREAMED, Model

pytestmark = ON_CARD
USES = tuple(LoraUse(name=f"synth-{number}", strength=4.0) for number in range(2))


@pytest.fixture(scope="module")
def loras(folder: Path) -> None:
    """Two LoRAs of rank 16 on every linear, beside the model."""
    for number, use in enumerate(USES):
        path = folder / "loras" / f"{use.name}.safetensors"
        synthesize_lora(path, Model.shape(folder), rank=16, seed=number)


@pytest.fixture
def model(folder: Path) -> Iterator[Model]:
    """Closed also after a test that failed: its pinned memory must not meet the next one's."""
    made = Model(folder)
    yield made
    made.generator.close()


@pytest.fixture
def unlimited() -> Iterator[None]:
    """What a budget limits is free again afterwards."""
    yield
    _free_all()


def _free_all() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0, torch.device("cuda", 0))


def _ignore(_: StepReport) -> None:
    return None


def _made(generator: FluxGenerator, request: ImageRequest) -> tuple[Tensor, Tensor]:
    """What the DiT made of a request, and the decoder of that; float32 on the CPU."""
    kept: list[Tensor] = []

    def keep(_: object, given: tuple[Tensor, ...], made: Tensor) -> None:
        kept.extend(part.float().cpu() for part in (given[0], made))

    watch = generator._pipe.vae_decoder.register_forward_hook(keep)
    try:
        generator.draw(request, on_step=_ignore)
    finally:
        watch.remove()
    latents, picture = kept[-2:]
    return latents, picture


def _near(exact: Tensor, other: Tensor) -> float:
    return float(sqnr(exact.flatten(), other.flatten()))


def test_a_lora_in_the_engine_is_the_merged_bfloat16_model(folder: Path, loras: None) -> None:
    model = Model(folder, precision=Precision.BFLOAT16)
    plain = build_pipeline(model.weights, device=torch.device("cuda", 0), dtype=torch.bfloat16)
    merged = FluxGenerator(model.weights, plain)
    asked = replace(model.ask(), loras=USES[:1])
    exact, _ = _made(merged, asked)
    found, _ = _made(model.generator, asked)
    without, _ = _made(model.generator, model.ask())
    again, _ = _made(merged, model.ask())
    merged.close()
    model.generator.close()
    # What the branch changes beside the merged weights is rounding, about as much as there is without a LoRA.
    branch, plain_error, lora = _near(exact, found), _near(again, without), _near(exact, without)
    assert branch > plain_error - 6
    assert branch > lora + 15


def test_loras_streamed_are_loras_resident_and_the_next_set_compiles_nothing(folder: Path, loras: None) -> None:
    model = Model(folder, compiled=True)
    asked = replace(model.ask(), loras=USES[:1])
    model.engine._settle(EVERYTHING)
    exact, _ = _made(model.generator, asked)
    other, _ = _made(model.generator, replace(asked, loras=USES[1:]))
    model.engine._settle(STREAMED)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(_made(model.generator, asked)[0], exact)
        assert torch.equal(_made(model.generator, replace(asked, loras=USES[1:]))[0], other)
    assert not torch.equal(other, exact)
    plain = _made(model.generator, model.ask())[0]
    assert not torch.equal(plain, exact)
    assert torch.equal(_made(model.generator, asked)[0], exact)  # nothing of it went into the packed weights
    model.generator.close()


def test_a_recorded_step_wears_the_lora_of_its_picture(folder: Path, loras: None) -> None:
    model = Model(folder, compiled=True)
    pictures: list[list[Tensor]] = []
    for recorded in (False, True):
        model.engine._settle(resting(EVERYTHING.resident, recorded=recorded))
        asked = [(), (), USES[:1], USES[:1], USES[1:], USES[1:], USES, USES, (), ()]
        pictures.append([_made(model.generator, replace(model.ask(steps=4), loras=uses))[0] for uses in asked])
    for found, exact in zip(*pictures, strict=True):
        assert torch.equal(found, exact)
    assert torch.equal(pictures[1][0], pictures[1][-1])
    assert not torch.equal(pictures[1][2], pictures[1][4])
    model.generator.close()


@pytest.mark.parametrize("tile", [SMALL_TILE, LARGE_TILE])
@pytest.mark.parametrize("size", ["1024x1024", "1216x832"])
def test_tiles_are_the_whole_picture_without_seams(model: Model, tile: int, size: str) -> None:
    asked = model.ask(size=size)
    model.engine._settle(STREAMED)
    latents, whole = _made(model.generator, asked)
    model.engine._settle(replace(STREAMED, vae_tile=tile))
    same, tiled = _made(model.generator, asked)
    assert torch.equal(same, latents)
    edge, near = seam(tiled, whole, tile=tile), _near(whole, tiled)
    assert edge < 1.5
    assert near > 15


def _within(folder: Path, budget_gib: float) -> FluxGenerator:
    _free_all()
    tuning = Tuning(budget=f"{budget_gib}GiB", cache=folder / "cache", compiled=False)
    return load_generator(folder, device="cuda", tuning=tuning)


def _peak(generator: FluxGenerator, asked: ImageRequest) -> tuple[bytes, int]:
    """A picture, and the most that was reserved for it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return generator.draw(asked, on_step=_ignore).png, torch.cuda.max_memory_reserved()


@pytest.mark.parametrize("budget", [1.2, 2.5])
def test_a_picture_keeps_to_its_budget_and_not_a_byte_more_is_given(
    folder: Path, budget: float, unlimited: None
) -> None:
    generator = _within(folder, budget)
    asked = generator.profile.request("a", seed=1, size="1024x1024", steps=3)
    picture, peak = _peak(generator, asked)
    assert peak <= budget * GIB
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(round(budget * GIB), dtype=torch.uint8, device="cuda")
    assert generator.draw(asked, on_step=_ignore).png == picture
    generator.close()


@pytest.mark.parametrize("side", [256, 1024])
def test_a_recorded_step_keeps_to_the_budget_that_its_plan_asks_for(folder: Path, side: int, unlimited: None) -> None:
    _free_all()
    card = card_of(torch.device("cuda", 0), host_memory_bytes=0)
    plan = Planner(shape=Model.shape(folder), card=card).plan(60 * GIB, Wanted(width=side, height=side, steps=3))
    assert plan.rung.recorded
    budget = math.ceil(plan.memory.peak * 10**6 / GIB) / 10**6
    tuning = Tuning(budget=f"{budget:.6f}GiB", cache=folder / "cache")
    generator = load_generator(folder, device="cuda", tuning=tuning)
    asked = generator.profile.request("a", seed=1, size=f"{side}x{side}", steps=3)
    pictures = [_peak(generator, asked) for _ in range(3)]
    engine = generator._engine
    assert engine is not None
    assert engine._graph._recorded is not None
    assert max(peak for _, peak in pictures) <= budget * GIB
    assert len({picture for picture, _ in pictures}) == 1
    generator.close()


def test_less_memory_than_was_promised_is_a_smaller_plan_and_then_an_error_with_the_numbers(
    folder: Path, unlimited: None, caplog: pytest.LogCaptureFixture
) -> None:
    peaks = []
    for budget in (2.0 * SMALLER_PLAN, 2.0):
        generator = _within(folder, budget)
        asked = generator.profile.request("a", seed=1, size="1024x1024", steps=3)
        picture, peak = _peak(generator, asked)
        peaks.append(peak)
        if budget < 2:
            generator.close()
    assert peaks[1] - peaks[0] > 2**26
    total = torch.cuda.mem_get_info()[1]

    def give(count: float) -> int:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(count / total, torch.device("cuda", 0))
        return torch.cuda.memory_allocated()

    before = give(sum(peaks) / 2)
    assert generator.draw(asked, on_step=_ignore).png == picture
    assert "drawn again with a smaller plan" in caplog.text
    give(peaks[0] / 2)
    with pytest.raises(OutOfMemory, match="1024x1024 needs more memory than there is: Kiln holds"):
        generator.draw(asked, on_step=_ignore)
    give(total)
    assert generator.draw(asked, on_step=_ignore).png == picture
    assert torch.cuda.memory_allocated() == before
    generator.close()


def test_numbers_that_break_in_float8_are_drawn_again_exactly_and_else_told(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.engine._settle(STREAMED)
    if not model.engine.is_narrow:
        pytest.skip("this card has no float8 tensor cores")
    last = model.engine._shells[-1]
    whole = last.block
    with model.engine.exactly():
        exact, _ = _made(model.generator, model.ask())

    def broken(weights: Mapping[str, Tensor], streams: tuple[Tensor, Tensor], *given: Any, **more: Any) -> Any:
        (image, text), left = whole.run(weights, streams, *given, **more)
        return (image * float("inf"), text), left

    last.block = replace(whole, run=broken)
    found, _ = _made(model.generator, model.ask())
    assert "drawn again with bfloat16 sums" in caplog.text
    assert torch.equal(found, exact)
    last.block = whole
    watch = model.generator._pipe.vae_decoder.register_forward_hook(lambda _, __, made: made * 0)
    with pytest.raises(BadPicture, match="flat colour"):
        model.generator.draw(model.ask(), on_step=_ignore)
    watch.remove()


def test_the_demo_models_pictures_are_the_cpus_within_float8s_error(unlimited: None) -> None:
    asked: dict[str, Any] = {"seed": 42, "size": "256x256", "steps": 8}

    def picture(device: str, tuning: Tuning | None = None) -> Any:
        generator = load_generator(DEMO_WEIGHTS, device=device, tuning=tuning)
        png = generator.draw(generator.profile.request("a red house at night", **asked), on_step=_ignore).png
        generator.close()
        return np.asarray(Image.open(io.BytesIO(png)), dtype=np.float32)

    exact = picture("cpu")
    asked_for = [
        (None, 25.0),
        (Tuning(precision=Precision.BFLOAT16, compiled=False), 25.0),
        (Tuning(precision=Precision.FLOAT8, compiled=False), 18.0),
    ]
    for tuning, least in asked_for:
        error = float(((picture("cuda", tuning) - exact) ** 2).mean())
        assert 10 * float(np.log10(255**2 / error)) > least, tuning
