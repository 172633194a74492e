"""Kiln as a service: a hung GPU thread is ended as systemd's watchdog ends it, and nothing is lost; pauses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback.world import Channel, Person
from tests.loopback_discord import LoopbackDiscord

PATIENCE = "0.5"  # seconds of silence, instead of the product's 25


class Systemd:
    """The socket on which systemd listens to a service."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Every message so far."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with closing(Systemd(tmp_path)) as listening:
        yield listening


@pytest.fixture
def web(kiln: KilnProcess) -> str:
    """The address of the process's health pages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    kiln.settings["KILN_WEB"] = address
    return f"http://{address}"


async def until_page(url: str, status: int, *, seconds: float = 20) -> str:
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as answer:
                if answer.status == status:
                    return await answer.text()
            await asyncio.sleep(0.02)


async def test_a_hung_gpu_thread_fails_livez_starves_the_watchdog_and_its_restart_loses_nothing(
    loopback: LoopbackDiscord, kiln: KilnProcess, systemd: Systemd, ana: Person, room: Channel, web: str
) -> None:
    kiln.settings |= {"NOTIFY_SOCKET": systemd.address, "LOOPBACK_PATIENCE": PATIENCE}
    await kiln.start()
    await kiln.until(lambda: {"READY=1", "WATCHDOG=1"} <= set(systemd.listen()))
    await until_page(f"{web}/livez", 200)
    for prompt in ("a house", "stuck", "a boat", "a tree"):
        await loopback.slash(ana, room, "imagine", prompt=prompt)
    await kiln.until(lambda: kiln.statuses() == ["delivered", "running", "queued", "queued"])
    assert "gpu_thread" in await until_page(f"{web}/livez", 503)
    await kiln.until(lambda: "the GPU thread has been silent" in kiln.log())
    await kiln.until(lambda: 'tests/fakes.py", line' in kiln.log())  # where it hangs
    fed = systemd.listen().count("WATCHDOG=1")
    os.kill(kiln.pid, signal.SIGABRT)  # what systemd sends when WatchdogSec has passed
    assert await kiln.ended() == -signal.SIGABRT
    assert systemd.listen().count("WATCHDOG=1") == fed
    await loopback_forgets_stuck(kiln)
    kiln.settings.pop("LOOPBACK_PATIENCE")
    await kiln.start()
    jobs = await kiln.until_all("delivered")
    assert [job.attempts for job in jobs] == [1, 2, 1, 1]
    assert len(loopback.pictures(room)) == 4


async def loopback_forgets_stuck(kiln: KilnProcess) -> None:
    """A card that hung once need not hang again: let the second try of the job go well."""
    with closing(sqlite3.connect(kiln.data / "kiln.sqlite3")) as connection, connection:
        connection.execute("UPDATE jobs SET prompt = 'unstuck' WHERE prompt = 'stuck'")


async def test_without_systemd_a_supervisor_is_served_by_an_end_when_hung(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.arguments = ["--end-when-hung"]
    kiln.settings["LOOPBACK_PATIENCE"] = PATIENCE
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="stuck")
    assert await kiln.ended() == 1
    assert kiln.statuses() == ["running"]
    assert "Traceback" not in kiln.log()


async def test_a_thread_that_is_slow_within_its_patience_is_not_ended(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.arguments = ["--end-when-hung"]
    kiln.settings["LOOPBACK_PATIENCE"] = "1.5"
    kiln.step_seconds = 0.6
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a house", steps=4)
    await kiln.until_all("delivered")
    assert kiln.alive


async def test_a_start_and_an_end_are_told_to_systemd(
    loopback: LoopbackDiscord, kiln: KilnProcess, systemd: Systemd
) -> None:
    kiln.settings["NOTIFY_SOCKET"] = systemd.address
    await kiln.start()
    assert await kiln.stop(seconds=5) == 0
    heard = systemd.listen()
    assert heard.index("READY=1") < heard.index("STOPPING=1")
    assert "STATUS=drawing with fake" in heard


async def test_the_pages_answer_while_the_process_serves_and_a_second_kiln_is_told_the_port_is_taken(
    loopback: LoopbackDiscord, kiln: KilnProcess, tmp_path: Path, web: str
) -> None:
    await kiln.start()
    await until_page(f"{web}/readyz", 200)
    assert "kiln_build_info{" in await until_page(f"{web}/metrics", 200)
    (tmp_path / "other").mkdir()
    second = KilnProcess(loopback, tmp_path / "other")
    second.settings = dict(kiln.settings)
    await second.start(connect=False)
    assert await second.ended() == 1
    assert "is in use by another program; set KILN_WEB" in second.log()
    assert "Traceback" not in second.log()
    assert await kiln.stop(seconds=5) == 0


async def test_signals_pause_and_go_on_and_the_bots_presence_says_so_also_after_a_restart(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    paused = "Drawing is paused by the operator."
    await kiln.start()
    os.kill(kiln.pid, signal.SIGUSR1)
    await loopback.world.until(lambda world: loopback.gateway.presence[-1] == paused)
    card = (await loopback.slash(ana, room, "imagine", prompt="a house")).message
    assert card is not None
    assert paused in card.text
    assert await kiln.stop() == 0
    await kiln.start()
    await loopback.world.until(lambda world: loopback.gateway.presence[-1] == paused)
    assert kiln.statuses() == ["queued"]
    os.kill(kiln.pid, signal.SIGUSR2)
    await kiln.until_all("delivered")
    await loopback.world.until(lambda world: loopback.gateway.presence[-1] == "")


async def test_json_logs_are_one_object_a_line_with_a_jobs_numbers_as_fields(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.settings["KILN_LOG_FORMAT"] = "json"
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="secretprompt")
    await kiln.until_all("delivered")
    await kiln.stop()
    lines = [json.loads(line) for line in kiln.log().splitlines()]
    ends = [line for line in lines if "state" in line]
    assert [(line["job"], line["state"], line["steps"], line["level"]) for line in ends] == [(1, "drawn", 4, "INFO")]
    assert "secretprompt" not in kiln.log()
