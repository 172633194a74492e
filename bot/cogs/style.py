"""/style: the styles that a server has of its own, for those who may manage it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import CHOICES_MAX, answer, in_time, say_to
from bot.asking.edit_dialog import LORAS_CHARACTERS, read_loras
from bot.asking.styles import NAME_CHARACTERS, WORDS_CHARACTERS, checked_style
from bot.cogs.imagine import CHOICE_CHARACTERS
from bot.cogs.mod import guild_id_of
from bot.language import msg
from bot.quoting import fold, quoted
from bot.rights import check_keeper
from gen.request import GUIDANCE_MAX, GUIDANCE_MIN, SHAPES, STEPS_MAX, STEPS_MIN

if TYPE_CHECKING:
    from bot.client import KilnBot

TOLD_CHARACTERS = 900  # of what a style does, before escaping: all its words; a message holds 2,000
_SHAPES = [app_commands.Choice(name=f"{across}:{down}", value=f"{across}:{down}") for across, down in SHAPES]


class StyleCommands(commands.GroupCog, group_name="style", group_description=msg("The styles of this server")):
    """The commands about a server's own styles."""

    def __init__(self, bot: KilnBot) -> None:
        super().__init__()
        self._bot = bot

    @app_commands.command(name="add", description=msg("Add a style to this server, or change one of its own"))
    @app_commands.describe(
        name=msg("What people choose it by"),
        before=msg("Words before the prompt"),
        after=msg("Words behind the prompt and a comma"),
        shape=msg("Width to height"),
        steps=msg("Denoising steps: more is slower, and finer"),
        guidance=msg("How closely to follow your words"),
        lora=msg("A LoRA by name, or up to five with commas, like ink:0.8, oil"),
        negative=msg("What to stay away from; takes twice the time"),
    )
    @app_commands.choices(shape=_SHAPES)
    async def add(  # noqa: PLR0913 - Discord's options are the callback's arguments
        self,
        interaction: discord.Interaction[KilnBot],
        name: app_commands.Range[str, 1, NAME_CHARACTERS],
        before: app_commands.Range[str, 1, WORDS_CHARACTERS] | None = None,
        after: app_commands.Range[str, 1, WORDS_CHARACTERS] | None = None,
        shape: str | None = None,
        steps: app_commands.Range[int, STEPS_MIN, STEPS_MAX] | None = None,
        guidance: app_commands.Range[float, GUIDANCE_MIN, GUIDANCE_MAX] | None = None,
        lora: app_commands.Range[str, 1, LORAS_CHARACTERS] | None = None,
        negative: app_commands.Range[str, 1, WORDS_CHARACTERS] | None = None,
    ) -> None:
        """Check and store it, and show what it does."""
        check_keeper(interaction)
        guild_id, kiln, say = guild_id_of(interaction), self._bot.kiln, say_to(interaction)
        across, _, down = (shape or "").partition(":")
        style = checked_style(
            name=name,
            prefix="" if before is None else f"{before} ",
            suffix="" if after is None else f", {after}",
            shape=(int(across), int(down)) if shape is not None else None,
            steps=steps,
            guidance=guidance,
            loras=read_loras(lora or ""),
            negative=negative or "",
        )
        await kiln.loras.check(style.loras)
        await in_time(interaction, kiln.styles.put(guild_id, style, actor_id=interaction.user.id), alone=True)
        kiln.keepers.log_channel.wake()
        told = quoted(style.told(say), characters=TOLD_CHARACTERS)
        shown = quoted(style.name, characters=NAME_CHARACTERS)
        await answer(interaction, say("This server has the style **{name}** now: {told}", name=shown, told=told))

    @app_commands.command(name="remove", description=msg("Take a style of this server away"))
    @app_commands.describe(name=msg("What people choose it by"))
    async def remove(
        self, interaction: discord.Interaction[KilnBot], name: app_commands.Range[str, 1, CHOICE_CHARACTERS]
    ) -> None:
        """Take it away; pictures that were drawn with it stay as they are."""
        check_keeper(interaction)
        removed = self._bot.kiln.styles.remove(guild_id_of(interaction), name, actor_id=interaction.user.id)
        style = await in_time(interaction, removed, alone=True)
        self._bot.kiln.keepers.log_channel.wake()
        say = say_to(interaction)
        shown = quoted(style.name, characters=NAME_CHARACTERS)
        await answer(interaction, say("The style **{name}** is gone.", name=shown))

    @remove.autocomplete("name")
    async def names(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer the server's own styles."""
        own = [
            one for one in self._bot.kiln.styles.of(interaction.guild_id) if current.casefold() in one.name.casefold()
        ]
        say = say_to(interaction)
        return [
            app_commands.Choice(name=fold(f"{one.name}: {one.told(say)}", characters=CHOICE_CHARACTERS), value=one.name)
            for one in own[:CHOICES_MAX]
        ]


def style_group(bot: KilnBot) -> app_commands.Group:
    """The commands, shown to those who may manage the server."""
    group = StyleCommands(bot).app_command
    assert isinstance(group, app_commands.Group)
    group.default_permissions = discord.Permissions(manage_guild=True)
    return group
