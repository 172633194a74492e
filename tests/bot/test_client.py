"""The client: few rights, commands told to Discord once, errors worded in one place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import discord
import pytest
from simcord.env import Env

import bot
from bot.app import open_kiln
from bot.client import create_bot
from bot.invite import PERMISSIONS, client_id, invite_link
from bot.settings import Settings
from gen.request import GUIDANCE_MAX, GUIDANCE_MIN, PROMPT_MAX_CHARACTERS, SEED_MAX, STEPS_MAX, STEPS_MIN
from tests.fakes import FakeGenerator


async def test_no_privileged_intent_is_asked_for() -> None:
    intents = create_bot().intents
    assert [name for name, wanted in intents if wanted] == ["guilds"]


async def test_nobody_is_mentioned_by_default() -> None:
    allowed = create_bot().allowed_mentions
    assert allowed is not None
    assert allowed.to_dict()["parse"] == []


async def test_commands_are_for_servers_and_installed_in_servers_only() -> None:
    for payload in await create_bot().payloads():
        assert payload["contexts"] == [0]
        assert payload["integration_types"] == [0]


async def test_discord_gets_the_limits_of_a_request() -> None:
    (imagine,) = (payload for payload in await create_bot().payloads() if payload["name"] == "imagine")
    options = {option["name"]: option for option in imagine["options"]}
    more = ["style", "lora", "lora_strength", "negative", "count", "private"]
    assert list(options) == ["prompt", "seed", "size", "steps", "guidance", *more]
    assert (options["count"]["min_value"], options["count"]["max_value"]) == (1, 4)
    assert all(options[name]["autocomplete"] for name in ("style", "lora"))
    assert (options["prompt"]["min_length"], options["prompt"]["max_length"]) == (1, PROMPT_MAX_CHARACTERS)
    assert (options["seed"]["min_value"], options["seed"]["max_value"]) == (0, SEED_MAX)
    assert (options["steps"]["min_value"], options["steps"]["max_value"]) == (STEPS_MIN, STEPS_MAX)
    assert (options["guidance"]["min_value"], options["guidance"]["max_value"]) == (GUIDANCE_MIN, GUIDANCE_MAX)
    assert options["size"]["autocomplete"]
    assert [name for name, option in options.items() if option.get("required")] == ["prompt"]


async def test_an_end_right_after_the_start_leaves_no_traceback() -> None:
    client = create_bot()
    async with client:
        pass
    client.dispatch("ready")  # as discord.py does, which waits for more servers for two seconds, closed or not


async def synced(data: Path) -> bool:
    """Start once; say whether the commands were sent."""
    settings = Settings(_env_file=None, data=data)  # type: ignore[call-arg]
    async with open_kiln(settings, load=FakeGenerator) as client:
        env = Env(client)
        await env.start()
        sent = [entry for entry in env.http_requests if entry.method == "PUT" and entry.path.endswith("/commands")]
        await env.shutdown()
    return bool(sent)


async def test_commands_are_sent_again_only_when_they_changed(tmp_path: Path) -> None:
    assert await synced(tmp_path)
    assert not await synced(tmp_path)
    (tmp_path / "commands.sha256").write_text("of an older Kiln\n")
    assert await synced(tmp_path)


async def test_a_folder_of_another_bot_is_told_by_both_names_and_its_own_bots_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await synced(tmp_path)
    await synced(tmp_path)
    assert "another bot" not in caplog.text
    memory = tmp_path / "commands.sha256"
    memory.write_text(f"{memory.read_text().split()[0]} 4242\n")
    await synced(tmp_path)
    assert "last used by application 4242, another bot" in caplog.text


async def test_commands_that_discord_takes_no_more_of_today_are_sent_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def limited(*_: object, **__: object) -> None:
        raise discord.RateLimited(3600.0)

    with monkeypatch.context() as patched:
        patched.setattr("discord.app_commands.CommandTree.sync", limited)
        assert not await synced(tmp_path)
    assert await synced(tmp_path)


@pytest.mark.parametrize("damage", ["not UTF-8", "a folder"])
async def test_a_damaged_memory_of_sent_commands_stops_nothing(tmp_path: Path, damage: str) -> None:
    memory = tmp_path / "commands.sha256"
    if damage == "a folder":
        memory.mkdir()  # neither to be read nor to be written
    else:
        memory.write_bytes(b"\xff\xfe\xfa")
    assert await synced(tmp_path)


def test_the_bots_side_never_imports_torch() -> None:
    modules = sorted(
        ".".join(path.relative_to(Path(bot.__path__[0]).parent).with_suffix("").parts)
        for path in Path(bot.__path__[0]).rglob("*.py")
    )
    code = (
        "import importlib, sys\n"
        f"for name in {[name for name in modules if not name.endswith('__init__')]!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'diffsynth', 'gen.flux', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("token", "found"),
    [
        ("MTQ1NjA3NDQ0Mzk4MDgwMDAwMA.Gabcde.x", 1456074443980800000),
        ("not-a-token", None),
        ("a.b.c", None),
        ("Z\u00fc.b.c", None),
        ("", None),
        (None, None),
    ],
)
def test_the_application_is_read_from_the_token(token: str | None, found: int | None) -> None:
    assert client_id(token) == found
    assert f"client_id={found or 'YOUR_APPLICATION_ID'}&" in invite_link(token)


def test_the_invite_asks_for_what_is_needed_and_no_more() -> None:
    assert {name for name, wanted in discord.Permissions(PERMISSIONS.value) if wanted} == {
        "read_messages",  # called View Channels in the app
        "send_messages",
        "send_messages_in_threads",
        "attach_files",
        "embed_links",
        "read_message_history",
    }
