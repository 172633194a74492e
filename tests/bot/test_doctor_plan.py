"""`kiln doctor --plan`: a table for what is here, and one readable line for what cannot be."""

import json
from pathlib import Path

import pytest

from bot.doctor.plan import lines, plan_here
from bot.doctor.torch_side import Torch
from bot.settings import Settings, load_settings
from gen.errors import GenerationError
from gen.streaming.cards import GIB
from gen.weights import DEMO_WEIGHTS
from tests.bot.test_command_line import kiln

CARD = Torch(
    version="2.11",
    cards=["NVIDIA GeForce RTX 4060 Ti"],
    mps=False,
    memory=[8 * GIB],
    free=[7 * GIB],
    capability=[(8, 9)],
)
NO_CARD = Torch(version="2.11", cards=[], mps=False)


@pytest.fixture
def settings() -> Settings:
    return load_settings(weights=DEMO_WEIGHTS)


def test_it_prints_a_table(tmp_path: Path) -> None:
    done = kiln(tmp_path, "doctor", "--plan", "6.8GiB")
    assert done.returncode == 0, done.stderr
    for words in ("256x256, 12 steps, float8", "within 6.80 GiB", "blocks on the card", "peak ", "a step"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plan", "lots"], "A budget is a size such as 6.8GiB, 900MiB, or all; it is 'lots'."),
        (["--plan", "1MiB"], "is too small for 256x256 pixels in float8: the smallest that works is"),
        (["--plan", "6", "--size", "100x100"], "draws a width of 128 to 384 pixels; it is 100."),
        (["--plan", "6", "--size", "big"], "A size is width x height in pixels"),
    ],
)
def test_a_mistake_is_one_readable_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = kiln(tmp_path, "doctor", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_is_what_is_free_less_half_a_gib(settings: Settings) -> None:
    card, plan = plan_here(settings, "all", size=None, ask=lambda: CARD)
    assert plan.budget_bytes == 6.5 * GIB
    assert card.name == "NVIDIA GeForce RTX 4060 Ti"


def test_more_than_the_card_has_is_refused(settings: Settings) -> None:
    with pytest.raises(GenerationError, match=r"9\.00 GiB is more than NVIDIA GeForce RTX 4060 Ti has"):
        plan_here(settings, "9GiB", size=None, ask=lambda: CARD)


def test_the_settings_precision_is_planned_for(tmp_path: Path) -> None:
    done = kiln(tmp_path, "doctor", "--plan", "2GiB", KILN_PRECISION="bfloat16")
    assert "256x256, 12 steps, bfloat16" in done.stdout


def test_without_a_card_it_says_which_one_it_figures_with(settings: Settings) -> None:
    card, plan = plan_here(settings, "2GiB", size=None, ask=lambda: NO_CARD)
    assert "no card here" in next(lines(card, plan, as_json=False))


def test_json_has_the_peak_and_the_parts(settings: Settings) -> None:
    told = json.loads(next(lines(*plan_here(settings, "2GiB", size=None, ask=lambda: CARD), as_json=True)))
    assert told["peak_bytes"] <= told["budget_bytes"] == 2 * GIB
    assert told["rung"]["slots"] == 0
