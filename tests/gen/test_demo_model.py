"""The demo model draws what is asked: real pictures of held-out captions, read back by the classifier."""

import random

import numpy as np
import pytest
import torch

from gen.demo.classifier import Classifier, load_classifier, read_attributes
from gen.demo.evaluate import Drawer, diversity, evaluate, held_out_captions, measure
from gen.demo.scenes import ATTRIBUTES, draw_scene, is_held_out, sample_scene
from gen.weights import DEMO_WEIGHTS, find_weights

PROMPTS = 12


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier(DEMO_WEIGHTS / "classifier.safetensors")


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(find_weights(DEMO_WEIGHTS), device="cpu", precision="float32")


def test_the_classifier_reads_unseen_renders(classifier: Classifier) -> None:
    rng = random.Random(99)
    scenes = [sample_scene(rng, held_out=True) for _ in range(24)]
    right = [
        read_attributes(classifier, draw_scene(scene, width=256, height=256, seed=1_000_000 + i))[name]
        == getattr(scene, name)
        for i, scene in enumerate(scenes)
        for name in ATTRIBUTES
    ]
    assert np.mean(right) >= 0.99


def test_the_classifier_is_not_content_with_anything(classifier: Classifier) -> None:
    """Noise is read as some scene, but not as the scene that was asked for."""
    rng = random.Random(5)
    noise = torch.rand(24, 3, 192, 192) * 2 - 1
    logits = classifier(noise)
    scenes = [sample_scene(rng) for _ in range(24)]
    right = [
        ATTRIBUTES[name][int(logits[name][i].argmax())] == getattr(scene, name)
        for i, scene in enumerate(scenes)
        for name in ATTRIBUTES
    ]
    assert np.mean(right) < 0.6


@pytest.mark.parametrize("language", ["en", "zh"])
def test_held_out_prompts_are_drawn_as_asked(drawer: Drawer, classifier: Classifier, language: str) -> None:
    asked = held_out_captions(PROMPTS, language=language, seed=3)
    assert all(is_held_out(one.scene) for one in asked)
    assert measure(drawer, classifier, asked, batch=6)["overall"] >= 0.95


def test_a_batch_draws_what_the_pipeline_draws(drawer: Drawer) -> None:
    pipe = drawer._pipe
    prompts, seeds = ["a red house at night", "海边的蓝色灯塔"], [42, 7]
    batch = drawer.draw(prompts, seeds, guidance=3.5)
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = pipe(
            prompt=prompt,
            seed=seed,
            width=256,
            height=256,
            num_inference_steps=12,
            embedded_guidance=3.5,
            t5_sequence_length=64,
            progress_bar_cmd=lambda timesteps: timesteps,
        )
        together = ((batch[index].permute(1, 2, 0) + 1) * 127.5).clip(0, 255).to(torch.uint8).numpy()
        assert np.abs(together.astype(int) - np.asarray(alone).astype(int)).max() <= 1


def test_through_the_float8_engine_pictures_are_nearly_the_same(drawer: Drawer) -> None:
    prompts, seeds = ["a red house at night", "海边的蓝色灯塔", "three green trees on a meadow"], [42, 7, 5]
    exact = drawer.draw(prompts, seeds)
    narrow = Drawer(find_weights(DEMO_WEIGHTS), device="cpu", precision="float8").draw(prompts, seeds)
    noise = (narrow - exact).square().mean((1, 2, 3))
    assert noise.max() > 0  # it is another way of computing
    assert bool((10 * (4 / noise).log10() > 20).all())  # PSNR, dB


def test_the_evaluation_reports_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen.demo.evaluate.DIVERSITY_CAPTIONS", 1)
    monkeypatch.setattr("gen.demo.evaluate.DIVERSITY_SEEDS", 2)
    result = evaluate(DEMO_WEIGHTS, captions=2, precisions=("float32", "float8"), device="cpu", batch=2)
    assert set(result["float32"]) == set(result["float8"]) == {"en", "zh"}
    assert 0 <= result["float32"]["en"]["overall"] <= 1
    assert result["classifier"]["overall"] >= 0.99
    assert result["diversity"]["pixels_ratio"] > 0


def test_pictures_of_one_caption_differ_by_seed(drawer: Drawer, classifier: Classifier) -> None:
    spread = diversity(drawer, classifier, held_out_captions(1, language="en", seed=8), device="cpu")
    assert spread["pixels_ratio"] > 0.4
