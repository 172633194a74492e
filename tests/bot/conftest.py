"""A stage for the bot: the real client on simcord, a real queue on a real SQLite file, a real GPU thread with a fake
generator. What a command starts has ended when the command returns, unless the stage is told to `detach`."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import discord
import numpy as np
import pytest
from safetensors.numpy import save_file
from simcord import ChannelHandle, GuildHandle, InteractionResult, MemberActor
from simcord.env import Env

from bot.app import open_kiln
from bot.client import Kiln, KilnBot
from bot.delivery.delivery import Delivery
from bot.delivery.posting import Poster
from bot.demo.command import SHOWN_BY_COMMANDS, outside_commands
from bot.host.web import Watched
from bot.queue.job import Limits
from bot.queue.job_queue import JobQueue
from bot.settings import Settings
from bot.storage.database import Database, open_database
from bot.storage.schema import upgrade
from tests.fakes import Clock, FakeGenerator

CHOSEN_SEED = 7
PLENTY = Limits(waiting_per_user=1000, pictures_per_hour=3600, burst=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything a test of the bot looks at."""

    env: Env
    bot: KilnBot
    guild: GuildHandle
    channel: ChannelHandle
    alice: MemberActor
    generator: FakeGenerator
    settings: Settings

    @property
    def kiln(self) -> Kiln:
        """The open parts."""
        return self.bot.kiln

    async def imagine(
        self, prompt: str = "a red house", *, by: MemberActor | None = None, **options: Any
    ) -> InteractionResult:
        """Use /imagine as a person does."""
        return await (by or self.alice).slash(self.channel, "imagine", prompt=prompt, **options)

    def messages(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        """What stands in the channel, oldest first."""
        return [m for m in (channel or self.channel).history() if not m.flags.ephemeral]

    def pictures(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        """The messages with a file."""
        return [message for message in self.messages(channel) if message.attachments]

    def notified(self, message: discord.Message) -> set[int]:
        """The people whom a message pinged, which are fewer than it names."""
        return set(self.env.backend.get_message(message.channel.id, message.id).ping_user_ids)

    def detach(self) -> None:
        """Let drawing go on after the command has returned; for states in between."""
        outside = contextvars.Context()
        outside_commands(self.kiln.dispatcher, "wake", outside=outside)
        outside_commands(self.kiln.delivery, *SHOWN_BY_COMMANDS, outside=outside)


def text_of(message: Any) -> str:
    """All the words of a message, whatever its style."""
    words: list[str] = [message.content]

    def collect(components: list[dict[str, Any]]) -> None:
        for component in components:
            words.append(str(component.get("content", "")))
            collect(component.get("components", []))

    raw = message.components
    collect([part if isinstance(part, dict) else part.to_dict() for part in raw])
    return "\n".join(filter(None, words))


def said(result: InteractionResult) -> str:
    """What the bot answered to the person alone; fails if others see it too."""
    shown = result.response or result.followups[0]
    assert shown.ephemeral, "others can see this answer"
    return text_of(shown)


async def eventually(condition: Callable[[], Any], *, seconds: float = 10) -> Any:
    """Let the loop run until `condition` holds, and return what it returned."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
    return found


@functools.cache
def _empty_database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kiln.sqlite3"
        upgrade(path, now=datetime.now(UTC))
        return path.read_bytes()


def lay_database(path: Path) -> None:
    """Put an empty database at `path` unless one is there: its migrations take 0.2 s, and most tests want one."""
    if not path.exists():
        path.write_bytes(_empty_database())


@asynccontextmanager
async def open_stage(
    data: Path,
    *,
    generator: FakeGenerator | None = None,
    choose_seed: Callable[[], int] = lambda: CHOSEN_SEED,
    edit_every: timedelta = timedelta(milliseconds=20),
    watched: Watched | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """Open the bot on a simulated Discord, with the database in `data`."""
    chosen = Settings(_env_file=None, data=data, **{"loras": data / "loras", **settings})  # type: ignore[call-arg]
    chosen.make_data_folder()
    lay_database(chosen.database)
    fake = generator or FakeGenerator()
    quick = functools.partial(
        Delivery,
        edit_every=edit_every,
        make_poster=functools.partial(Poster, pauses=lambda: iter([0.01] * 20)),
    )
    async with open_kiln(
        chosen,
        load=lambda: fake,
        choose_seed=choose_seed,
        make_delivery=quick,
        remember_sync=False,
        watched=watched,
    ) as bot:
        env = Env(bot, check_errors=False)
        # The world stands before the bot comes, and has the same ids each time: a second stage on the same data is a
        # restart in the same channel (its old messages are gone).
        guild = env.create_guild()
        channel = guild.create_text_channel("pictures")
        alice = guild.add_member(env.create_user("alice"))
        await env.start()
        try:
            yield Stage(env=env, bot=bot, guild=guild, channel=channel, alice=alice, generator=fake, settings=chosen)
        finally:
            await env.shutdown()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A fresh bot with a fresh database."""
    async with open_stage(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's database lies."""
    return tmp_path / "kiln.sqlite3"


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until it is moved."""
    return Clock()


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    """An open database with nothing in it."""
    lay_database(path)
    async with open_database(path) as database:
        yield database


@pytest.fixture
def queue(database: Database, clock: Clock) -> JobQueue:
    """A queue whose limits nobody reaches."""
    return JobQueue(database, limits=PLENTY, now=clock)


def save_lora(folder: Path, *names: str, **metadata: str) -> None:
    """Put LoRA files into a folder, for whoever does not draw with them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_file({"x": np.zeros(1, dtype=np.float32)}, folder / f"{name}.safetensors", metadata=metadata)


def opened_png(data: bytes) -> tuple[int, int]:
    """The size of a picture in pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return picture.size
