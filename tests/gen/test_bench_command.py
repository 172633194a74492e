"""The command line of `python -m gen bench`: what is wrong is one line, and leaves earlier results as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gen.__main__ import main
from gen.weights import DEMO_WEIGHTS

RESULTS = Path(__file__).parents[2] / "bench" / "results"
FOUND = json.loads((RESULTS / "gpu-512x512.json").read_text())  # an earlier run's


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--systems", "kiln,magic"], "There is no system 'magic' to measure"),
        (["--steps", "1"], "--steps is 2 or more"),
        (["--size", "4096x4096"], "pixels"),
        (["--budgets", "tiny"], "--budgets is a list of GiB or all"),
        (["--weights", "nowhere"], "There is no weights folder"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "gpu", "--weights", str(DEMO_WEIGHTS), "--size", "128x128", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_weights_folder_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KILN_WEIGHTS", str(tmp_path / "mine"))
    assert main(["bench", "gpu", "--peers", "--json"]) == 1
    assert capsys.readouterr().err == f"kiln bench: There is no weights folder at {tmp_path / 'mine'}.\n"


def test_where_no_model_is_named_the_error_says_which_command_makes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KILN_WEIGHTS", raising=False)
    assert main(["bench", "gpu", "--size", "1024x1024"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "draws a width of 128 to 384 pixels; it is 1024. `python -m gen bench synth DIR` makes" in line


def test_without_a_card_nothing_is_written_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    out.write_text(before := json.dumps({**FOUND, "size": "128x128", "steps": 20}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["bench", "gpu", "--weights", str(DEMO_WEIGHTS), "--size", "128x128", "--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith("kiln bench: Nothing can be measured on cuda: ")
    assert out.read_text() == before


def test_the_parents_side_needs_no_torch() -> None:
    code = "import sys, gen.bench.command, gen.bench.gpu; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
