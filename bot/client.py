"""The Discord client: its rights, its commands, and the one place that words what goes wrong in them.

Guild install only, no privileged intent, no mention by default. Knows the parts of an open kiln as values to hand to
the commands; how they are opened is `bot.app`'s business. Never reaches torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import say_to, tell
from bot.caretaker import Pause
from bot.cogs.imagine import Imagine
from bot.cogs.queue import Queue
from bot.command_words import CommandWords
from bot.courteous import CourteousExecutor
from bot.database import Database
from bot.delivery import Delivery
from bot.dispatcher import Dispatcher
from bot.errors import Refusal
from bot.job_queue import JobQueue
from bot.metrics import Metrics
from gen.errors import InvalidRequest
from gen.request import ModelProfile

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kiln:
    """The parts that commands work with, all of them open."""

    profile: ModelProfile
    queue: JobQueue
    dispatcher: Dispatcher
    delivery: Delivery
    now: Callable[[], datetime]  # aware UTC
    choose_seed: Callable[[], int]  # 0 to SEED_MAX
    database: Database
    executor: CourteousExecutor
    metrics: Metrics
    pause: Pause


class KilnTree(app_commands.CommandTree["KilnBot"]):
    """The slash commands; every error of theirs is worded here."""

    async def interaction_check(self, interaction: discord.Interaction[KilnBot], /) -> bool:
        """Let commands pass in servers only: elsewhere the bot could not post the picture later."""
        if interaction.guild_id is not None:
            return True
        if interaction.type is discord.InteractionType.application_command:
            say = say_to(interaction)
            await tell(interaction, say("Kiln works in servers only: please ask in a channel of a server I am in."))
        return False

    async def on_error(self, interaction: discord.Interaction[KilnBot], error: app_commands.AppCommandError, /) -> None:
        """Show our own refusals as they are; anything else is a bug: traceback to the log, one sentence to them."""
        say = say_to(interaction)
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        if isinstance(cause, Refusal | InvalidRequest):
            interaction.client.kiln.metrics.refused(cause)
            await tell(interaction, cause.told(say))
            return
        if isinstance(cause, app_commands.CommandNotFound | app_commands.CommandSignatureMismatch):
            _log.warning("a command of an older Kiln was used: %s", cause)
            await tell(interaction, say("This command has changed. Please reload Discord (Ctrl+R) and try again."))
            return
        incident = secrets.token_hex(4)
        name = interaction.command.qualified_name if interaction.command else "?"
        _log.error("incident %s in /%s: %s", incident, name, cause, exc_info=cause)
        words = say(
            "That did not work, and it is not your fault. The operator finds it as `{incident}`.", incident=incident
        )
        await tell(interaction, words)


class KilnBot(commands.Bot):
    """Kiln's Discord client. Holds no state of its own but the open parts."""

    def __init__(self, kiln: Kiln | None, *, synced: Path | None) -> None:
        """`synced` remembers the commands that Discord knows; without it they are sent at every start."""
        intents = discord.Intents.none()
        intents.guilds = True
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            tree_cls=KilnTree,
            intents=intents,
            allowed_mentions=discord.AllowedMentions.none(),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=False, private_channel=False),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
        )
        self._kiln = kiln
        self._synced = synced
        self._words = CommandWords()
        for cog in (Imagine(self), Queue(self)):
            for command in cog.get_app_commands():
                self.tree.add_command(command)

    @property
    def kiln(self) -> Kiln:
        """The open parts; only a bot that was made to list its commands has none."""
        assert self._kiln is not None, "this bot only lists its commands"
        return self._kiln

    @property
    def is_connected(self) -> bool:
        """Whether Discord's gateway is there now."""
        return self.is_ready() and bool(self.ws) and self.ws.open

    async def setup_hook(self) -> None:
        """Logged in: tell Discord the commands if they changed, then let deliveries and the queue begin."""
        await self._sync()
        self.kiln.delivery.connect(self)
        self.kiln.dispatcher.wake()

    async def _sync(self) -> None:
        """Send the commands when they differ from what this application was sent last (200 a day are allowed)."""
        payloads = await self.payloads()
        digest = hashlib.sha256(f"{self.application_id}{json.dumps(payloads, sort_keys=True)}".encode()).hexdigest()
        if _recall(self._synced) == digest:
            return
        await self.tree.set_translator(self._words)
        await self.tree.sync()
        _log.info("told Discord about %d commands", len(payloads))
        _remember(self._synced, digest)

    async def payloads(self) -> list[dict[str, Any]]:
        """The commands as Discord receives them, in every language, in the order of their names."""
        commands = self.tree.get_commands()
        listed = [await command.get_translated_payload(self.tree, self._words) for command in commands]
        return sorted(listed, key=lambda payload: str(payload["name"]))


def create_bot(kiln: Kiln | None = None, *, synced: Path | None = None) -> KilnBot:
    """Make the client. Without `kiln` it can only list its commands."""
    return KilnBot(kiln, synced=synced)


def _recall(synced: Path | None) -> str | None:
    """What was sent last; None if that is not known: then it is sent again."""
    if synced is None or not synced.exists():
        return None
    try:
        return synced.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read, so Discord is told the commands again: %s", synced, error)
        return None


def _remember(synced: Path | None, digest: str) -> None:
    if synced is None:
        return
    try:
        synced.write_text(digest + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("%s cannot be written, so the next start tells Discord the commands again: %s", synced, error)
