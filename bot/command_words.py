"""Translates what Discord's own menus show of the commands: descriptions, options, choices, context menus.

Slash commands keep their names in every language: people learn `/imagine` from each other and from elsewhere, the
bot's own words name commands (`/cancel`), and a Chinese name would have to be typed through an input method that
Discord's command line often swallows. Everything else is picked from a list, and is translated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import discord
from discord import app_commands
from discord.app_commands import TranslationContextLocation

from bot.language import ENGLISH, say_in

_KEPT = (TranslationContextLocation.command_name, TranslationContextLocation.group_name)


class CommandWords(app_commands.Translator):
    """Looks the commands' texts up in the catalogues."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        """The text in that locale; None: as it is, in English."""
        say = say_in(locale.value)
        if say.locale == ENGLISH or (context.location in _KEPT and not _is_menu_entry(context)):
            return None
        text = say(string.message)
        return None if text == string.message else text  # a language is called by its own name everywhere


def usage(payload: dict[str, Any], *, above: str = "/") -> Iterator[str]:
    """How a command is used, a line for each of its subcommands; an entry of a message's menu is named as one."""
    if payload.get("type", 1) != 1:
        yield f"{payload['name']} (in a message's menu)"
        return
    name, options = above + payload["name"], payload.get("options", ())
    below = [option for option in options if option["type"] <= 2]
    for option in below:
        yield from usage({**option, "type": 1}, above=f"{name} ")
    if not below:
        needed = [option["name"] for option in options if option.get("required")]
        needed += [f"[{option['name']}]" for option in options if not option.get("required")]
        yield f"{' '.join([name, *needed])}: {payload['description']}"


def _is_menu_entry(context: app_commands.TranslationContextTypes) -> bool:
    return isinstance(context.data, app_commands.ContextMenu)
