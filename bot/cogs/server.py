"""/server: one panel for those who may manage the server. What it shows and does is in server_panel, server_actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import in_time, is_deferred
from bot.language import msg
from bot.panel.actions import current_panel
from bot.rights import check_keeper

if TYPE_CHECKING:
    from bot.client import KilnBot


class Server(commands.Cog):
    """The command that opens the panel."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(description=msg("Choose how Kiln works in this server"))
    @app_commands.default_permissions(manage_guild=True)
    async def server(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Open the panel, for the keeper alone."""
        check_keeper(interaction)
        view = await in_time(interaction, current_panel(interaction), alone=True)
        if is_deferred(interaction):
            await interaction.edit_original_response(view=view)
        else:
            await interaction.response.send_message(view=view, ephemeral=True)
