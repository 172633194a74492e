"""`python -m gen bench gpu`: figures from marks, rows that survive, peers as they are meant. On a CPU, at toy size."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from gen.bench import gpu
from gen.bench.measuring import encode, measure
from gen.bench.plot import limit
from gen.bench.synth import demo_shape, synthesize
from gen.bench.systems import Job, build
from gen.errors import GenerationError, InvalidRequest

ROW = {
    "system": "kiln",
    "budget_gib": None,
    "s_per_step": 0.08,
    "picture_s": 2.0,
    "text_s": 0.1,
    "vae_s": 0.1,
    "png_s": 0.1,
    "peak_reserved_gib": 20.0,
    "host_gib": 30.0,
    "start_s": 12.0,
    "steps": 20,
    "measured_steps": 20,
    "size": "1024x1024",
    "card": "H100",
}
FOUND = {"card": "H100", "size": "1024x1024", "steps": 20, "date": "2026-11-24", "ceilings": None, "rows": [ROW]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "model"
    synthesize(folder, shape=demo_shape())
    return folder


def _flat(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
    for _ in range(steps):
        on_step()
    return encode(Image.new("RGB", (16, 16)))


def test_pictures_in_full_are_measured_when_there_is_time() -> None:
    _, figures = measure(_flat, steps=7, on_card=False, seconds=60, pictures=2)
    assert (figures.measured_steps, len(figures.pictures_s)) == (7, 2)


def test_parts_are_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def draw(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        nonlocal now
        now += 5
        for _ in range(steps):
            now += 1
            on_step()  # when it has been done
        now += 3
        return encode(Image.new("RGB", (16, 16)))

    monkeypatch.setattr("gen.bench.measuring.time.perf_counter", lambda: now)
    _, figures = measure(draw, steps=20, on_card=False, seconds=300, pictures=2)
    assert (figures.s_per_step, figures.text_s, figures.vae_s, figures.png_s) == (1, 5, 3, 0)
    assert figures.picture_s == 28


def test_without_time_the_picture_is_composed_of_a_few_steps_and_never_of_the_warm_up() -> None:
    warm_up, figures = measure(_flat, steps=7, on_card=False, seconds=0, pictures=2)
    assert (warm_up.steps, figures.measured_steps, figures.pictures_s) == (2, 3, [])
    assert figures.picture_s == figures.text_s + 7 * figures.s_per_step + figures.vae_s + figures.png_s


def test_every_picture_has_a_new_prompt() -> None:
    prompts: list[str] = []

    def draw(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        prompts.append(prompt)
        return _flat(prompt, seed=seed, steps=steps, on_step=on_step)

    measure(draw, steps=3, on_card=False, seconds=60, pictures=5)
    assert len(set(prompts)) == 6


def test_budgets_are_read() -> None:
    assert gpu.read_budgets("all, 6.8,4") == (None, 6.8, 4.0)


@pytest.mark.parametrize("text", ["", "0", "all,,2", "6.8GiB", "-1", "nan", "1e3"])
def test_what_is_no_list_of_budgets_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--budgets is a list of GiB or all"):
        gpu.read_budgets(text)


def test_the_table_has_ratios_and_says_what_was_not_drawn_in_full() -> None:
    small = {**ROW, "budget_gib": 6.8, "s_per_step": 0.088}
    recipe = {**ROW, "system": "diffsynth-low-vram", "budget_gib": 6.5, "s_per_step": 8.8, "picture_s": 200.0}
    text = "\n".join(gpu.table({**FOUND, "rows": [ROW, small, {**recipe, "measured_steps": 3}]}))
    assert "1.10x" in text
    assert "(3 steps drawn)" in text
    assert "a step 100x faster,\na picture 100x" in text


def test_the_table_says_what_changing_loras_costs() -> None:
    small = {**ROW, "budget_gib": 6.8, "s_per_step": 0.088}
    lora = {**small, "system": "kiln-lora", "text_s": 0.5, "s_per_step": 0.0901}
    text = "\n".join(gpu.table({**FOUND, "rows": [ROW, small, lora]}))
    assert "Another LoRA than the picture before: 0.40 s once, and 0.0021 s a step." in text


def test_each_picture_of_the_lora_row_wears_another_lora(weights: Path, tmp_path: Path) -> None:
    job = Job(system="kiln-lora", weights=weights, width=128, height=128, device="cpu", cache=tmp_path)
    draw = build(job)
    first, second, third, fourth = (
        draw("a red house", seed=seed, steps=2, on_step=lambda: None) for seed in (0, 1, 2, 0)
    )
    assert len(list((tmp_path / "synth-loras").iterdir())) == 2
    assert first == fourth
    assert len({first, second, third}) == 3
    plain = build(replace(job, system="kiln"))("a red house", seed=0, steps=2, on_step=lambda: None)
    with Image.open(io.BytesIO(plain)) as without, Image.open(io.BytesIO(first)) as with_lora:
        assert without.tobytes() != with_lora.tobytes()


def test_a_row_that_failed_says_why() -> None:
    assert "out of memory" in "\n".join(
        gpu.table({**FOUND, "rows": [{"system": "kiln", "budget_gib": 1.0, "error": "out of memory"}]})
    )


def test_the_limit_is_the_link_for_little_memory_and_the_tensor_cores_for_much() -> None:
    rates = {"pinned_bytes_s": 53.8e9, "float8_flops": 1534e12, "attention_flops": 663e12}
    assert limit({**FOUND, "ceilings": rates}, [0.0, 30.0]) == pytest.approx([0.160, 0.061], rel=0.02)


def test_figures_of_another_size_are_not_overwritten(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text(json.dumps({**FOUND, "size": "512x512"}))
    bench = _bench(weights, out)
    with pytest.raises(InvalidRequest, match="holds 512x512 at 20 steps; name another --out"):
        list(gpu.run(bench))
    assert json.loads(out.read_text())["rows"] == [ROW]


def _bench(weights: Path, out: Path) -> gpu.Bench:
    return gpu.Bench(
        weights=weights,
        width=128,
        height=128,
        steps=3,
        budgets=(None, 0.01),
        systems=("kiln",),
        device="cpu",
        minutes=1,
        pictures=1,
        cache=None,
        out=out,
    )


def test_an_error_never_takes_the_place_of_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, gpu.Row] = {
        "ceilings": {"card": "H100"},
        "kiln": {"error": "out of memory"},
        "kiln-bfloat16": {**ROW, "system": "kiln-bfloat16"},
    }
    monkeypatch.setattr(gpu, "_in_a_process", lambda job, **_: {**rows[job["system"]]})
    out = tmp_path / "out.json"
    out.write_text(json.dumps({**FOUND, "size": "128x128", "steps": 3}))
    bench = replace(_bench(tmp_path, out), systems=("kiln", "kiln-bfloat16"), budgets=(None,))
    with pytest.raises(GenerationError, match="Not measured again, so that their earlier rows stay: kiln"):
        list(gpu.run(bench))
    assert [row["s_per_step"] for row in json.loads(out.read_text())["rows"]] == [0.08, 0.08]


def test_a_run_that_measured_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"ceilings": {"card": "H100"}, "kiln": {"error": "out of memory"}}
    monkeypatch.setattr(gpu, "_in_a_process", lambda job, **_: {**rows[job["system"]]})
    bench = _bench(tmp_path, tmp_path / "out.json")
    with pytest.raises(GenerationError, match="Nothing was measured"):
        list(gpu.run(bench))
    assert [row["error"] for row in json.loads(bench.out.read_text())["rows"]] == ["out of memory"] * 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_keeps_other_rows_and_a_budget_too_small_is_a_row_with_a_sentence(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out.json"
    out.parent.mkdir()
    old = {**ROW, "system": "diffsynth-bfloat16"}
    out.write_text(json.dumps({**FOUND, "size": "128x128", "steps": 3, "rows": [old]}))
    text = "\n".join(gpu.run(_bench(weights, out)))
    first, whole, small = json.loads(out.read_text())["rows"]
    assert first == old
    assert (whole["system"], whole["budget_gib"], whole["size"], whole["steps"]) == ("kiln", None, "128x128", 3)
    assert 0 < whole["s_per_step"] < whole["picture_s"] < whole["start_s"]
    assert whole["date"].endswith(" UTC")  # rows of several runs stand in one file
    assert "too small" in small["error"]
    assert "too small" in text


@pytest.mark.parametrize("system", ["diffsynth-bfloat16", "diffsynth-float8-offload", "diffsynth-low-vram"])
def test_peers_draw_pictures(weights: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)  # DiffSynth asks every device for it
    steps: list[None] = []
    draw = build(Job(system=system, weights=weights, width=128, height=128, device="cpu"))
    png = draw("a red house", seed=1, steps=2, on_step=lambda: steps.append(None))
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (128, 128)
        assert picture.getcolors(maxcolors=16) is None
    assert len(steps) == 2


def test_the_low_vram_peer_holds_float8_everywhere(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)
    draw = build(Job(system="diffsynth-low-vram", weights=weights, width=128, height=128, device="cpu"))
    pipe = next(cell.cell_contents for cell in draw.__closure__ or () if isinstance(cell.cell_contents, nn.Module))  # type: ignore[attr-defined]
    assert {parameter.dtype for parameter in pipe.dit.parameters()} == {torch.float8_e4m3fn}  # type: ignore[union-attr]


def test_diffusers_is_asked_for_in_a_sentence(weights: Path) -> None:
    pytest.importorskip("gen.bench.systems")
    try:
        import diffusers  # noqa: F401
    except ImportError:
        with pytest.raises(GenerationError, match="diffusers is not installed"):
            build(Job(system="diffusers-compiled", weights=weights, width=128, height=128, device="cpu"))


def test_a_bench_tells_each_process_what_it_needs_and_no_more(tmp_path: Path) -> None:
    bench = replace(_bench(tmp_path, tmp_path / "out.json"), systems=("kiln", "kiln-lora", "diffsynth-low-vram"))
    jobs = list(bench.jobs())
    assert [(job["system"], job["budget_gib"]) for job in jobs] == [
        ("ceilings", None),
        ("kiln", None),
        ("kiln", 0.01),
        ("kiln-lora", 0.01),
        ("diffsynth-low-vram", 6.5),
    ]
    assert json.loads(json.dumps(jobs)) == jobs
