"""/settings: what /imagine takes for what I leave out, and the language in which Kiln answers me."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import answer, in_time, say_to
from bot.asking.defaults import check_default
from bot.asking.people import CHOICES, Preferences
from bot.asking.styles import style_title
from bot.asking.wishes import chosen_style
from bot.cogs.imagine import CHOICE_CHARACTERS, SIZE_MAX_CHARACTERS, size_choices, style_choices
from bot.errors import Refusal
from bot.language import LOCALE_NAMES, Say, msg
from bot.quoting import quoted
from gen.request import GUIDANCE_MAX, GUIDANCE_MIN, STEPS_MAX, STEPS_MIN, ModelProfile

if TYPE_CHECKING:
    from bot.client import KilnBot

EVERYTHING = "everything"
RESETS = [
    app_commands.Choice(name=msg("everything"), value=EVERYTHING),
    app_commands.Choice(name=msg("size"), value="size"),
    app_commands.Choice(name=msg("steps"), value="steps"),
    app_commands.Choice(name=msg("guidance"), value="guidance"),
    app_commands.Choice(name=msg("style"), value="style"),
    app_commands.Choice(name=msg("private"), value="private"),
    app_commands.Choice(name=msg("language"), value="locale"),
]
LANGUAGES = [app_commands.Choice(name=name, value=locale) for locale, name in LOCALE_NAMES.items()]


class Settings(commands.Cog):
    """The command about a person's own defaults."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(
        description=msg("Your defaults: what /imagine takes for what you leave out, and your language")
    )
    @app_commands.describe(
        size=msg("Width x height in pixels, like 768x512"),
        steps=msg("Denoising steps: more is slower, and finer"),
        guidance=msg("How closely to follow your words"),
        style=msg("A named preset; its words become part of your prompt"),
        private=msg("Only you see the card and the picture"),
        language=msg("In which Kiln answers you. Left alone: your Discord's, else the server's"),
        reset=msg("Take a default back, before the others are set"),
    )
    @app_commands.choices(language=LANGUAGES, reset=RESETS)
    async def settings(  # noqa: PLR0913 - Discord's options are the callback's arguments
        self,
        interaction: discord.Interaction[KilnBot],
        size: app_commands.Range[str, 1, SIZE_MAX_CHARACTERS] | None = None,
        steps: app_commands.Range[int, STEPS_MIN, STEPS_MAX] | None = None,
        guidance: app_commands.Range[float, GUIDANCE_MIN, GUIDANCE_MAX] | None = None,
        style: app_commands.Range[str, 1, CHOICE_CHARACTERS] | None = None,
        private: bool | None = None,
        language: str | None = None,
        reset: str | None = None,
    ) -> None:
        """Change what was named, and show all."""
        kiln, me = self._bot.kiln, interaction.user.id
        if size is not None:
            size = kiln.profile.request("a size", seed=0, size=size).size  # as it is written, or why it cannot be
        chosen = chosen_style(style)
        given = {"size": size, "steps": steps, "guidance": guidance, "private": private, "locale": language}
        given |= {"style": chosen.name if chosen else None}
        changes = dict.fromkeys(_taken_back(reset)) | {
            name: value for name, value in given.items() if value is not None
        }
        mine = kiln.people.of(me)
        if changes:
            mine = await in_time(interaction, kiln.people.choose(me, **changes), alone=True)
        await answer(interaction, settings_words(say_to(interaction), mine, profile=kiln.profile))

    @settings.autocomplete("size")
    async def sizes(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer this model's sizes, and what was typed when it is one."""
        return size_choices(say_to(interaction), self._bot.kiln.profile, current)

    @settings.autocomplete("style")
    async def styles(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer the styles as what they are."""
        return style_choices(say_to(interaction), current)


def settings_words(say: Say, mine: Preferences, *, profile: ModelProfile) -> str:
    """All of a person's defaults, and which of them work no longer."""
    model: dict[str, Any] = {
        "size": f"{profile.width}x{profile.height}",
        "steps": profile.steps,
        "guidance": f"{profile.guidance:g}",
    }
    lines = [say("**Your defaults**")]
    for name, usual in model.items():
        own = getattr(mine, name)
        shown = say("{value} (the model's)", value=usual) if own is None else f"**{own}**"
        lines.append(say("{name}: {value}", name=say(name), value=shown))
        lines += _warning(say, profile, name, own)
    lines.append(say("{name}: {value}", name=say("style"), value=_style(say, mine.style)))
    lines += _warning(say, profile, "style", mine.style)
    lines.append(say("{name}: {value}", name=say("private"), value=_private(say, mine.private)))
    spoken = say("{language} (as in Discord)", language=LOCALE_NAMES[say.locale])
    if mine.locale is not None:
        spoken = f"**{LOCALE_NAMES[mine.locale]}**"
    lines.append(say("{name}: {value}", name=say("language"), value=spoken))
    lines.append("-# " + say("/imagine takes them for what you leave out. /settings with reset takes one back."))
    return "\n".join(lines)


def _style(say: Say, name: str | None) -> str:
    return say("none") if name is None else f"**{quoted(style_title(say, name), characters=CHOICE_CHARACTERS)}**"


def _private(say: Say, private: bool | None) -> str:
    if private is None:
        return say("no")
    return f"**{say('yes') if private else say('no')}**"


def _warning(say: Say, profile: ModelProfile, name: str, own: object) -> list[str]:
    try:
        check_default(profile, name, own)
    except Refusal as refusal:
        return [f"-# ⚠️ {refusal.told(say)}"]
    return []


def _taken_back(reset: str | None) -> tuple[str, ...]:
    if reset is None:
        return ()
    if reset == EVERYTHING:
        return CHOICES
    return (reset,)
