"""The real model on the CPU: the same seed gives the same bytes, steps are reported, cancelling stops it."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gen.errors import BadPicture, GenerationCancelled, InvalidRequest, OutOfMemory, WeightsMissing
from gen.flux import load_generator
from gen.generator import FluxGenerator
from gen.recipe_reader import read_recipe
from gen.request import ImageRequest, StepReport
from gen.weight_file import sha256
from gen.weights import DEMO_WEIGHTS


@pytest.fixture(scope="module")
def generator() -> Iterator[FluxGenerator]:
    made = load_generator(DEMO_WEIGHTS, device="cpu")
    yield made
    made.close()


def _ask(generator: FluxGenerator, *, seed: int = 42, steps: int = 3, size: str = "128x128") -> ImageRequest:
    return generator.profile.request("a red house at night", seed=seed, size=size, steps=steps)


def _ignore(_: StepReport) -> None:
    return None


def test_the_same_seed_gives_the_same_bytes(generator: FluxGenerator) -> None:
    first, second = (generator.draw(_ask(generator), on_step=_ignore) for _ in range(2))
    assert first.png == second.png
    assert first.sha256 == second.sha256


def test_another_seed_gives_another_picture(generator: FluxGenerator) -> None:
    first, second = (generator.draw(_ask(generator, seed=seed), on_step=_ignore) for seed in (1, 2))
    assert first.png != second.png


def test_the_same_bytes_come_from_a_fresh_model(generator: FluxGenerator) -> None:
    fresh = load_generator(DEMO_WEIGHTS, device="cpu")
    request = _ask(generator)
    assert fresh.draw(request, on_step=_ignore).png == generator.draw(request, on_step=_ignore).png


@pytest.mark.parametrize("size", ["128x128", "192x128", "128x192", "144x240"])
def test_the_picture_has_the_size_asked_for(generator: FluxGenerator, size: str) -> None:
    result = generator.draw(_ask(generator, size=size, steps=1), on_step=_ignore)
    with Image.open(io.BytesIO(result.png)) as picture:
        assert f"{picture.width}x{picture.height}" == size


def test_guidance_changes_the_picture(generator: FluxGenerator) -> None:
    profile = generator.profile
    weak, strong = (
        generator.draw(profile.request("a red house", seed=1, steps=3, guidance=g), on_step=_ignore).png
        for g in (1.0, 8.0)
    )
    assert weak != strong


def test_every_step_is_reported_in_order(generator: FluxGenerator) -> None:
    reports: list[StepReport] = []
    generator.draw(_ask(generator, steps=4), on_step=reports.append)
    assert [(report.step, report.steps) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(a.seconds < b.seconds for a, b in pairwise(reports))


def test_what_the_callback_raises_stops_the_drawing_within_one_step(generator: FluxGenerator) -> None:
    seen: list[int] = []

    def cancel(report: StepReport) -> None:
        seen.append(report.step)
        raise GenerationCancelled

    with pytest.raises(GenerationCancelled):
        generator.draw(_ask(generator, steps=50), on_step=cancel)
    assert seen == [1]


def test_a_picture_can_be_drawn_after_a_cancelled_one(generator: FluxGenerator) -> None:
    before = generator.draw(_ask(generator), on_step=_ignore)
    test_what_the_callback_raises_stops_the_drawing_within_one_step(generator)
    assert generator.draw(_ask(generator), on_step=_ignore).png == before.png


def test_the_recipe_holds_what_the_picture_depends_on(generator: FluxGenerator) -> None:
    found = read_recipe(generator.draw(_ask(generator), on_step=_ignore).png)
    assert found is not None
    assert found.request == _ask(generator)
    assert found.weights_sha256 == sha256(DEMO_WEIGHTS / "kiln-demo.safetensors")
    assert found.dtype == "float32"
    assert set(found.versions) == {"kiln", "torch", "diffsynth"}


def test_a_size_outside_the_models_limits_is_refused_with_limit_and_value(generator: FluxGenerator) -> None:
    large = ImageRequest(prompt="a house", seed=1, width=1024, height=256, steps=1, guidance=3.5)
    with pytest.raises(InvalidRequest, match="128 to 384 pixels; it is 1024"):
        generator.draw(large, on_step=_ignore)


def test_unknown_words_are_said_with_the_picture(generator: FluxGenerator) -> None:
    request = generator.profile.request("a dragon and a house", seed=1, size="128x128", steps=1)
    notice = generator.draw(request, on_step=_ignore).notice
    assert notice is not None
    assert "demo model" in str(notice)
    assert "dragon" in str(notice)
    assert "\n" not in str(notice)


def test_a_known_prompt_has_no_notice(generator: FluxGenerator) -> None:
    assert generator.draw(_ask(generator, steps=1), on_step=_ignore).notice is None


def test_a_prompt_longer_than_the_model_reads_is_said(generator: FluxGenerator) -> None:
    request = generator.profile.request("a red house " * 60, seed=1, size="128x128", steps=1)
    notice = generator.draw(request, on_step=_ignore).notice
    assert notice is not None
    assert "64 tokens" in str(notice)


def test_numbers_that_break_are_told_as_bad(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    vae = load_file(folder / "ae.safetensors")
    vae["decoder.conv_out.weight"] = vae["decoder.conv_out.weight"] * float("nan")
    save_file(vae, folder / "ae.safetensors")
    broken = load_generator(folder, device="cpu")
    with pytest.raises(BadPicture, match="black picture"):
        broken.draw(_ask(broken, steps=1), on_step=_ignore)


def test_a_flat_colour_is_told_as_bad(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    vae = load_file(folder / "ae.safetensors")
    vae["decoder.conv_out.weight"] = vae["decoder.conv_out.weight"] * 0
    save_file(vae, folder / "ae.safetensors")
    broken = load_generator(folder, device="cpu")
    with pytest.raises(BadPicture, match="flat colour"):
        broken.draw(_ask(broken, steps=1), on_step=_ignore)


def test_running_out_of_memory_is_told_with_the_size(generator: FluxGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(generator._pipe.vae_decoder, "forward", full)
    with pytest.raises(OutOfMemory, match="128x128"):
        generator.draw(_ask(generator), on_step=lambda _: None)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    path = folder / "kiln-demo.safetensors"
    state = load_file(path)
    key = "model.diffusion_model.img_in.weight"
    state[key] = state[key][:, :32].contiguous()
    save_file(state, path)
    with pytest.raises(
        WeightsMissing,
        match=r"kiln-demo.safetensors does not fit.*img_in.weight is \(192, 32\); kiln.json says \(192, 64\)",
    ):
        load_generator(folder, device="cpu")


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    path = folder / "ae.safetensors"
    state = load_file(path)
    del state["decoder.mid.block_1.conv1.weight"]
    save_file(state, path)
    with pytest.raises(WeightsMissing, match=r"ae.safetensors does not fit.*blocks.0.conv1.weight"):
        load_generator(folder, device="cpu")


def test_another_models_tokenizer_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    shutil.copy(folder / "tokenizer_2" / "tokenizer.json", folder / "tokenizer" / "tokenizer.json")
    with pytest.raises(WeightsMissing, match=r"tokenizer does not hold a tokenizer: Unk token"):
        load_generator(folder, device="cpu")


def test_a_tokenizer_with_more_tokens_than_the_encoder_knows_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    path = folder / "tokenizer_2" / "tokenizer.json"
    told = json.loads(path.read_text("utf-8"))
    told["model"]["vocab"] += [["\u2581cat", 0.0]]
    path.write_text(json.dumps(told), "utf-8")
    with pytest.raises(WeightsMissing, match=r"tokenizer_2 has 1,025 tokens; the model's encoder knows 1,024\."):
        load_generator(folder, device="cpu")


def test_a_tokenizer_of_nonsense_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsMissing, match="tokenizer does not hold a tokenizer"):
        load_generator(folder, device="cpu")


def test_drawing_prints_nothing_on_stdout(tmp_path: Path) -> None:
    code = (
        "from gen.flux import load_generator\nfrom gen.weights import DEMO_WEIGHTS\n"
        "g = load_generator(DEMO_WEIGHTS, device='cpu')\n"
        "g.draw(g.profile.request('a cat', seed=1, size='128x128', steps=1), on_step=lambda report: None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == ""


def test_a_model_that_does_not_fit_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 34.00 GiB\nmore")

    monkeypatch.setattr("gen.flux.build_pipeline", too_large)
    with pytest.raises(OutOfMemory, match=r"^kiln-demo does not fit on cpu: tried to allocate 34.00 GiB$"):
        load_generator(DEMO_WEIGHTS, device="cpu")
