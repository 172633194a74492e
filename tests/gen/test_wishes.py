"""What a request may hold beside words and numbers reaches the pixels: LoRAs, a negative prompt, variations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gen.errors import InvalidRequest
from gen.flux import load_generator
from gen.generator import FluxGenerator
from gen.noise import initial_noise
from gen.recipe_reader import read_recipe
from gen.request import STRONG, SUBTLE, ImageRequest, LoraUse, StepReport, Variation
from gen.streaming.planner import Rung
from gen.streaming.sizes import Precision
from gen.tuning import Tuning
from gen.weight_file import sha256
from gen.weights import DEMO_WEIGHTS
from tests.gen.engine_models import EVERYTHING, DemoEngine

INK = (LoraUse(name="ink", strength=0.8),)
DIM = 192  # of the demo model


def _save_lora(folder: Path, name: str, *, seed: int = 1, rank: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for block in range(3):
        key = f"double_blocks.{block}.img_attn.qkv"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, DIM, generator=random) * 0.2
        tensors[f"{key}.lora_B.weight"] = torch.randn(3 * DIM, rank, generator=random) * 0.2
    save_file(tensors, folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "oil")):
        _save_lora(folder, name, seed=seed)
    return folder


@pytest.fixture(scope="module")
def generator(loras: Path) -> Iterator[FluxGenerator]:
    made = load_generator(DEMO_WEIGHTS, device="cpu", loras=loras)
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(loras: Path) -> Iterator[FluxGenerator]:
    made = load_generator(DEMO_WEIGHTS, device="cpu", loras=loras, tuning=Tuning(precision=Precision.BFLOAT16))
    yield made
    made.close()


def _ask(generator: FluxGenerator, **changes: object) -> ImageRequest:
    plain = generator.profile.request("a red house at night", seed=42, size="128x128", steps=3)
    return replace(plain, **changes)  # type: ignore[arg-type]


def _draw(generator: FluxGenerator, **changes: object) -> bytes:
    return generator.draw(_ask(generator, **changes), on_step=_ignore).png


def _ignore(_: StepReport) -> None:
    return None


def _far(first: bytes, second: bytes) -> float:
    """Mean difference of two pictures' pixels, of 255."""
    one, other = (np.asarray(Image.open(io.BytesIO(png)), dtype=np.float32) for png in (first, second))
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("kind", ["generator", "engine"])
def test_a_lora_changes_its_picture_and_no_other(kind: str, request: pytest.FixtureRequest) -> None:
    made: FluxGenerator = request.getfixturevalue(kind)
    before, worn = _draw(made), _draw(made, loras=INK)
    assert _far(before, worn) > 1
    assert _draw(made) == before
    assert _draw(made, loras=INK) == worn
    assert _far(worn, _draw(made, loras=(LoraUse(name="ink", strength=-2.0),))) > 1
    assert _far(worn, _draw(made, loras=(*INK, LoraUse(name="oil", strength=1.0)))) > 1


def test_a_lora_without_an_engine_is_the_same_as_with_one(generator: FluxGenerator, engine: FluxGenerator) -> None:
    assert _far(_draw(generator, loras=INK), _draw(engine, loras=INK)) < 0.1 * _far(
        _draw(generator), _draw(generator, loras=INK)
    )


def test_the_same_wishes_give_the_same_bytes_from_a_fresh_model(generator: FluxGenerator, loras: Path) -> None:
    wishes = {
        "loras": INK,
        "negative": "a tree",
        "cfg_scale": 2.0,
        "variations": (Variation(seed=9, share=0.2),),
    }
    fresh = load_generator(DEMO_WEIGHTS, device="cpu", loras=loras)
    png = _draw(generator, **wishes)
    assert _draw(fresh, **wishes) == png
    found = read_recipe(png)
    assert found is not None
    assert found.request == _ask(generator, **wishes)
    assert found.lora_sha256 == {"ink": sha256(loras / "ink.safetensors")}


@pytest.mark.parametrize("kind", ["generator", "engine"])
def test_a_lora_that_is_not_there_or_does_not_fit_harms_no_other_picture(
    kind: str, request: pytest.FixtureRequest, loras: Path
) -> None:
    made: FluxGenerator = request.getfixturevalue(kind)
    before = _draw(made, loras=INK)
    save_file({"x.lora_A.weight": torch.zeros(1)}, loras / "other.safetensors")
    for name, words in (("none", "no LoRA named 'none'"), ("other", "does not fit this model")):
        with pytest.raises(InvalidRequest, match=words):
            _draw(made, loras=(LoraUse(name=name, strength=1.0),))
    assert _draw(made, loras=INK) == before


def test_a_lora_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    _save_lora(tmp_path, "ink", seed=1)
    made = load_generator(DEMO_WEIGHTS, device="cpu", loras=tmp_path)
    before = _draw(made, loras=INK)
    _save_lora(tmp_path, "ink", seed=5)
    assert _far(_draw(made, loras=INK), before) > 1


