"""The command line of `python -m gen bench`: what is wrong is one line, and leaves earlier results as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gen.__main__ import main
from gen.bench import gpu
from gen.request import SEED_MAX
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


@pytest.mark.parametrize("option", ["--plot", "--out"])
@pytest.mark.parametrize(
    "content",
    [
        (RESULTS / "queue.json").read_text(),
        "[1, 2]",
        "not JSON",
        json.dumps({**FOUND, "rows": [{"system": "kiln"}]}),
        json.dumps({**FOUND, "ceilings": "none"}),
    ],
)
def test_a_file_that_holds_no_results_is_named_in_one_line_and_stays(
    option: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    assert main(["bench", "gpu", "--weights", str(DEMO_WEIGHTS), "--size", "128x128", option, str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kiln bench: {file} does not hold results of `bench gpu` (")
    assert file.read_text() == content


def test_results_of_earlier_runs_are_read() -> None:
    for path in [*RESULTS.glob("gpu-*.json"), *RESULTS.glob("h200-*.json")]:
        with gpu.results(path) as found:
            assert found["rows"]


@pytest.mark.parametrize("seed", [-1, SEED_MAX + 1, 99999999999999999999999])
def test_a_seed_that_is_none_is_refused_before_anything_is_written(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "synth", "--shape", "demo", "--seed", str(seed), str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err == f"kiln bench: --seed must be from 0 to 4,294,967,295; it is {seed:,}.\n"
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_stopped_while_it_is_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(folder: Path, **_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gen.bench.synth.synthesize", stopped)
    assert main(["bench", "synth", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"kiln bench: stopped; {tmp_path} holds no whole model.\n"


def test_the_parents_side_needs_no_torch() -> None:
    code = "import sys, gen.bench.command, gen.bench.gpu; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
