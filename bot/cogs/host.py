"""/host: what the host does with all of Kiln. For the owners named in the settings alone, whoever can see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import say_to
from bot.cogs.mod import do, length_choices
from bot.language import msg
from bot.panel import acts
from bot.rights import check_owner
from bot.servers.server import EVERYWHERE, REASON_MAX_CHARACTERS, Standing

if TYPE_CHECKING:
    from bot.client import KilnBot

    _Asked = discord.Interaction[KilnBot]

_Person = discord.Member | discord.User
_Reason = app_commands.Range[str, 1, REASON_MAX_CHARACTERS]
_Length = app_commands.Range[str, 1, 20]


class HostCog(commands.Cog):
    """The host's commands."""

    host = app_commands.Group(
        name="host",
        description=msg("For the host of this Kiln: all servers at once"),
        default_permissions=discord.Permissions(administrator=True),
    )

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @host.command(description=msg("Begin no more pictures, in any server; new jobs wait"))
    async def pause(self, interaction: _Asked) -> None:
        """Pause the whole queue."""
        await self._stand(interaction, Standing.PAUSED)

    @host.command(description=msg("Take no new pictures, in any server; what waits is drawn"))
    async def drain(self, interaction: _Asked) -> None:
        """Let the whole queue run out."""
        await self._stand(interaction, Standing.DRAINED)

    @host.command(description=msg("End a pause or a drain of all servers"))
    async def resume(self, interaction: _Asked) -> None:
        """Resume the whole queue."""
        await self._stand(interaction, Standing.OPEN)

    @host.command(description=msg("Keep somebody from using Kiln anywhere, and cancel what they have waiting"))
    @app_commands.describe(
        user=msg("Whom"), reason=msg("Why; they are shown it"), length=msg("Like 2h, 3d or 1w. Left out: for ever")
    )
    async def ban(self, interaction: _Asked, user: _Person, reason: _Reason, length: _Length | None = None) -> None:
        """Ban somebody everywhere."""
        self._check(interaction)
        await do(
            interaction, acts.ban(interaction, say_to(interaction), EVERYWHERE, user, reason=reason, length=length)
        )

    @ban.autocomplete("length")
    async def lengths(self, interaction: _Asked, current: str) -> list[app_commands.Choice[str]]:
        """Offer usual lengths."""
        return length_choices(current)

    @host.command(description=msg("Let somebody use Kiln again"))
    @app_commands.describe(user=msg("Whom"))
    async def unban(self, interaction: _Asked, user: _Person) -> None:
        """Lift a ban of everywhere."""
        self._check(interaction)
        await do(interaction, acts.unban(interaction, say_to(interaction), EVERYWHERE, user))

    @host.command(description=msg("Cancel all that somebody has waiting, in any server"))
    @app_commands.describe(user=msg("Whose jobs"))
    async def wipe(self, interaction: _Asked, user: _Person) -> None:
        """Cancel somebody's waiting jobs everywhere."""
        self._check(interaction)
        await do(interaction, acts.wipe(interaction, say_to(interaction), EVERYWHERE, user))

    @host.command(description=msg("See what the host did lately"))
    async def log(self, interaction: _Asked) -> None:
        """Show the last lines of the host's audit log."""
        self._check(interaction)
        await do(interaction, acts.log_lines(interaction, say_to(interaction), EVERYWHERE))

    async def _stand(self, interaction: _Asked, standing: Standing) -> None:
        self._check(interaction)
        await do(interaction, acts.stand(interaction, say_to(interaction), EVERYWHERE, standing))

    def _check(self, interaction: _Asked) -> None:
        check_owner(interaction, self._bot.kiln.keepers.owner_ids)
