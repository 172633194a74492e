"""/mod: what moderators do in their server. Each is checked here, done in bot.panel.acts, and in the audit log."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import answer, in_time, is_deferred, say_to
from bot.language import msg
from bot.panel import acts
from bot.panel.review import buttons
from bot.queue.job import JOB_ID_MAX
from bot.rights import check_moderator, check_target
from bot.servers.server import REASON_MAX_CHARACTERS, HeldFor, Standing

if TYPE_CHECKING:
    from bot.client import KilnBot

    _Asked = discord.Interaction[KilnBot]

_Person = discord.Member | discord.User
_Reason = app_commands.Range[str, 1, REASON_MAX_CHARACTERS]
_Length = app_commands.Range[str, 1, 20]
LENGTHS = ("1h", "1d", "3d", "1w", "4w")


class Mod(commands.Cog):
    """Moderators' commands."""

    mod = app_commands.Group(
        name="mod",
        description=msg("Moderate Kiln in this server"),
        default_permissions=discord.Permissions(moderate_members=True),
    )

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @mod.command(description=msg("Keep somebody from using Kiln here, and cancel what they have waiting"))
    @app_commands.describe(
        user=msg("Whom"), reason=msg("Why; they are shown it"), length=msg("Like 2h, 3d or 1w. Left out: for ever")
    )
    async def ban(self, interaction: _Asked, user: _Person, reason: _Reason, length: _Length | None = None) -> None:
        """Ban somebody in this server."""
        check_moderator(interaction)
        check_target(interaction, user)
        say, guild_id = say_to(interaction), guild_id_of(interaction)
        await do(interaction, acts.ban(interaction, say, guild_id, user, reason=reason, length=length))

    @ban.autocomplete("length")
    async def lengths(self, interaction: _Asked, current: str) -> list[app_commands.Choice[str]]:
        """Offer usual lengths."""
        return length_choices(current)

    @mod.command(description=msg("Let somebody use Kiln here again"))
    @app_commands.describe(user=msg("Whom"))
    async def unban(self, interaction: _Asked, user: _Person) -> None:
        """Lift a ban in this server."""
        check_moderator(interaction)
        await do(interaction, acts.unban(interaction, say_to(interaction), guild_id_of(interaction), user))

    @mod.command(description=msg("See who is banned from Kiln here"))
    async def bans(self, interaction: _Asked) -> None:
        """List the bans in this server."""
        check_moderator(interaction)
        await do(interaction, acts.bans(interaction, say_to(interaction), guild_id_of(interaction)))

    @mod.command(description=msg("Hold all waiting and new pictures of this server"))
    async def pause(self, interaction: _Asked) -> None:
        """Pause this server."""
        await self._stand(interaction, Standing.PAUSED)

    @mod.command(description=msg("Take no new pictures in this server; what waits is drawn"))
    async def drain(self, interaction: _Asked) -> None:
        """Drain this server."""
        await self._stand(interaction, Standing.DRAINED)

    @mod.command(description=msg("End a pause or a drain of this server"))
    async def resume(self, interaction: _Asked) -> None:
        """Resume this server."""
        await self._stand(interaction, Standing.OPEN)

    @mod.command(description=msg("Cancel all that somebody has waiting in this server"))
    @app_commands.describe(user=msg("Whose jobs"))
    async def wipe(self, interaction: _Asked, user: _Person) -> None:
        """Cancel somebody's waiting jobs in this server."""
        check_moderator(interaction)
        await do(interaction, acts.wipe(interaction, say_to(interaction), guild_id_of(interaction), user))

    @mod.command(description=msg("Give somebody their rate and their GPU time of today anew"))
    @app_commands.describe(user=msg("Whose"))
    async def reset(self, interaction: _Asked, user: _Person) -> None:
        """Reset somebody's quota."""
        check_moderator(interaction)
        await do(interaction, acts.reset(interaction, say_to(interaction), guild_id_of(interaction), user))

    @mod.command(description=msg("Look at a job of this server; that you looked is noted"))
    @app_commands.describe(job=msg("The job's number, from its card or the log"))
    async def job(self, interaction: _Asked, job: app_commands.Range[int, 1, JOB_ID_MAX]) -> None:
        """Show a job to the moderator alone; one that waits for a decision comes with its buttons."""
        check_moderator(interaction)
        say, kiln = say_to(interaction), self._bot.kiln
        look = kiln.keepers.moderation.look(guild_id_of(interaction), job, actor_id=interaction.user.id)
        found, held = await in_time(interaction, look, alone=True)
        kiln.keepers.log_channel.wake()
        words = acts.job_words(say, found)
        if held is HeldFor.REVIEW:
            await _answer_with(interaction, words, buttons(say, found.id))
        else:
            await answer(interaction, words)

    @mod.command(description=msg("See which jobs of this server wait for your decision"))
    async def held(self, interaction: _Asked) -> None:
        """List the jobs that are held for review."""
        check_moderator(interaction)
        say = say_to(interaction)
        jobs = await in_time(interaction, self._bot.kiln.keepers.moderation.held(guild_id_of(interaction)), alone=True)
        lines = [acts.held_line(say, job) for job in jobs]
        await answer(interaction, acts.listed(say, lines) or say("No job waits for a decision."))

    @mod.command(description=msg("See what was done in this server lately"))
    async def log(self, interaction: _Asked) -> None:
        """Show the last lines of the audit log."""
        check_moderator(interaction)
        await do(interaction, acts.log_lines(interaction, say_to(interaction), guild_id_of(interaction)))

    async def _stand(self, interaction: _Asked, standing: Standing) -> None:
        check_moderator(interaction)
        await do(interaction, acts.stand(interaction, say_to(interaction), guild_id_of(interaction), standing))


def length_choices(current: str) -> list[app_commands.Choice[str]]:
    """Usual lengths of a ban that match what was typed."""
    return [app_commands.Choice(name=length, value=length) for length in LENGTHS if current.strip() in length]


async def do(interaction: _Asked, act: Coroutine[Any, Any, str]) -> None:
    """Answer a moderator alone with what an act says, and with what is wrong with the log channel."""
    words = await in_time(interaction, act, alone=True)
    await answer(interaction, await acts.with_problem(interaction, say_to(interaction), words))


def guild_id_of(interaction: _Asked) -> int:
    """The server; commands work in servers only."""
    assert interaction.guild_id is not None
    return interaction.guild_id


async def _answer_with(interaction: _Asked, words: str, view: discord.ui.View) -> None:
    if is_deferred(interaction):
        await interaction.edit_original_response(content=words, view=view)
    else:
        await interaction.response.send_message(words, view=view, ephemeral=True)
