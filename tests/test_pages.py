"""The pages tell the truth: the files, tests, settings and commands they name exist; the code is as small as said."""

import ast
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bot.__main__ import main
from bot.doctor.cards import expected
from bot.invite import PERMISSION_NAMES, invite_link
from bot.settings import Settings, variable
from gen.weights import DEMO_WEIGHTS

ROOT = Path(__file__).parent.parent
GUIDES = ("docs/host.md", "docs/zh/host.md", "docs/service.md", "docs/settings.md")
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", *GUIDES)
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
    modules = {path.relative_to(ROOT) for path in sources("bot", "gen") if path.name != "__init__.py"}
    mapped: set[Path] = set()
    for row in re.findall(r"^\| `(?:bot|gen)/.*$", read("ARCHITECTURE.md"), re.MULTILINE):
        folders, names = (SPAN.findall(cell) for cell in row.split("|")[1:3])
        mapped |= {Path(folder) / f"{name}.py" for folder in folders for name in names}
    assert {module for module in modules if not module.is_relative_to("gen/demo")} - mapped == set()


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    targets = [target for target in LINK.findall(read(page)) if "://" not in target]
    folder = (ROOT / page).parent
    assert [target for target in targets if not (folder / target.partition("#")[0]).exists()] == []


def test_the_page_of_settings_names_each_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        shown = {None: "", DEMO_WEIGHTS: "the demo model"}.get(field.default, f"`{field.default}`")
        cells = " | ".join(cell for cell in (f"`{variable(name)}`", shown) if cell)
        assert f"| {cells} |" in read("docs/settings.md"), name


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_setting_that_is_not_there(page: str) -> None:
    assert set(re.findall(r"\bKILN_[A-Z_]+", read(page))) <= {variable(name) for name in Settings.model_fields}


@pytest.mark.parametrize("page", ["README.md", "docs/host.md", "docs/zh/host.md"])
def test_pages_for_operators_have_the_invite_link_and_the_permissions(page: str) -> None:
    assert f"`{invite_link(None)}`" in read(page)
    assert [name for name in PERMISSION_NAMES.split(", ") if name not in " ".join(read(page).split())] == []


@pytest.mark.parametrize("page", ["docs/host.md", "docs/zh/host.md"])
def test_the_buying_guide_has_the_planners_numbers(page: str) -> None:
    words = {"docs/host.md": ("yes", "no", " of "), "docs/zh/host.md": ("有", "无", " / ")}[page]
    for card in expected():
        cores, streamed = words[0 if card.float8_cores else 1], f"{card.streamed_blocks}{words[2]}57"
        row = f"| {card.card} | {card.memory_gib} GB | {cores} | {streamed} | {card.seconds:.0f} |"
        assert row in read(page)


def test_both_languages_of_the_guide_have_the_same_parts_and_the_same_commands() -> None:
    english, chinese = read("docs/host.md"), read("docs/zh/host.md")
    for mark in (r"^## ", r"^\*\*", r"^\d\. ", r"^\|", r"^- "):
        counts = [len(re.findall(mark, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1], mark
    assert FENCE.findall(english) == FENCE.findall(chinese)


RUNNABLE = ("kiln db", "kiln pause", "kiln resume", "kiln weights list", "kiln doctor", "kiln draw", "kiln commands")
ONCE = ("kiln doctor", "kiln draw")  # they take seconds, and their second time shows nothing new


def test_the_guides_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that need no token, no network and no root; in an empty folder, as somebody would type them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "models"))
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    assert main(["db", "upgrade"]) == 0
    done = set()
    for page in ("README.md", *GUIDES):
        lines = [line.removeprefix(".venv/bin/").replace("/var/lib/kiln/", f"{tmp_path}/") for line in code(page)]
        lines = [line.replace("$(date +%F)", "2026-11-24").replace("THE_DATE", "2026-11-24") for line in lines]
        run = [line for line in lines if line.startswith(RUNNABLE) and not line.endswith("…") and "|" not in line]
        for line in run:
            if line not in done or not line.startswith(ONCE):
                assert main(shlex.split(line, comments=True)[1:]) == 0, (line, capsys.readouterr().err)
            done.add(line)
        assert run or page == "docs/settings.md"
    assert (tmp_path / "house.png").exists()


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
