"""`kiln`, as processes: exit codes, one readable line for each mistake, and no torch where none is needed."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.__main__ import main
from bot.client import create_bot
from bot.doctor.card import device as judge_device
from bot.doctor.command import _database, _token
from bot.doctor.finding import Status
from bot.doctor.torch_side import Torch
from bot.settings import Settings
from bot.storage.database import upgrade
from gen.weights import DEMO_WEIGHTS

ROOT = Path(__file__).parents[2]
TOKEN = "MTQ1NjA3NDQ0Mzk4MDgwMDAwMA.Gabcde.not-a-real-one"
WITHOUT_MODEL = """
import sys, types, discord.http
from tests.fakes import FakeGenerator
fake = types.ModuleType("gen.flux")
fake.load_generator = lambda folder, device=None, tuning=None, loras=None: FakeGenerator()
sys.modules["gen.flux"] = fake
discord.http.Route.BASE = {url!r}
from bot.__main__ import main
sys.exit(main(["run"]))
"""


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start Python with `arguments` in an empty folder, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KILN_", "DISCORD_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def kiln(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "bot", *arguments, **settings)


def complaint(done: subprocess.CompletedProcess[str], *, code: int = 1) -> str:
    """The one line on stderr of a command that failed."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("kiln: ")
    return line


def test_a_disk_that_refuses_is_not_blamed_on_discord(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/kiln.sqlite3")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISCORD_TOKEN", TOKEN)
    monkeypatch.setattr("bot.__main__.run_until_stopped", refuse)
    assert main(["run"]) == 1
    told = capsys.readouterr().err
    assert "No space left on device: 'data/kiln.sqlite3'" in told
    assert "Discord" not in told


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["demo"],
        ["draw"],
        ["commands"],
        ["doctor"],
        ["db"],
        ["db", "upgrade"],
        ["db", "check"],
        ["db", "backup"],
    ],
)
def test_every_command_has_a_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: {' '.join(['kiln', *command])} " in told
    assert re.search(r"\n\n[A-Z][^:]+\.\n", told), "it does not say what the command does"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["run", "--fast"],
        ["db"],
        ["db", "backup"],
        ["demo", "--port", "99999"],
        ["console", "--port", "0"],
    ],
)
def test_a_wrong_call_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: kiln" in capsys.readouterr().err


def test_without_a_token_it_says_where_to_get_one_and_how_to_invite(tmp_path: Path) -> None:
    done = kiln(tmp_path, "run")
    assert done.returncode == 1
    assert done.stderr.startswith("kiln: DISCORD_TOKEN is not set")
    for needed in (
        "https://discord.com/developers/applications",
        "bot and applications.commands",
        "View Channels, Send Messages, Send Messages in Threads, Attach Files, Embed Links, Read Message History",
        "client_id=YOUR_APPLICATION_ID&permissions=274878024704&scope=bot+applications.commands",
    ):
        assert needed in done.stderr


@pytest.fixture
def unwilling_discord() -> Iterator[str]:
    """A Discord that accepts no token."""

    class Unwilling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"message": "401: Unauthorized", "code": 0}'
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Unwilling)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wrong_token_gets_the_same_help_with_the_ready_link(tmp_path: Path, unwilling_discord: str) -> None:
    done = run(tmp_path, "-c", WITHOUT_MODEL.format(url=unwilling_discord), DISCORD_TOKEN=TOKEN)
    assert done.returncode == 1
    assert "kiln: Discord does not accept DISCORD_TOKEN." in done.stderr
    assert "client_id=1456074443980800000&" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr
    assert "not-a-real-one" not in done.stderr


def test_an_unreachable_discord_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", WITHOUT_MODEL.format(url="http://127.0.0.1:9"), DISCORD_TOKEN=TOKEN)
    assert done.returncode == 1
    assert "kiln: Discord cannot be reached" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_weights_folder_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert complaint(kiln(tmp_path, "run", DISCORD_TOKEN=TOKEN, KILN_WEIGHTS="empty")).startswith(
        "kiln: empty lacks the DiT"
    )


