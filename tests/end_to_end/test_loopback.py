"""The loopback Discord, held against a small real discord.py bot: what Kiln's other tests stand on."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from datetime import timedelta

import discord
import pytest
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.loopback import faults
from tests.loopback_discord import LoopbackDiscord

CONTENT = bytes(range(256)) * 400  # with every byte, over several TCP segments
WITHOUT_WRITING = (1 << 50) - 1 & ~(1 << 11)


class EchoBot(discord.Client):
    def __init__(self) -> None:
        super().__init__(intents=discord.Intents(guilds=True), allowed_mentions=discord.AllowedMentions.none())
        self.tree = app_commands.CommandTree(self)
        self.tree.add_command(app_commands.Command(name="echo", description="says it", callback=_echo))

        self.last: discord.Interaction | None = None

    async def setup_hook(self) -> None:
        await self.tree.sync()

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Do not wait the 5 s that discord.py waits before a second identify."""

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.last = interaction


async def _echo(interaction: discord.Interaction, text: str) -> None:
    await interaction.response.send_message(f"card: {text}")


@pytest.fixture
async def loopback(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        monkeypatch.setattr(Route, "BASE", server.address)
        monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(server.gateway.address))
        yield server


@pytest.fixture
async def bot(loopback: LoopbackDiscord) -> AsyncIterator[EchoBot]:
    async with EchoBot() as client:
        running = asyncio.create_task(client.start(loopback.token))
        await loopback.gateway.until_connected()
        yield client
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_slash_command_is_answered_and_its_card_can_be_edited(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    channel = loopback.world.add_channel("pictures")
    interaction = await loopback.slash(loopback.world.add_person("Ana"), channel, "echo", text="hello")
    assert interaction.message is not None
    assert interaction.message.content == "card: hello"
    await bot.get_partial_messageable(channel.id).get_partial_message(interaction.message.id).edit(content="later")
    assert interaction.message.content == "later"
    assert loopback.unknown_routes() == []


async def test_the_same_enforced_nonce_returns_the_first_message_for_some_minutes(
    loopback: LoopbackDiscord, bot: EchoBot
) -> None:
    channel = bot.get_partial_messageable(loopback.world.add_channel("pictures").id)
    first = await channel.send("one", nonce="7")
    assert (await channel.send("two", nonce="7")).id == first.id
    loopback.world.advance(timedelta(minutes=6))
    assert (await channel.send("three", nonce="7")).id != first.id


async def test_a_file_arrives_whole_with_its_description(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    room = loopback.world.add_channel("pictures")
    file = discord.File(io.BytesIO(CONTENT), filename="a.png", description="a test")
    sent = await bot.get_partial_messageable(room.id).send(file=file)
    [picture] = loopback.pictures(room)
    assert picture.uploads[0].content == CONTENT == await sent.attachments[0].read()
    assert picture.uploads[0].description == sent.attachments[0].description == "a test"


async def test_a_dropped_gateway_resumes_and_replays_what_was_missed(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    person, channel = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    await loopback.gateway.drop()
    interaction = await loopback.send_slash(person, channel, "echo", text="missed")
    loopback.gateway.reopen()
    await asyncio.wait_for(interaction.answered.wait(), 5)
    assert (loopback.gateway.identified, loopback.gateway.resumed) == (1, 1)


async def test_faults_answer_as_planned_and_then_no_more(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    channel = bot.get_partial_messageable(loopback.world.add_channel("pictures").id)
    loopback.faults.plan(faults.POST_MESSAGE, faults.rate_limited(0.05))
    await channel.send("after a 429", nonce="1")
    loopback.faults.plan(faults.POST_MESSAGE, faults.server_error(after_effect=True))
    await channel.send("after a 500", nonce="2")
    loopback.faults.plan(faults.POST_MESSAGE, faults.connection_reset(after_effect=True))
    with pytest.raises(OSError, match=r"reset|disconnected"):
        await channel.send("before a reset", nonce="3")
    loopback.faults.plan(faults.POST_MESSAGE, faults.missing_access())
    with pytest.raises(discord.Forbidden):
        await channel.send("refused")
    assert [one.status for one in loopback.asked(faults.POST_MESSAGE)] == [429, 200, 500, 200, 0, 403]
    assert [m.nonce for m in loopback.world.messages.values()] == ["1", "2", "3"]


async def test_limits_of_upload_and_permission_are_discords(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    room = loopback.world.add_channel("pictures")
    loopback.world.upload_limit_bytes = 10
    with pytest.raises(discord.HTTPException) as too_large:
        await bot.get_partial_messageable(room.id).send(file=discord.File(io.BytesIO(CONTENT), filename="a.png"))
    assert (too_large.value.status, too_large.value.code) == (413, 40005)
    silent = loopback.world.add_channel("silent", app_permissions=WITHOUT_WRITING)
    with pytest.raises(discord.Forbidden) as refused:
        await bot.get_partial_messageable(silent.id).send("hello")
    assert refused.value.code == 50013


async def test_the_token_of_an_interaction_dies_after_15_minutes(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    person, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    interaction = await loopback.slash(person, room, "echo", text="old")
    assert bot.last is not None
    assert interaction.message is not None
    await bot.last.edit_original_response(content="in time")
    assert interaction.message.content == "in time"
    loopback.world.advance(timedelta(minutes=15))
    with pytest.raises(discord.HTTPException) as expired:
        await bot.last.edit_original_response(content="too late")
    assert (expired.value.status, expired.value.code) == (401, 50027)


async def test_an_answer_after_three_seconds_or_a_second_one_is_refused(
    loopback: LoopbackDiscord, bot: EchoBot
) -> None:
    person, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    await loopback.gateway.drop()
    interaction = await loopback.send_slash(person, room, "echo", text="late")
    loopback.world.advance(timedelta(seconds=4))
    loopback.gateway.reopen()
    await loopback.world.until(lambda world: bool(loopback.asked(faults.CALLBACK)))
    await loopback.world.until(lambda world: loopback.asked(faults.CALLBACK)[0].status == 404)
    assert interaction.answer is None


async def test_an_invalid_session_is_followed_by_a_new_one(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    await loopback.gateway.invalidate()
    await loopback.gateway.until_connected(identified=2)
    assert loopback.gateway.resumed == 0


async def test_a_wrong_token_is_refused_at_login(loopback: LoopbackDiscord) -> None:
    async with EchoBot() as client:
        with pytest.raises(discord.LoginFailure):
            await client.login("wrong")


async def test_a_route_that_is_not_modelled_is_recorded(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    with pytest.raises(discord.NotFound):
        await bot.fetch_user(1)
    assert loopback.unknown_routes() == ["GET /users/1"]


async def test_a_text_that_is_too_long_is_refused(loopback: LoopbackDiscord, bot: EchoBot) -> None:
    room = loopback.world.add_channel("pictures")
    with pytest.raises(discord.HTTPException) as refused:
        await bot.get_partial_messageable(room.id).send("x" * 2001)
    assert (refused.value.status, refused.value.code) == (400, 50035)
    await bot.get_partial_messageable(room.id).send("x" * 2000)
