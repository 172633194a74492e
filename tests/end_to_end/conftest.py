"""The loopback Discord and a Kiln beside it; whatever still runs at a test's end is killed, by its pid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback.world import Channel, Person
from tests.loopback_discord import LoopbackDiscord


@pytest.fixture
async def loopback() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as discord:
        yield discord


@pytest.fixture
async def kiln(loopback: LoopbackDiscord, tmp_path: Path) -> AsyncIterator[KilnProcess]:
    process = KilnProcess(loopback, tmp_path)
    yield process
    await process.kill()
    assert loopback.unknown_routes() == []


@pytest.fixture
def ana(loopback: LoopbackDiscord) -> Person:
    return loopback.world.add_person("Ana")


@pytest.fixture
def room(loopback: LoopbackDiscord) -> Channel:
    return loopback.world.add_channel("pictures")
