"""What went wrong in a command, a button or a dialog, in words for whoever used it.

Our own refusals are shown as they are; anything else is a bug: traceback to the log, one sentence to the person.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

import discord

from bot.answers import say_to, tell
from bot.errors import Refusal
from gen.errors import InvalidRequest

_log = logging.getLogger(__name__)


async def explain(interaction: discord.Interaction[Any], error: BaseException, *, what: str) -> None:
    """Tell the person alone; `what` names what they used, for the log."""
    say = say_to(interaction)
    if isinstance(error, Refusal | InvalidRequest):
        interaction.client.kiln.metrics.refused(error)
        await tell(interaction, error.told(say))
        return
    incident = secrets.token_hex(4)
    _log.error("incident %s in %s: %s", incident, what, error, exc_info=error)
    words = say(
        "That did not work, and it is not your fault. The operator finds it as `{incident}`.", incident=incident
    )
    await tell(interaction, words)
