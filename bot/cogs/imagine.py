"""/imagine: words and options in, one durable job and its card out.

The edge: here a seed is chosen and a trailing `seed:N` is understood; `bot.asking.intake` does the rest. Limits are
`gen.request`'s; caps and rates are the queue's. Knows nothing of drawing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import ANSWER_SECONDS, CHOICES_MAX, in_time, say_to
from bot.asking.defaults import NO_STYLE, with_defaults
from bot.asking.edit_dialog import LORAS_CHARACTERS
from bot.asking.intake import Asking, Beginning
from bot.asking.styles import Style, style_title, styles_found
from bot.asking.wishes import COUNT_MAX, Wishes, chosen_loras, chosen_style, requests_of
from bot.errors import Refusal
from bot.language import Say, msg
from bot.quoting import fold, quoted
from bot.servers.server import STYLE_MAX_CHARACTERS
from gen.errors import InvalidRequest
from gen.lora_index import LoraInfo
from gen.prompt import seed_of
from gen.request import (
    GUIDANCE_MAX,
    GUIDANCE_MIN,
    LORA_STRENGTH_MAX,
    PROMPT_MAX_CHARACTERS,
    SEED_MAX,
    STEPS_MAX,
    STEPS_MIN,
    ModelProfile,
    parse_size,
)

if TYPE_CHECKING:
    from bot.client import KilnBot

SIZE_MAX_CHARACTERS = 20
CHOICE_CHARACTERS = 100  # Discord's limit for a choice


class Imagine(commands.Cog):
    """The command that draws."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot, self._asking = bot, Asking(bot)

    @app_commands.command(description=msg("Draw a picture from your words"))
    @app_commands.describe(
        prompt=msg("What to draw. You may end it with seed:42"),
        seed=msg("The same seed and settings draw the same picture. Left out: chosen for you, and shown"),
        size=msg("Width x height in pixels, like 768x512"),
        steps=msg("Denoising steps: more is slower, and finer"),
        guidance=msg("How closely to follow your words"),
        style=msg("A named preset; its words become part of your prompt"),
        lora=msg("A LoRA by name, or up to five with commas, like ink:0.8, oil"),
        lora_strength=msg("How strongly the LoRA works, 1 if left out"),
        negative=msg("What to stay away from; takes twice the time"),
        count=msg("How many pictures, each a job of its own"),
        private=msg("Only you see the card and the picture"),
    )
    async def imagine(  # noqa: PLR0913 - Discord's options are the callback's arguments
        self,
        interaction: discord.Interaction[KilnBot],
        prompt: app_commands.Range[str, 1, PROMPT_MAX_CHARACTERS],
        seed: app_commands.Range[int, 0, SEED_MAX] | None = None,
        size: app_commands.Range[str, 1, SIZE_MAX_CHARACTERS] | None = None,
        steps: app_commands.Range[int, STEPS_MIN, STEPS_MAX] | None = None,
        guidance: app_commands.Range[float, GUIDANCE_MIN, GUIDANCE_MAX] | None = None,
        style: app_commands.Range[str, 1, CHOICE_CHARACTERS] | None = None,
        lora: app_commands.Range[str, 1, LORAS_CHARACTERS] | None = None,
        lora_strength: app_commands.Range[float, -LORA_STRENGTH_MAX, LORA_STRENGTH_MAX] | None = None,
        negative: app_commands.Range[str, 1, PROMPT_MAX_CHARACTERS] | None = None,
        count: app_commands.Range[int, 1, COUNT_MAX] = 1,
        private: bool | None = None,
    ) -> None:
        """Accept pictures."""
        words, first_seed = seed_of(prompt, seed)
        kiln, mine = self._bot.kiln, self._bot.kiln.people.of(interaction.user.id)
        wishes = Wishes(
            prompt=words,
            seed=first_seed,
            size=size,
            steps=steps,
            guidance=guidance,
            style=None if style == NO_STYLE else chosen_style(style, kiln.styles.of(interaction.guild_id)),
            loras=chosen_loras(lora, lora_strength),
            negative=negative or "",
        )
        wishes = with_defaults(wishes, replace(mine, style=None) if style == NO_STYLE else mine, profile=kiln.profile)
        private = bool(mine.private) if private is None else private
        if wishes.style is None and style != NO_STYLE:
            wishes = replace(wishes, style=await in_time(interaction, self._servers_style(interaction), alone=private))
        requests = requests_of(wishes, kiln.profile, count=count, choose_seed=kiln.choose_seed)
        beginning = Beginning(style=wishes.style.name if wishes.style else None, private=private)
        await self._asking.ask(interaction, *requests, beginning=beginning)

    async def _servers_style(self, interaction: discord.Interaction[KilnBot]) -> Style | None:
        """What the server's keepers chose for whoever names no style; raise Refusal if it no longer exists."""
        kiln, guild_id = self._bot.kiln, interaction.guild_id
        assert guild_id is not None
        name = (await kiln.keepers.servers.settings(guild_id)).default_style
        try:
            return chosen_style(name, kiln.styles.of(guild_id))
        except InvalidRequest as error:
            raise Refusal(
                msg(
                    "The default style of this server, {style}, no longer exists. Its moderators can choose another "
                    "with /server; until then please name a style, or - for none."
                ),
                style=quoted(name or "", characters=STYLE_MAX_CHARACTERS),
            ) from error

    @imagine.autocomplete("style")
    async def styles(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer the styles as what they are: name, and the words and settings that they bring."""
        say, mine = say_to(interaction), self._bot.kiln.people.of(interaction.user.id)
        none = [app_commands.Choice(name=say("no style"), value=NO_STYLE)] if mine.style else []
        own = self._bot.kiln.styles.of(interaction.guild_id)
        return [*none, *style_choices(say, current, own)][:CHOICES_MAX]

    @imagine.autocomplete("lora")
    async def loras(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer LoRAs for what stands behind the last comma, with their trigger words."""
        before, comma, typed = current.rpartition(",")
        kept = f"{before.strip()}, " if comma else ""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                room = CHOICE_CHARACTERS - len(kept)
                found = await self._bot.kiln.loras.found(typed, limit=CHOICES_MAX, room=room)
        except TimeoutError:
            return []  # the name can be typed
        named = ((one, kept + one.name) for one in found)
        return [
            app_commands.Choice(name=fold(_lora_label(value, one), characters=CHOICE_CHARACTERS), value=value)
            for one, value in named
        ]

    @imagine.autocomplete("size")
    async def sizes(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer this model's sizes, and what was typed when it is a size."""
        return size_choices(say_to(interaction), self._bot.kiln.profile, current)


def _lora_label(value: str, one: LoraInfo) -> str:
    return f"{value} · {', '.join(one.triggers)}" if one.triggers else value


def style_choices(say: Say, current: str, own: Iterable[Style] = ()) -> list[app_commands.Choice[str]]:
    """The styles that match what was typed, as what they are: name, and the words and settings that they bring."""
    shown = ((style, f"{style_title(say, style.name)}: {style.told(say)}") for style in styles_found(say, current, own))
    return [
        app_commands.Choice(name=fold(text, characters=CHOICE_CHARACTERS), value=style.name)
        for style, text in list(shown)[:CHOICES_MAX]
    ]


def size_choices(say: Say, profile: ModelProfile, current: str) -> list[app_commands.Choice[str]]:
    """The model's sizes that match what was typed, and that itself when it is a size."""
    sizes, typed = profile.sizes(), current.strip().lower()
    found = [size for size in sizes if typed in size_label(say, size)] or list(sizes)
    own = _own_size(profile, typed)
    if own is not None:
        found = [own, *(size for size in found if size != own)]
    return [app_commands.Choice(name=size_label(say, size), value=size) for size in found[:CHOICES_MAX]]


def _own_size(profile: ModelProfile, typed: str) -> str | None:
    """What was typed, if it is a size that this model draws."""
    try:
        return profile.request("a size", seed=0, size=typed).size
    except InvalidRequest:
        return None


def size_label(say: Say, size: str) -> str:
    """Name a size for the list: `768x512 · wide`."""
    width, height = parse_size(size)
    if width == height:
        return f"{size} · " + say("square")
    return f"{size} · " + (say("wide") if width > height else say("tall"))
