"""/imagine: words and options in, one durable job and its card out.

The edge: here a seed is chosen and a trailing `seed:N` is understood; `bot.asking` does the rest. Limits are
`gen.request`'s; caps and rates are the queue's. Knows nothing of drawing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import CHOICES_MAX, say_to
from bot.asking import Asking, check_channel
from bot.defaults import with_defaults
from bot.language import Say, msg
from gen.errors import InvalidRequest
from gen.request import (
    GUIDANCE_MAX,
    GUIDANCE_MIN,
    PROMPT_MAX_CHARACTERS,
    SEED_MAX,
    STEPS_MAX,
    STEPS_MIN,
    ModelProfile,
    check_prompt,
    parse_size,
)

if TYPE_CHECKING:
    from bot.client import KilnBot

SIZE_MAX_CHARACTERS = 20

_TRAILING_SEED = re.compile(r"(?:^|\s)seed\s*[:：](?P<gap>\s*)(?P<value>\S+)\s*$", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


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
    )
    async def imagine(
        self,
        interaction: discord.Interaction[KilnBot],
        prompt: app_commands.Range[str, 1, PROMPT_MAX_CHARACTERS],
        seed: app_commands.Range[int, 0, SEED_MAX] | None = None,
        size: app_commands.Range[str, 1, SIZE_MAX_CHARACTERS] | None = None,
        steps: app_commands.Range[int, STEPS_MIN, STEPS_MAX] | None = None,
        guidance: app_commands.Range[float, GUIDANCE_MIN, GUIDANCE_MAX] | None = None,
    ) -> None:
        """Accept one picture."""
        check_channel(interaction)
        kiln = self._bot.kiln
        words, typed = split_seed(prompt)
        if typed is not None and seed is not None:
            raise InvalidRequest(
                msg(
                    "The seed is there twice: {typed} in the prompt and {seed} as the option. Please keep one of them."
                ),
                typed=typed,
                seed=seed,
            )
        chosen, mine = seed if seed is not None else typed, kiln.people.of(interaction.user.id)
        request = kiln.profile.request(
            words,
            seed=kiln.choose_seed() if chosen is None else chosen,
            **with_defaults(mine, profile=kiln.profile, size=size, steps=steps, guidance=guidance),
        )
        await self._asking.ask(interaction, request)

    @imagine.autocomplete("size")
    async def sizes(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer this model's sizes, and what was typed when it is a size."""
        return size_choices(say_to(interaction), self._bot.kiln.profile, current)


def split_seed(prompt: str) -> tuple[str, int | None]:
    """Take a trailing `seed:N` off a prompt; raise InvalidRequest, naming the limit, when N is no seed."""
    found = _TRAILING_SEED.search(prompt)
    if found is None:
        return prompt, None
    value = found["value"]
    if found["gap"] and not any(character.isdigit() for character in value):
        return prompt, None  # `a bird eating seed: millet`
    if not _WHOLE_NUMBER.fullmatch(value) or not 0 <= int(value) <= SEED_MAX:
        shown = value if len(value) <= 40 else value[:40] + "…"
        raise InvalidRequest(
            msg("The seed must be a whole number from 0 to {most:,}; it is {value!r}."), most=SEED_MAX, value=shown
        )
    words = prompt[: found.start()].rstrip()
    another = _TRAILING_SEED.search(words)
    if another is not None and _WHOLE_NUMBER.fullmatch(another["value"]):
        text = msg("The prompt ends with two seeds, {first} and {second}. Please keep one.")
        raise InvalidRequest(text, first=another["value"][:40], second=value)
    check_prompt(words)
    return words, int(value)


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
