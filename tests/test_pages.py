"""The pages tell the truth: the files, tests, settings and commands they name exist; the code is as small as said."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from bot.__main__ import main
from bot.invite import invite_link
from bot.settings import Settings, variable
from gen.weights import DEMO_WEIGHTS

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
LINES_MAX, README_LINES_MAX, FILE_LINES_MAX, FUNCTION_LINES_MAX = 150, 110, 300, 40

FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]*|\.?[\w-]+(?:\.[\w-]+)*\.(?:py|md|toml|txt|example)")
NOT_THERE = frozenset({"utils.py"})  # named because Kiln has none
LINK = re.compile(r"\]\(([^)\s]+)\)")


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def code(page: str) -> list[str]:
    """Every line of code of a page: of its fenced blocks, and its spans."""
    text = read(page)
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()]
    return [*blocks, *SPAN.findall(FENCE.sub("", text))]


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def names_of_tests() -> set[str]:
    trees = (ast.parse(path.read_text("utf-8")) for path in sources("tests"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


def test_the_architecture_and_the_readme_stay_short() -> None:
    assert len(read("ARCHITECTURE.md").splitlines()) <= LINES_MAX
    assert len(read("README.md").splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = {name for line in code(page) for name in re.findall(r"\btest_\w+\b(?!\.py)", line)}
    assert named - names_of_tests() == set()


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = {word for span in SPAN.findall(FENCE.sub("", read(page))) for word in span.split() if FILE.fullmatch(word)}
    assert named
    assert [name for name in named - NOT_THERE if not name.startswith(".venv/") and not (ROOT / name).exists()] == []


def test_the_code_map_has_every_module_outside_the_demo_model() -> None:
    modules = {str(path.relative_to(ROOT)) for path in sources("bot", "gen") if path.name != "__init__.py"}
    mapped = set(SPAN.findall(read("ARCHITECTURE.md")))
    assert {name for name in modules if not name.startswith("gen/demo/")} - mapped == set()


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    targets = [target for target in LINK.findall(read(page)) if "://" not in target]
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []


def test_the_readme_names_every_setting_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        shown = {None: "", DEMO_WEIGHTS: "the demo model"}.get(field.default, f"`{field.default}`")
        cells = " | ".join(cell for cell in (f"`{variable(name)}`", shown) if cell)
        assert f"| {cells} |" in read("README.md"), name


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_setting_that_is_not_there(page: str) -> None:
    assert set(re.findall(r"\bKILN_[A-Z_]+", read(page))) <= {variable(name) for name in Settings.model_fields}


def test_the_readme_has_the_invite_link() -> None:
    assert f"`{invite_link(None)}`" in read("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    calls = {found[1] for line in code(page) if (found := re.match(r"(?:\.venv/bin/)?kiln ([a-z]+(?: [a-z]+)?)", line))}
    for call in calls:
        with pytest.raises(SystemExit) as ended:
            main([*call.split(), "--help"])
        assert ended.value.code == 0, capsys.readouterr().err
    for line in code(page):
        for module in re.findall(r"\bpython -m ([\w.]+)", line):
            assert importlib.util.find_spec(module), module
        for target in re.findall(r"^make ([a-z]+)", line):
            assert f"\n{target}:" in read("Makefile"), target


def test_files_and_functions_stay_small() -> None:
    for path in sources("bot", "gen"):
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= FILE_LINES_MAX, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, f"{path}: {node.name}"


def test_the_screenshot_is_small_enough_for_a_page() -> None:
    assert (ROOT / "docs" / "demo.png").stat().st_size <= 400 * 1024
