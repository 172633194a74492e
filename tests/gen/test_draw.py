"""`python -m gen draw`: pictures from the command line, and one readable line for each mistake."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gen.__main__ import main
from gen.recipe_reader import read_recipe

QUICK = ["--size", "128x128", "--steps", "2"]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gen", "draw", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_same_seed_writes_the_same_file_and_the_json_tells_what_was_drawn(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a.png", "b.png"))
    done = [_run("a red house at night", "--seed", "42", "--out", str(out), "--json") for out in (first, second)]
    told = [json.loads(run.stdout) for run in done]
    assert first.read_bytes() == second.read_bytes()
    assert told[0]["sha256"] == told[1]["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert (told[0]["seed"], told[0]["size"], told[0]["steps"]) == (42, "256x256", 12)
    assert 0 < told[0]["seconds"] < 60
    assert told[0]["out"] == str(first)


def test_repeat_tells_each_pictures_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert main(["draw", "a cat", "--seed", "1", *QUICK, "--repeat", "3", "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["pictures"]) == 3
    assert {picture["sha256"] for picture in told["pictures"]} == {told["sha256"]}


def test_a_seed_is_chosen_and_told_when_none_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert main(["draw", "a cat", *QUICK, "--out", str(out)]) == 0
    recipe = read_recipe(out.read_bytes())
    assert recipe is not None
    assert f"seed {recipe.request.seed}" in capsys.readouterr().out


@pytest.mark.parametrize("prompt", ["a cat seed:42", "a cat SEED：42 "])
def test_a_seed_at_the_prompts_end_is_the_option(
    prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", prompt, *QUICK, "--json", "--out", str(tmp_path / "a.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["prompt"], told["seed"]) == ("a cat", 42)


def test_what_the_demo_model_cannot_draw_is_said_beside_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", "a dragon", *QUICK, "--out", str(tmp_path / "a.png")]) == 0
    assert "dragon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["", "--seed", "1"], ["prompt is empty"]),
        (["x" * 1001], ["1,000", "1,001"]),
        (["a\u202ehouse"], ["U+202E"]),
        (["🎈🎈"], ["letter or digit"]),
        (["a", "--seed", "-1"], ["seed", "4,294,967,295", "-1"]),
        (["a", "--seed", str(2**53 + 1)], ["seed", "9,007,199,254,740,993"]),
        (["a seed:1", "--seed", "2"], ["seed is there twice", "1 in the prompt", "2 as the option"]),
        (["a seed:1", "--seed", "1"], ["seed is there twice"]),
        (["a seed:4294967296"], ["4,294,967,295", "4294967296"]),
        (["a seed:" + "9" * 5000], ["4,294,967,295", "9…"]),
        (["seed:1"], ["prompt is empty"]),
        (["a", "--size", "250x256"], ["multiple of 16", "250"]),
        (["a", "--size", "64x64"], ["128", "64"]),
        (["a", "--size", "1024x1024"], ["384", "1024"]),
        (["a", "--size", "big"], ["768x512", "big"]),
        (["a", "--steps", "0"], ["steps", "1 to 50", "0"]),
        (["a", "--steps", "51"], ["steps", "51"]),
        (["a", "--guidance", "nan"], ["guidance", "nan"]),
        (["a", "--guidance", "-2"], ["guidance", "-2"]),
        (["a", "--cfg-scale", "11"], ["cfg_scale", "1.0 to 10.0", "11"]),
        (["a", "--negative", "b", "--cfg-scale", "1"], ["negative", "above 1"]),
        (["a", "--lora", "../ink:1"], ["no LoRA", "../ink"]),
        (["a", "--lora", "none:1"], ["no LoRA", "none"]),
        (["a", "--lora", "ink:9"], ["strength of ink", "-4.0 to 4.0", "9"]),
        (["a", "--variation", "1:2"], ["share", "0.01 to 1.0", "2"]),
        (["a", "--repeat", "0"], ["--repeat", "0"]),
        (["a", "--weights", "nowhere"], ["no weights folder", "nowhere"]),
        (["a", "--size", "100x100"], ["kiln-demo", "128 to 384", "100"]),
    ],
)
def test_a_mistake_is_one_line_with_limit_and_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    out = tmp_path / "a.png"
    assert main(["draw", *arguments, "--out", str(out)]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert all(word in complaint for word in words)
    assert not out.exists()


def test_all_wishes_are_drawn_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = ["--negative", "a tree", "--cfg-scale", "1.5", "--variation", "7:0.1", "--variation", "8:0.4"]
    key = "double_blocks.0.img_attn.qkv"
    branch = {f"{key}.lora_A.weight": torch.ones(1, 192), f"{key}.lora_B.weight": torch.ones(576, 1)}
    save_file(branch, tmp_path / "ink wash.safetensors")
    wishes += ["--lora", "ink wash:0.5", "--loras", str(tmp_path)]
    out = tmp_path / "a.png"
    assert main(["draw", "a cat", "--seed", "1", *QUICK, *wishes, "--json", "--out", str(out)]) == 0
    told, recipe = json.loads(capsys.readouterr().out), read_recipe(out.read_bytes())
    assert recipe is not None
    assert told["loras"] == [{"name": "ink wash", "strength": 0.5}]
    assert [one.seed for one in recipe.request.variations] == [7, 8]
    assert (recipe.request.negative, recipe.request.cfg_scale) == ("a tree", 1.5)
    assert set(recipe.lora_sha256) == {"ink wash"}


@pytest.mark.parametrize("wish", [["--lora", "ink:much"], ["--variation", "7"], ["--variation", "a:b"]])
def test_a_wish_of_another_form_is_wrong_usage(tmp_path: Path, wish: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["draw", "a", *wish, "--out", str(tmp_path / "a.png")])
    assert stopped.value.code == 2


def test_an_output_that_cannot_be_written_is_said_before_drawing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", "a", "--out", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert main(["draw", "a", "--out", str(tmp_path / "gone" / "a.png")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_a_picture_never_takes_the_place_of_a_pipe_or_a_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["draw", "a", "--out", str(pipe)]) == 1
    assert "device or a pipe" in capsys.readouterr().err
    assert pipe.is_fifo()


def test_words_that_are_no_numbers_are_wrong_usage(tmp_path: Path) -> None:
    done = _run("a", "--seed", "many", "--out", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "invalid int value: 'many'" in done.stderr


def test_a_device_of_another_name_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["draw", "a", "--device", "gpu", "--out", str(tmp_path / "a.png")])
    assert stopped.value.code == 2
    assert "cuda:N, not 'gpu'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA card")
def test_a_device_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "a", "--device", "cuda:7", "--out", str(tmp_path / "a.png")]) == 1
    assert "no device cuda:7" in capsys.readouterr().err


def test_the_weights_folder_comes_from_the_environment(tmp_path: Path) -> None:
    done = _run("a cat", "--out", str(tmp_path / "a.png"), KILN_WEIGHTS=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "none" in done.stderr


def test_a_bad_request_is_refused_without_loading_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom gen.__main__ import main\n"
        f"assert main(['draw', 'a', '--steps', '99', '--out', {str(tmp_path / 'a.png')!r}]) == 1\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