def test_by_default_loras_lie_among_the_weights(loras: Path) -> None:
    made = load_generator(DEMO_WEIGHTS, device="cpu")
    assert made._loras._folder == DEMO_WEIGHTS / "loras"


def test_after_an_error_in_adapting_the_next_picture_begins_anew(
    engine: FluxGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    oil = (LoraUse(name="oil", strength=1.0),)
    painted, before, worn = _draw(engine, loras=oil), _draw(engine), _draw(engine, loras=INK)
    assert engine._engine is not None
    with monkeypatch.context() as broken:
        broken.setattr("gen.engine.fill", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _draw(engine, loras=oil)
    assert _draw(engine, loras=oil) == painted
    assert _draw(engine, loras=INK) == worn
    assert _draw(engine) == before


def test_within_a_budget_a_lora_comes_to_the_card_after_the_plan_made_room(loras: Path) -> None:
    made = load_generator(DEMO_WEIGHTS, device="cpu", loras=loras, tuning=Tuning(budget="900MiB"))
    events: list[str] = []
    engine = made._engine
    assert engine is not None
    before = _draw(made, loras=INK)
    made.draw(_ask(made), on_step=_ignore)

    def noted(usual: Any, name: str) -> Any:
        def call(*given: Any, **named: Any) -> None:
            events.append("take away" if given and not getattr(given[0], "entries", True) else name)
            usual(*given, **named)

        return call

    for name in ("settle", "lay_beside"):
        setattr(engine.slots, name, noted(getattr(engine.slots, name), name))
    engine._prepare = noted(engine._prepare, "plan")  # type: ignore[method-assign]
    assert _draw(made, loras=INK) == before
    assert events == ["take away", "plan", "settle", "lay_beside"]


@pytest.mark.parametrize("kind", ["generator", "engine"])
def test_a_negative_prompt_changes_the_picture_as_its_scale_says(kind: str, request: pytest.FixtureRequest) -> None:
    made: FluxGenerator = request.getfixturevalue(kind)
    plain = _draw(made)
    weak, strong = (_draw(made, negative="a red house", cfg_scale=scale) for scale in (1.5, 3.0))
    assert 0 < _far(plain, weak) < _far(plain, strong)
    assert _draw(made) == plain


def _rungs() -> list[Rung]:
    return [EVERYTHING, Rung(resident=(1, 5), slots=2, vae_tile=None)]


@pytest.mark.parametrize("rung", _rungs())
def test_two_prompts_through_the_engine_are_what_diffsynth_makes_of_them(rung: Rung) -> None:
    asked: dict[str, Any] = {"negative_prompt": "a boat at noon", "cfg_scale": 2.5, "num_inference_steps": 3}
    made, plain = DemoEngine(), DemoEngine.__new__(DemoEngine)
    plain.pipe = load_generator(DEMO_WEIGHTS, device="cpu")._pipe
    for seed in (1, 2):  # the second picture's tables are its own, and take the place of the first's
        mine, theirs = made.latents(rung, seed=seed, **asked), plain.latents(seed=seed, **asked)
        assert torch.allclose(mine, theirs, atol=2e-3)
    assert len(made.pipe.model_fn._tables) == 2


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_the_last_preview_is_of_the_finished_picture(cfg_scale: float) -> None:
    made = DemoEngine()
    latents = made.latents(negative_prompt="a boat", cfg_scale=cfg_scale)
    assert torch.allclose(made.pipe.model_fn.estimate, latents, atol=1e-4)


def test_subtle_is_nearer_than_strong_and_a_whole_share_is_the_other_seed(generator: FluxGenerator) -> None:
    noise = initial_noise((1, 16, 16, 16), 42, ())
    mixed = [initial_noise(tuple(noise.shape), 42, (Variation(seed=7, share=share),)) for share in (SUBTLE, STRONG)]
    near, far = (float((noise - one).norm()) for one in mixed)
    assert 0 < near < far
    other = _draw(generator, seed=7)
    assert _far(_draw(generator, variations=(Variation(seed=7, share=1.0),)), other) == 0


def test_mixed_noise_keeps_its_variance_and_is_the_formula() -> None:
    shape = (1, 16, 64, 64)
    first, second, third = (initial_noise(shape, seed, ()) for seed in (1, 2, 3))
    mixed = initial_noise(shape, 1, (Variation(seed=2, share=0.1), Variation(seed=3, share=0.4)))
    wanted: Tensor = 0.6**0.5 * (0.9**0.5 * first + 0.1**0.5 * second) + 0.4**0.5 * third
    assert torch.allclose(mixed, wanted, atol=1e-6)
    assert abs(float(mixed.std()) - 1) < 0.01
    assert abs(float(mixed.mean())) < 0.01


def test_noise_without_variations_is_diffsynths(generator: FluxGenerator) -> None:
    from diffsynth.diffusion.base_pipeline import BasePipeline

    theirs = BasePipeline.generate_noise(generator._pipe, (1, 16, 8, 8), seed=42)
    assert torch.equal(initial_noise((1, 16, 8, 8), 42, ()), theirs)
