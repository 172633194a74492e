"""Answers to an interaction, inside Discord's three seconds: said at once, or deferred and said when they are known.

Knows no command and no queue; what an answer waits for is the caller's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
import discord

from bot.language import Say, say_in

ANSWER_SECONDS = 1.5  # half of what Discord waits: the way there and back needs time too
CHOICES_MAX = 25  # Discord's limit for autocomplete
ALREADY_ANSWERED = 40060  # Discord: the interaction was acknowledged before
FOR_ALL = "deferred for all"  # in an interaction's extras: whether all see its "thinking…"
EXPIRED = frozenset({10062, 10015, 50027})  # Discord: unknown interaction, unknown webhook, invalid webhook token

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


async def in_time(
    interaction: discord.Interaction[Any],
    work: Coroutine[Any, Any, _T],
    *,
    alone: bool,
    seconds: float = ANSWER_SECONDS,
) -> _T:
    """Return what `work` returns or raises; defer the answer if that takes longer than `seconds`.

    `work` is never given up half known: what it stores is stored, and the person hears of it. `alone`: only the person
    sees the answer, also a deferred one.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            await _defer(interaction, alone=alone)
        return await task
    finally:
        task.cancel()


def is_deferred(interaction: discord.Interaction[Any]) -> bool:
    """Whether the person sees "thinking…", which the answer replaces."""
    return interaction.response.type is discord.InteractionResponseType.deferred_channel_message


def say_to(interaction: discord.Interaction[Any]) -> Say:
    """The language that the person chose with /settings, else their Discord's, the server's, or English."""
    chosen = interaction.client.kiln.people.of(interaction.user.id).locale
    return say_in(chosen, str(interaction.locale), str(interaction.guild_locale))


async def answer(interaction: discord.Interaction[Any], text: str) -> None:
    """Answer the person alone; raise what Discord raises."""
    if is_deferred(interaction) and interaction.extras.get(FOR_ALL):
        # A follow-up to "thinking…" would take its place and be seen by all as well, so that one is ended first. It is
        # deleted last: whether Discord takes a follow-up to one that was deleted, it has answered both ways.
        await interaction.edit_original_response(content="…")
        await interaction.followup.send(text, ephemeral=True)
        await interaction.delete_original_response()
    elif is_deferred(interaction):
        await interaction.edit_original_response(content=text)
    elif interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=True)
    else:
        await interaction.response.send_message(text, ephemeral=True)


async def answer_with(
    interaction: discord.Interaction[Any], view: discord.ui.LayoutView, files: Sequence[discord.File]
) -> None:
    """The same with a layout and the files that it shows."""
    if is_deferred(interaction):
        await interaction.edit_original_response(view=view, attachments=files)
    else:
        await interaction.response.send_message(view=view, files=files, ephemeral=True)


async def show(interaction: discord.Interaction[Any], view: discord.ui.LayoutView) -> None:
    """Answer the person alone with a card; raise what Discord raises. It notifies nobody."""
    if is_deferred(interaction):
        await interaction.edit_original_response(view=view, allowed_mentions=discord.AllowedMentions.none())
    else:
        await interaction.response.send_message(
            view=view, ephemeral=True, allowed_mentions=discord.AllowedMentions.none()
        )


async def tell(interaction: discord.Interaction[Any], text: str) -> None:
    """Answer the person alone, if Discord still listens; what it does not take is logged, not repeated."""
    try:
        await answer(interaction, text)
    except discord.HTTPException as error:
        if error.code == ALREADY_ANSWERED:
            return  # a repeated request of the library's: the person has an answer
        why = "expired before" if error.status == 401 or error.code in EXPIRED else "did not take"
        _log.warning("interaction %d %s the answer: %s", interaction.id, why, error)
    except (discord.RateLimited, aiohttp.ClientError, OSError) as error:
        _log.warning("interaction %d got no answer: %s", interaction.id, error)


async def _defer(interaction: discord.Interaction[Any], *, alone: bool) -> None:
    """Ask Discord for fifteen minutes; what it does not take is logged: the answer itself is tried all the same."""
    interaction.extras[FOR_ALL] = not alone
    try:
        await interaction.response.defer(ephemeral=alone, thinking=True)
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        _log.warning("interaction %d could not be deferred: %s", interaction.id, error)
