"""`kiln run` with KILN_CONSOLE: the page and Discord in one process, over one queue."""

from __future__ import annotations

import importlib.util
import socket

import aiohttp
import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback_discord import LoopbackDiscord

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="no Gradio: pip install '.[console]'"
)


async def test_the_console_is_served_beside_discord_and_both_end_together(
    kiln: KilnProcess, loopback: LoopbackDiscord
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    kiln.settings |= {"KILN_CONSOLE": "True", "KILN_CONSOLE_PORT": str(port)}
    await kiln.start()
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    await loopback.slash(ana, room, "imagine", prompt="a red house", seed=42)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/config") as answer:
        assert (await answer.json())["title"] == "Kiln"
    await kiln.until_all("delivered")
    assert await kiln.stop() == 0
    assert "Traceback" not in kiln.log()


async def test_bound_to_the_world_without_a_password_kiln_does_not_start(kiln: KilnProcess) -> None:
    kiln.settings |= {"KILN_CONSOLE": "True", "KILN_CONSOLE_HOST": "0.0.0.0"}
    await kiln.start(connect=False)
    assert await kiln.ended() == 1
    assert "set KILN_CONSOLE_PASSWORD" in kiln.log()
    assert kiln.jobs() == []
