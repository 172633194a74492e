"""The Discord client: its rights, its commands, and the one place that words what goes wrong in them.

Guild install only, no privileged intent, no mention by default. Knows the parts of an open kiln as values to hand to
the commands; how they are opened is `bot.app`'s business. Never reaches torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import say_to, tell
from bot.asking.edit_dialog import NAME as EDITED
from bot.asking.lora_list import LoraList
from bot.asking.people import People
from bot.asking.server_styles import ServerStyles
from bot.cards.buttons import JobButton
from bot.cogs.buttons import Buttons
from bot.cogs.history import History, PageButton
from bot.cogs.host import HostCog
from bot.cogs.imagine import Imagine
from bot.cogs.mod import Mod
from bot.cogs.queue import Queue
from bot.cogs.recipe import Recipe
from bot.cogs.report import report_menu
from bot.cogs.reposting import RepostButton
from bot.cogs.server import Server
from bot.cogs.settings import Settings
from bot.cogs.stats import Stats
from bot.cogs.style import style_group
from bot.command_words import CommandWords
from bot.console.jobs import Console
from bot.delivery.delivery import Delivery
from bot.host.card_reader import CardReader
from bot.host.caretaker import Pause
from bot.host.courteous import CourteousExecutor
from bot.host.metrics import Metrics
from bot.mistakes import tell_mistake
from bot.panel.actions import PanelItem
from bot.panel.keepers import Keepers
from bot.panel.review import Decision
from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Job, JobStatus, Verb
from bot.queue.job_queue import JobQueue
from bot.queue.past import Past
from bot.queue.reposts import Reposts
from bot.storage.database import Database
from gen.request import ModelProfile

# A longer pause that Discord asks for is ours to wait out, not the library's: behind it a nonce is forgotten, and the
# library would send a picture again without a look. Its least is 30 s.
RATE_LIMIT_SECONDS = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kiln:
    """The parts that commands work with, all of them open."""

    profile: ModelProfile
    queue: JobQueue
    dispatcher: Dispatcher
    delivery: Delivery
    loras: LoraList
    people: People
    styles: ServerStyles
    past: Past
    reposts: Reposts
    card: CardReader
    data: Path  # folder of the pictures
    started_at: datetime  # aware UTC
    keepers: Keepers
    now: Callable[[], datetime]  # aware UTC
    choose_seed: Callable[[], int]  # 0 to SEED_MAX
    database: Database
    executor: CourteousExecutor
    metrics: Metrics
    pause: Pause
    console: Console

    def show_changed(self, jobs: Iterable[Job]) -> None:
        """Moderators held, released or cancelled these: let their cards say so, and the queue go on."""
        for job in jobs:
            if job.status is JobStatus.CANCELLED:
                self.queue.ended(job)
            (self.delivery.cancelled if job.status is JobStatus.CANCELLED else self.delivery.requeued)(job)
        self.dispatcher.wake()


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
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        if isinstance(cause, app_commands.CommandNotFound | app_commands.CommandSignatureMismatch):
            _log.warning("a command of an older Kiln was used: %s", cause)
            say = say_to(interaction)
            await tell(interaction, say("This command has changed. Please reload Discord (Ctrl+R) and try again."))
            return
        name = interaction.command.qualified_name if interaction.command else "?"
        await tell_mistake(interaction, cause, where=f"/{name}")


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
            max_ratelimit_timeout=RATE_LIMIT_SECONDS,
        )
        self.stamp = secrets.token_hex(4)  # of this process, in the names of its dialogs
        self._kiln = kiln
        self._synced = synced
        self._buttons = Buttons(self)
        self._words = CommandWords()
        recipe = Recipe(self)
        members = (Imagine(self), Queue(self), Settings(self), History(self), Stats(self), recipe)
        for cog in (*members, Server(self), Mod(self), HostCog(self)):
            for command in cog.get_app_commands():
                self.tree.add_command(command)
        for more in (*recipe.menus, report_menu(), style_group(self)):
            self.tree.add_command(more)

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
        self.add_dynamic_items(JobButton, PageButton, RepostButton, Decision, PanelItem)
        self.kiln.delivery.connect(self)
        self.kiln.keepers.log_channel.connect(self)
        self.kiln.dispatcher.wake()

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell listeners what happened, unless the client has ended: the library tells "ready" up to 2 s too late."""
        if not self.is_closed():
            super().dispatch(event, *args, **kwargs)

    async def on_ready(self) -> None:
        """The servers are known, with the roles that they have by now."""
        for guild in [guild for guild in self.guilds if not guild.unavailable]:
            await self.kiln.keepers.roles_are(guild.id, [role.id for role in guild.roles])

    async def on_guild_role_delete(self, role: discord.Role) -> None:
        """A role was deleted in Discord."""
        await self.kiln.keepers.role_deleted(role.guild.id, role.id, name=role.name)

    async def pressed(self, interaction: discord.Interaction[KilnBot], job_id: int, press: str) -> None:
        """A button of a job was pressed."""
        try:
            await self._buttons.press(interaction, job_id, press)
        except Exception as error:  # noqa: BLE001 - worded, and logged if it is a bug
            await tell_mistake(interaction, error, where=f"the button {press[:20]} of job {job_id}")

    async def on_interaction(self, interaction: discord.Interaction[KilnBot]) -> None:
        """A dialog came back, perhaps of an earlier process: its name says whose it is."""
        if interaction.type is not discord.InteractionType.modal_submit:
            return
        data: Mapping[str, Any] = interaction.data or {}
        name = str(data.get("custom_id", ""))
        if name.startswith("dialog:") and not name.startswith(f"dialog:{self.stamp}:"):
            await tell(interaction, say_to(interaction)("Kiln was restarted meanwhile. Please open this dialog again."))
        found = EDITED.fullmatch(name)
        if found is None:
            return
        try:
            job_id = None if found["job"] is None else int(found["job"])
            verb = Verb.EDIT if found["how"] == "edited" else Verb.REMIX
            await self._buttons.submit(interaction, job_id, verb)
        except Exception as error:  # noqa: BLE001 - worded, and logged if it is a bug
            await tell_mistake(interaction, error, where=f"the dialog {found[0]}")

    async def _sync(self) -> None:
        """Send the commands when they differ from what this application was sent last (200 a day are allowed)."""
        payloads = await self.payloads()
        digest = hashlib.sha256(f"{self.application_id}{json.dumps(payloads, sort_keys=True)}".encode()).hexdigest()
        known, application = _recall(self._synced)
        if application not in ("", str(self.application_id)):
            _log.warning(
                "this data folder was last used by application %s, another bot, whose cards cannot be edited: put its "
                "token back, or choose a new KILN_DATA",
                application,
            )
        if known == digest:
            return
        await self.tree.set_translator(self._words)
        try:
            await self.tree.sync()
        except discord.RateLimited as error:
            _log.warning("Discord takes no commands for %.0f s; the next start tells it again", error.retry_after)
            return
        _log.info("told Discord about %d commands", len(payloads))
        _remember(self._synced, f"{digest} {self.application_id}")

    async def payloads(self) -> list[dict[str, Any]]:
        """The commands as Discord receives them, in every language, in the order of their names."""
        commands = self.tree.get_commands()
        listed = [await command.get_translated_payload(self.tree, self._words) for command in commands]
        return sorted(listed, key=lambda payload: str(payload["name"]))


def create_bot(kiln: Kiln | None = None, *, synced: Path | None = None) -> KilnBot:
    """Make the client. Without `kiln` it can only list its commands."""
    return KilnBot(kiln, synced=synced)


def _recall(synced: Path | None) -> tuple[str, str]:
    """What was sent last, and by which application; empty if that is not known: then it is sent again."""
    if synced is None or not synced.exists():
        return "", ""
    try:
        digest, _, application = synced.read_text(encoding="utf-8").strip().partition(" ")
        return digest, application if application.isdecimal() else ""
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read, so Discord is told the commands again: %s", synced, error)
        return "", ""


def _remember(synced: Path | None, sent: str) -> None:
    if synced is None:
        return
    try:
        synced.write_text(sent + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("%s cannot be written, so the next start tells Discord the commands again: %s", synced, error)
