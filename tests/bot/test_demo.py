"""The demo without a browser: what stops its start, and what a kept data folder brings back."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.app import open_kiln
from bot.demo import command as demo
from bot.demo.look import STEP_SECONDS, Paced
from bot.demo.page import LivePage
from bot.demo.stage import set_stage
from bot.errors import StartError
from bot.settings import load_settings
from tests.bot.conftest import Stage
from tests.fakes import FakeGenerator, image_request

ROOT = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from bot.demo.command import run_demo
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


class Visitor:
    """A browser without a screen: one page of the demo, acted on in simcord's protocol."""

    def __init__(self, session: aiohttp.ClientSession, page: dict[str, Any]) -> None:
        self._session, self._sequence = session, 0
        self._headers = {"X-Simcord-Context": page["context"]["id"]}
        self.page = page

    async def act(self, kind: str, *, stale: int = 0, **body: Any) -> tuple[bool, str]:
        """Do something, on a page published `stale` revisions ago; return (rejected, settlement)."""
        self._sequence += 1
        action = {
            "kind": kind,
            "protocol_version": 3,
            "sequence": self._sequence,
            "request_id": f"request-{self._sequence}",
            "generation": self.page["context"]["generation"],
            "bot_generation": self.page["botGeneration"],
            "published_revision": self.page["publishedRevision"] - stale,
        }
        async with self._session.post("/api/action", json={**action, **body}, headers=self._headers) as answered:
            receipt = await answered.json()
        async with self._session.get("/api/state", headers=self._headers) as answered:
            self.page = await answered.json()
        return receipt["rejected"], receipt["settlement"]

    @property
    def channel(self) -> str:
        return str(self.page["channel"]["name"])

    def person(self, name: str) -> str:
        """The id of a person on the page's list."""
        return next(str(viewer["id"]) for viewer in self.page["viewers"] if viewer["name"] == name)


@contextlib.asynccontextmanager
async def visit(folder: Path) -> AsyncIterator[tuple[Visitor, dict[str, str]]]:
    """Open the demo's page; yield it, and its channels' ids by name."""
    settings = load_settings(data=folder)
    async with open_kiln(settings, load=FakeGenerator, remember_sync=False) as bot, demo._page(bot, port=0) as url:
        address, _, key = url.partition("/#")
        async with aiohttp.ClientSession(address, headers={"X-Simcord-Capability": key}) as session:
            async with session.post("/api/pages", json={}) as opened:
                page = await opened.json()
            yield Visitor(session, page), {it.name: str(it.id) for it in bot.get_all_channels()}


async def test_an_action_counts_although_the_page_was_published_since(tmp_path: Path) -> None:
    """Our own refreshing must not make the page refuse what somebody clicks meanwhile."""
    async with visit(tmp_path) as (visitor, _):
        assert await visitor.act("browse_messages", stale=1, query="", filter="all", cursor=None) == (False, "settled")


async def test_a_moderator_enters_the_keepers_channel_and_what_she_writes_stands_there(tmp_path: Path) -> None:
    async with visit(tmp_path) as (visitor, channels):
        await visitor.act("viewer", viewer_id=f"{visitor.person('Ada')}@{channels['keepers']}")
        assert visitor.channel == "keepers"
        assert await visitor.act("send_message", content="Ada was here", target_id=None, reply_to_id=None) == (
            False,
            "settled",
        )
        assert [row["excerpt"] for row in visitor.page["messageIndex"]] == ["Ada was here"]


async def test_a_newcomer_does_not_see_the_keepers_channel(tmp_path: Path) -> None:
    async with visit(tmp_path) as (visitor, channels):
        await visitor.act("viewer", viewer_id=f"{visitor.person('Ben')}@{channels['keepers']}")
        assert visitor.channel == "pictures"
        await visitor.act("viewer", viewer_id=f"{visitor.person('Ada')}@{channels['keepers']}")
        await visitor.act("viewer", viewer_id=visitor.person("Ben"))  # from where he may not stay
        assert visitor.channel == "pictures"


async def test_a_page_that_still_asks_while_the_demo_ends_leaves_no_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.env.backend.edit_bot_profile("Kiln")  # as the demo does
    shown = set_stage(stage.env)
    preview = stage.env.preview(shown.channels[0], viewers=shown.people, layout="channel", port=0)
    async with preview:
        live = LivePage(preview, shown)
    live._seen = -1  # something has happened since
    with contextlib.suppress(Exception):  # what the browser is told then is simcord's
        await live._true_state(None)
    assert "could not be refreshed" not in caplog.text


async def test_nobody_becomes_somebody_who_is_not_there(tmp_path: Path) -> None:
    async with visit(tmp_path) as (visitor, channels):
        for stranger in ("0", f"0@{channels['keepers']}", "Ada", ""):
            rejected, _ = await visitor.act("viewer", viewer_id=stranger)
            visitor._sequence -= 1  # what is rejected is not counted
            assert (rejected, visitor.channel) == (True, "pictures")


async def test_moderators_alone_are_offered_what_moderators_do(stage: Stage) -> None:
    stage.env.backend.edit_bot_profile("Kiln")  # as the demo does
    shown = set_stage(stage.env)
    you, ada, ben = shown.people
    (pictures, _) = shown.channels
    offered = [{"mod pause", "server"} & set(person.available_commands(pictures)) for person in (you, ada, ben)]
    assert offered == [set(), {"mod pause", "server"}, set()]
