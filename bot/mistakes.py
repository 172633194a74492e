"""What goes wrong in a command, a button or a dialog, told to the person: our own refusals as they are, else a number.

The one place that words it. Dialogs and permanent buttons are made of what is here, so none fails in silence.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import discord
from discord import ui

from bot.answers import say_to, tell
from bot.errors import Refusal, WrongChannel
from bot.quoting import quoted
from gen.errors import InvalidRequest

WORDS_CHARACTERS = 900  # of a refusal, before escaping; a message holds 2,000

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item", bound=Any)


async def tell_mistake(interaction: discord.Interaction[Any], error: Exception, *, where: str) -> None:
    """Show a refusal as it is; anything else is a bug: traceback to the log, one sentence to them."""
    say, guild = say_to(interaction), interaction.guild
    if isinstance(error, Refusal | InvalidRequest):
        interaction.client.kiln.metrics.refused(error)
        words = error.told(say)
        if isinstance(error, InvalidRequest):  # it has no markup of its own, and may name what stands in others' files
            words = quoted(words, characters=WORDS_CHARACTERS)
        if isinstance(error, WrongChannel) and guild is not None and not any(map(guild.get_channel, error.channel_ids)):
            words = say("All channels that were chosen for Kiln are gone. Its moderators have to choose others.")
        await tell(interaction, words)
        return
    incident = secrets.token_hex(4)
    _log.error("incident %s in %s: %s", incident, where, error, exc_info=error)
    words = say(
        "That did not work, and it is not your fault. The operator finds it as `{incident}`.", incident=incident
    )
    await tell(interaction, words)


class KilnModal(ui.Modal):
    """A dialog whose errors are told. This process alone understands it: one from before a restart is told so."""

    async def open(self, interaction: discord.Interaction[Any]) -> None:
        """Show it, as the first answer."""
        self.custom_id = f"dialog:{interaction.client.stamp}:{secrets.token_hex(8)}"
        await interaction.response.send_modal(self)

    async def on_error(  # type: ignore[override]  # a modal's has no item
        self, interaction: discord.Interaction[Any], error: Exception, /
    ) -> None:
        """Tell the person."""
        await tell_mistake(interaction, error, where=type(self).__name__)


def told(
    callback: Callable[[_Item, discord.Interaction[Any]], Coroutine[Any, Any, None]],
) -> Callable[[_Item, discord.Interaction[Any]], Coroutine[Any, Any, None]]:
    """The callback of a permanent button; discord.py would only log what it raises."""

    @functools.wraps(callback)
    async def tells(self: _Item, interaction: discord.Interaction[Any]) -> None:
        try:
            await callback(self, interaction)
        except Exception as error:  # noqa: BLE001 - told and logged
            await tell_mistake(interaction, error, where=type(self).__name__)

    return tells