@pytest.mark.parametrize("command", ["run", "draw"])
def test_missing_weights_are_named_before_torch_is_loaded(tmp_path: Path, command: str) -> None:
    arguments = {"run": ["run"], "draw": ["draw", "a cat", "--out", "a.png"]}[command]
    code = (
        f"import sys\nfrom bot.__main__ import main\nassert main({arguments!r}) == 1\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    done = run(tmp_path, "-c", code, DISCORD_TOKEN=TOKEN, KILN_WEIGHTS="nowhere")
    assert "There is no weights folder at nowhere" in done.stderr
    assert done.returncode == 0, done.stderr


def test_draw_takes_the_model_of_the_settings_and_of_dot_env(tmp_path: Path) -> None:
    draw = ["draw", "a cat", "--out", "a.png"]
    (line,) = kiln(tmp_path, *draw, KILN_WEIGHTS="elsewhere").stderr.splitlines()
    assert line == "kiln draw: There is no weights folder at elsewhere."
    (tmp_path / ".env").write_text("KILN_WEIGHTS=from_dot_env\n")
    assert "from_dot_env" in kiln(tmp_path, *draw).stderr
    assert "by_hand" in kiln(tmp_path, *draw, "--weights", "by_hand").stderr


def test_draw_takes_the_memory_that_may_be_locked_of_the_settings(tmp_path: Path) -> None:
    draw = ["draw", "a cat", "--out", "a.png", "--precision", "float8"]
    line = kiln(tmp_path, *draw, KILN_PINNED_MEMORY="900000GiB").stderr.splitlines()[-1]
    assert line.startswith("kiln draw: 900000.00 GiB of pinned memory is more than this machine has: ")


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    done = kiln(tmp_path, "draw", " ", "--out", "a.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kiln draw: The prompt is empty: say what to draw.\n"


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("KILN_WIEGHTS", "x", "did you mean KILN_WEIGHTS?"),
        ("KILN_BURST", "ten", "valid integer"),
        ("KILN_DEVICE", "gpu", "auto, cpu, mps, cuda or cuda:N"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(tmp_path: Path, name: str, value: str, word: str) -> None:
    assert word in complaint(kiln(tmp_path, "db", "check", **{name: value}))


def test_the_database_is_made_checked_and_copied(tmp_path: Path) -> None:
    assert kiln(tmp_path, "db", "upgrade").returncode == 0
    checked = kiln(tmp_path, "db", "check")
    assert "sound, 0 jobs" in checked.stdout
    assert kiln(tmp_path, "db", "backup", "copy.sqlite3").stdout == "copy.sqlite3\n"
    assert "exists already" in complaint(kiln(tmp_path, "db", "backup", "copy.sqlite3"))


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    assert kiln(tmp_path, "db", "check", "--models").stdout == "models and migrations agree\n"


def test_models_and_migrations_that_differ_are_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    differences = ("add_column jobs.mood", "index jobs_by_mood")
    monkeypatch.setattr("bot.storage.database.model_differences", lambda: differences)
    assert main(["db", "check", "--models"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert tuple(line.partition("differ: ")[2] for line in said.err.splitlines()) == differences


@pytest.mark.parametrize(("option", "value"), [("--seconds", "nan"), ("--seconds", "0"), ("--histories", "-1")])
def test_a_bench_without_end_is_refused(tmp_path: Path, option: str, value: str) -> None:
    refused = kiln(tmp_path, "bench", "queue", f"{option}={value}")
    assert refused.returncode == 2
    assert "it is a whole number from 1 to" in refused.stderr
    assert value in refused.stderr


def test_a_missing_database_is_one_line(tmp_path: Path) -> None:
    assert "kiln.sqlite3" in complaint(kiln(tmp_path, "db", "check"))


@pytest.mark.parametrize("command", [["db", "check"], ["db", "upgrade"], ["db", "backup", "copy"]])
def test_a_file_that_is_no_database_is_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kiln.sqlite3").write_bytes(b"not a database" * 500)
    assert "data/kiln.sqlite3 is not a database" in complaint(kiln(tmp_path, *command))


def test_a_corrupt_database_is_not_copied_as_if_it_were_sound(tmp_path: Path) -> None:
    kiln(tmp_path, "db", "upgrade")
    with (tmp_path / "data" / "kiln.sqlite3").open("rb+") as file:
        file.seek(4100)
        file.write(b"x" * 20)
    assert "data/kiln.sqlite3 is corrupt" in complaint(kiln(tmp_path, "db", "backup", "copy.sqlite3"))
    assert not (tmp_path / "copy.sqlite3").exists()


def test_a_database_of_a_newer_kiln_is_refused(tmp_path: Path) -> None:
    kiln(tmp_path, "db", "upgrade")
    with sqlite3.connect(tmp_path / "data" / "kiln.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer Kiln" in complaint(kiln(tmp_path, "db", "check"))
    assert "newer Kiln" in complaint(kiln(tmp_path, "db", "upgrade"))


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (["db", "upgrade"], ["db", "check"]):
        assert "file" in complaint(kiln(tmp_path, *command, KILN_DATA="file/data"))


def test_the_commands_are_listed_for_people_and_as_discord_gets_them(tmp_path: Path) -> None:
    assert (
        "/imagine prompt [seed] [size] [steps] [guidance] [style] [lora] [lora_strength] [negative] [count] [private]: "
        in kiln(tmp_path, "commands").stdout
    )
    payloads = json.loads(kiln(tmp_path, "commands", "--json").stdout)
    assert payloads == json.loads(json.dumps(asyncio.run(create_bot().payloads())))


@pytest.mark.parametrize(
    "arguments", [["commands"], ["db", "upgrade"], ["run"], ["draw", "--help"], ["weights", "list"]]
)
def test_these_commands_never_load_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import contextlib, sys\nfrom bot.__main__ import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    assert run(tmp_path, "-c", code).returncode == 0


def test_weights_is_python_m_gen_weights_with_the_model_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"KILN_WEIGHTS={DEMO_WEIGHTS}\n")
    assert kiln(tmp_path, "weights", "where").stdout == f"{DEMO_WEIGHTS}\n"
    done = kiln(tmp_path, "weights", "pull", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kiln weights: There is no model 'nothing'")


def test_the_doctor_names_each_trouble_and_its_cure(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = kiln(tmp_path, "doctor", "--json", KILN_WEIGHTS="empty", KILN_DEVICE="cpu")
    assert done.returncode == 1
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["checks"]}
    assert findings["weights"]["status"] == "fail"
    assert "KILN_WEIGHTS" in findings["weights"]["cure"]
    assert findings["token"]["status"] == "warn"
    assert findings["database"]["status"] == "ok"
    assert {"/cancel", "/imagine", "/queue", "/server", "Report picture"} <= set(
        findings["commands"]["detail"].split(", ")
    )


@pytest.mark.parametrize("made", [True, False], ids=["a database", "none yet"])
def test_the_doctor_finds_a_folder_that_cannot_be_written(
    tmp_path: Path, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, data=tmp_path)  # type: ignore[call-arg]
    if made:
        upgrade(settings.database, now=datetime.now(UTC))
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda place, mode, **_: place != tmp_path and allowed(place, mode))
    finding = _database(settings)
    assert finding.status is Status.FAIL
    assert f"{tmp_path} cannot be written" in finding.detail


@pytest.mark.parametrize(
    ("token", "status", "word"),
    [
        ("   ", Status.WARN, "is not set"),
        ("secret", Status.WARN, "does not look like a token"),
        (f" {TOKEN} ", Status.OK, "client_id=1456074443980800000&"),
    ],
)
def test_the_doctor_judges_the_token_as_run_does(token: str, status: Status, word: str) -> None:
    finding = _token(Settings(_env_file=None, discord_token=SecretStr(token)))  # type: ignore[call-arg]
    assert finding.status is status
    assert word in f"{finding.detail} {finding.cure}"
    assert token.strip() not in finding.cure or not token.strip()


def test_what_people_write_stays_out_of_the_log_at_debug(tmp_path: Path) -> None:
    code = (
        "import logging\nfrom bot.logs import log_to_stderr\nlog_to_stderr('DEBUG')\n"
        "for name in ('sqlalchemy.engine', 'discord.gateway', 'bot'):\n"
        "    logging.getLogger(name).debug('of %s', name)"
    )
    (line,) = run(tmp_path, "-c", code).stderr.splitlines()
    assert line.endswith("of bot")


def test_the_doctor_says_what_will_happen_here(tmp_path: Path) -> None:
    done = kiln(tmp_path, "doctor", KILN_DEVICE="cpu")
    assert done.returncode == 0, done.stdout
    assert "draws on the CPU with the small demo model" in done.stdout


def test_the_doctor_finds_a_mistake_in_the_settings(tmp_path: Path) -> None:
    done = kiln(tmp_path, "doctor", KILN_WIEGHTS="x")
    assert done.returncode == 1
    assert "fail  settings: KILN_WIEGHTS is not a setting" in done.stdout


@pytest.mark.parametrize(
    ("device", "cards", "mps", "status", "word"),
    [
        ("auto", ["NVIDIA H200"], False, Status.OK, "NVIDIA H200"),
        ("cuda:1", ["first", "second"], False, Status.OK, "second"),
        ("cuda:2", ["first", "second"], False, Status.FAIL, "sees 2 cards"),
        ("cuda", [], False, Status.FAIL, "sees 0 cards"),
        ("cpu", ["NVIDIA H200"], False, Status.OK, "the CPU"),
        ("auto", [], True, Status.WARN, "the Mac's graphics chip"),
        ("auto", [], False, Status.OK, "the CPU"),
        ("mps", [], True, Status.WARN, "the Mac's graphics chip"),
        ("mps", [], False, Status.FAIL, "KILN_DEVICE is mps"),
    ],
)
def test_the_doctor_knows_where_kiln_draws(device: str, cards: list[str], mps: bool, status: Status, word: str) -> None:
    settings = Settings(_env_file=None, device=device)  # type: ignore[call-arg]
    finding, _ = judge_device(Torch(version="2.11", cards=cards, mps=mps), settings, None)
    assert finding.status is status
    assert word in finding.detail
