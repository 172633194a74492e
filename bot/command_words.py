"""Translates what Discord's own menus show of the commands: descriptions, options, choices, context menus.

Slash commands keep their names in every language: people learn `/imagine` from each other and from elsewhere, the
bot's own words name commands (`/cancel`), and a Chinese name would have to be typed through an input method that
Discord's command line often swallows. Everything else is picked from a list, and is translated.
"""

from __future__ import annotations

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


def _is_menu_entry(context: app_commands.TranslationContextTypes) -> bool:
    return isinstance(context.data, app_commands.ContextMenu)
