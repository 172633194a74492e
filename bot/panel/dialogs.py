"""The dialogs of /server: what is typed into them is hostile or mistaken until it is read; a mistake names the limit.

A dialog knows how to read its own fields and hands what it read to `then`. No server gives its people more than the
host gives: limits end at the host's, unless one of the host's owners fills the dialog in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import discord
from discord import ui

from bot.errors import Refusal
from bot.language import Message, Say, msg
from bot.mistakes import KilnModal
from bot.panel.words import ACTIONS, PLACES, SETTINGS
from bot.queue.job import Limits
from bot.queue.roles import WEIGHT_MAX, WEIGHT_MIN
from bot.quoting import quoted
from bot.servers.policy import WORDS_MAX_CHARACTERS, Action, Rule, Where
from bot.servers.server import COUNT_MAX, GPU_SECONDS_MAX, STYLE_MAX_CHARACTERS
from gen.request import STEPS_MAX, STEPS_MIN, parse_size

NUMBER_CHARACTERS = 12
LABEL_CHARACTERS = 45  # Discord's limit
WHOLE = ("waiting_per_user", "pictures_per_hour", "burst", "steps_max")
LIMITS = ("waiting_per_user", "pictures_per_hour", "burst", "gpu_seconds_per_day", "server_gpu_seconds_per_day")
ROLE = ("weight", "waiting_per_user", "pictures_per_hour", "burst", "gpu_seconds_per_day")

Then = Callable[[discord.Interaction[Any], dict[str, Any]], Coroutine[Any, Any, None]]


class Numbers(KilnModal):
    """Up to five numbers, each of which may be left out."""

    def __init__(
        self, say: Say, *, title: str, values: dict[str, float | None], host: Limits | None, then: Then
    ) -> None:
        """`values` are the settings and what they are now; `host` is None for the host's own people."""
        super().__init__(title=title)
        self._then, self._host = then, host
        self._fields = {setting: _field(value) for setting, value in values.items()}
        for setting, field in self._fields.items():
            label = say(SETTINGS[setting])[:LABEL_CHARACTERS]
            self.add_item(ui.Label(text=label, description=_range(say, setting, host), component=field))

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Read all, then hand them on."""
        read = {setting: read_number(setting, field.value, host=self._host) for setting, field in self._fields.items()}
        await self._then(interaction, read)


class Pictures(KilnModal):
    """Largest size, most steps, default style."""

    def __init__(self, say: Say, *, size: str | None, steps: int | None, style: str | None, then: Then) -> None:
        super().__init__(title=say("Pictures in this server"))
        self._then = then
        self._size: ui.TextInput[Any] = ui.TextInput(default=size, required=False, max_length=20)
        self._steps = _field(steps)
        self._style: ui.TextInput[Any] = ui.TextInput(default=style, required=False, max_length=STYLE_MAX_CHARACTERS)
        for setting, field, description in (
            ("size_max", self._size, say("Like 1024x768: as many pixels, in any shape. Empty: the model's")),
            ("steps_max", self._steps, _range(say, "steps_max", None)),
            ("default_style", self._style, say("The name of a style. Empty: none")),
        ):
            self.add_item(ui.Label(text=say(SETTINGS[setting]), description=description, component=field))

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Read all, then hand them on."""
        size = self._size.value.strip()
        if size:
            width, height = parse_size(size)
            size = f"{width}x{height}"
        read = {
            "size_max": size or None,
            "steps_max": read_number("steps_max", self._steps.value, host=None),
            "default_style": self._style.value.strip() or None,
        }
        await self._then(interaction, read)


class NewRule(KilnModal):
    """A rule's words, what it does, and where."""

    def __init__(self, say: Say, *, then: Then) -> None:
        super().__init__(title=say("A new rule"))
        self._then = then
        style = discord.TextStyle.paragraph
        self._words: ui.TextInput[Any] = ui.TextInput(style=style, max_length=WORDS_MAX_CHARACTERS)
        self._action = _choice(say, ACTIONS)
        self._where = _choice(say, PLACES)
        hint = say("| or, + and, ! but not within: cat | kitten + night ! cat food")
        self.add_item(ui.Label(text=say("Words"), description=hint, component=self._words))
        self.add_item(ui.Label(text=say("What it does"), component=self._action))
        self.add_item(ui.Label(text=say("Where"), component=self._where))

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Read it, then hand it on. Raise InvalidRule for words that are none."""
        action, where = Action(self._action.values[0]), Where(self._where.values[0])
        rule = Rule(words=" ".join(self._words.value.split()), action=action, where=where)
        await self._then(interaction, {"rule": rule})


class Reason(KilnModal):
    """Why; one line of text."""

    def __init__(self, say: Say, *, title: str, most: int, then: Then) -> None:
        super().__init__(title=title)
        self._then = then
        style = discord.TextStyle.paragraph
        self._reason: ui.TextInput[Any] = ui.TextInput(style=style, required=False, max_length=most)
        self.add_item(ui.Label(text=say("Reason"), component=self._reason))

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Hand it on."""
        await self._then(interaction, {"reason": " ".join(self._reason.value.split())})


def bounds(setting: str, host: Limits | None) -> tuple[float, float]:
    """What a setting may be: the host's own limit is the most that a server gives."""
    match setting:
        case "weight":
            return WEIGHT_MIN, WEIGHT_MAX
        case "steps_max":
            return STEPS_MIN, STEPS_MAX
        case "server_gpu_seconds_per_day":
            return 0, GPU_SECONDS_MAX
        case "gpu_seconds_per_day":
            limit = host.gpu_seconds_per_day if host is not None else 0.0
            return (1, limit) if limit else (0, GPU_SECONDS_MAX)
    return 1, COUNT_MAX if host is None else getattr(host, setting)


def read_number(setting: str, typed: str, *, host: Limits | None) -> float | None:
    """The number; None for none. Raise Refusal, naming limit and value, for anything else."""
    text = typed.strip()
    if not text:
        return None
    low, high = bounds(setting, host)
    name = Message(SETTINGS[setting])
    try:
        number = int(text) if setting in WHOLE else float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        words = msg("{setting}: that must be a number from {low:g} to {high:g}; it is {value}.")
        if setting in WHOLE:
            words = msg("{setting}: that must be a whole number from {low:g} to {high:g}; it is {value}.")
        shown = quoted(text, characters=NUMBER_CHARACTERS)
        raise Refusal(words, setting=name, low=low, high=high, value=shown)
    return number


def _range(say: Say, setting: str, host: Limits | None) -> str:
    low, high = bounds(setting, host)
    if setting.endswith("gpu_seconds_per_day") and low == 0:
        return say("0 (no limit) to {high:g}. Empty: as the host has it", high=high)
    return say("{low:g} to {high:g}. Empty: as the host has it", low=low, high=high)


def _field(value: float | None) -> ui.TextInput[Any]:
    shown = None if value is None else f"{value:g}"
    return ui.TextInput(default=shown, required=False, max_length=NUMBER_CHARACTERS)


def _choice(say: Say, words: dict[Any, str]) -> ui.Select[Any]:
    options = [
        discord.SelectOption(label=say(text), value=str(value), default=number == 0)
        for number, (value, text) in enumerate(words.items())
    ]
    return ui.Select(options=options)
