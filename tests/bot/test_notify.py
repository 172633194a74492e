"""What systemd is told, on a real socket."""

from __future__ import annotations

import asyncio
import itertools
import socket
from pathlib import Path

import pytest

from bot.host.notify import notify, watch
from gen.pulse import PATIENCE_SECONDS, Pulse


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives_at_a_socket_of_either_kind(tmp_path: Path, abstract: bool) -> None:
    address = f"@kiln-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        notify("READY=1", "STATUS=here", environment={"NOTIFY_SOCKET": address})
        assert systemd.recv(100) == b"READY=1\nSTATUS=here"


def test_without_systemd_nothing_happens() -> None:
    notify("READY=1", environment={})


def test_a_socket_that_is_gone_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify("READY=1", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "systemd could not be told READY=1" in caplog.text


def drain(systemd: socket.socket) -> int:
    """Take what has arrived; return how much that was."""
    systemd.setblocking(False)
    for count in itertools.count():
        try:
            systemd.recv(100)
        except BlockingIOError:
            return count
    raise AssertionError


async def test_the_watchdog_is_fed_while_the_thread_lives_and_a_hang_is_told_once(tmp_path: Path) -> None:
    now, hangs = [0.0], list[float]()
    pulse = Pulse(clock=lambda: now[0])
    with pulse.drawing("a kind"):
        pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, pulse.drawing("a kind"):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        watching = asyncio.create_task(
            watch(
                pulse,
                on_hung=lambda: hangs.append(now[0]),
                look_seconds=0.01,
                environment={"NOTIFY_SOCKET": str(tmp_path / "notify")},
            )
        )
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        now[0] += PATIENCE_SECONDS + 1
        async with asyncio.timeout(5):
            while not hangs:  # noqa: ASYNC110 - a callback, no event
                await asyncio.sleep(0.01)
        drain(systemd)
        await asyncio.sleep(0.05)  # five looks, in which nothing may be sent
        assert (drain(systemd), len(hangs)) == (0, 1)
        pulse.sign()
        systemd.settimeout(5)
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        watching.cancel()
