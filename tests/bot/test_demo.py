"""The demo without a browser: what stops its start, and what a kept data folder brings back."""

from __future__ import annotations

import importlib.metadata
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from bot import demo
from bot.app import open_kiln
from bot.demo_look import STEP_SECONDS, Paced
from bot.errors import StartError
from bot.settings import load_settings
from tests.fakes import FakeGenerator, image_request

ROOT = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from bot.demo import run_demo
from tests.fakes import FakeGenerator
sys.exit(run_demo(load=FakeGenerator, port=0, data=Path(sys.argv[1]), open_browser=False))
"""


def installed(versions: dict[str, str]) -> Callable[[str], str]:
    def version(package: str) -> str:
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    return version


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.metadata, "version", installed({"discord.py": "2.7.1"}))
    with pytest.raises(StartError, match=r"pip install 'kiln-bot\[demo\]'"):
        demo.run_demo(load=FakeGenerator, port=0, data=tmp_path, open_browser=False)


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", installed({"simcord": "3.3.0", "discord.py": "2.7.1"}))
    with pytest.raises(StartError, match=r"simcord 3\.2\.1, found 3\.3\.0"):
        demo.check_versions()


def test_a_taken_port_is_one_readable_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"could not bind port {port}.*--port 0"):
            demo.run_demo(load=FakeGenerator, port=port, data=tmp_path, open_browser=False)


def test_the_usual_port_gives_way_to_any_other_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(demo, "PORT", taken.getsockname()[1])
        assert demo.usual_port() == 0
        assert f"port {demo.PORT} is in use" in capsys.readouterr().err
    assert demo.usual_port() == demo.PORT
    assert capsys.readouterr().err == ""


def test_the_seconds_that_the_demo_shows_are_of_the_drawing_without_its_pauses() -> None:
    began = time.perf_counter()
    result = Paced(FakeGenerator()).paint(image_request(steps=2), on_step=lambda report: None).finish()
    assert time.perf_counter() - began > 2 * STEP_SECONDS
    assert result.seconds < STEP_SECONDS


def test_a_kept_data_folder_shows_its_people_and_channel_again(tmp_path: Path) -> None:
    """The second demo draws what the first one left, for the same person, and ends without a complaint."""
    data = tmp_path / "data"
    for _ in range(2):
        command = [sys.executable, "-c", SERVE, str(data)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as served:
            assert served.stdout is not None
            assert re.search(r"http://127\.0\.0\.1:\d+/#\S+", served.stdout.readline())
            assert "on purpose" in served.stdout.readline()
            served.terminate()
            _, complaints = served.communicate(timeout=20)
        assert (served.returncode, complaints) == (0, "")
    assert jobs_and_people(data / "kiln.sqlite3") == (2, 1)


def jobs_and_people(database: Path) -> tuple[int, int]:
    """How many jobs there are, and from how many people in different channels."""
    counts = "SELECT count(*), count(DISTINCT user_id || '/' || channel_id) FROM jobs"
    with closing(sqlite3.connect(database)) as connection:
        jobs, people = connection.execute(counts).fetchone()
    return jobs, people


async def test_an_action_counts_although_the_page_was_published_since(tmp_path: Path) -> None:
    """Our own refreshing must not make the page refuse what somebody clicks meanwhile."""
    settings = load_settings(data=tmp_path)
    async with open_kiln(settings, load=FakeGenerator, remember_sync=False) as bot, demo._page(bot, port=0) as url:
        address, _, key = url.partition("/#")
        headers = {"X-Simcord-Capability": key}
        async with aiohttp.ClientSession(address, headers=headers) as browser:
            async with browser.post("/api/pages", json={}) as opened:
                page = await opened.json()
            action = {
                "kind": "browse_messages",
                "query": "",
                "filter": "all",
                "cursor": None,
                "protocol_version": 3,
                "sequence": 1,
                "request_id": "one",
                "generation": page["context"]["generation"],
                "bot_generation": page["botGeneration"],
                "published_revision": page["publishedRevision"] - 1,
            }
            context = {"X-Simcord-Context": page["context"]["id"]}
            async with browser.post("/api/action", json=action, headers=context) as answered:
                receipt = await answered.json()
    assert (receipt["rejected"], receipt["settlement"]) == (False, "settled")
