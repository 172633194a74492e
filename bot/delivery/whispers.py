"""Private jobs: their card and their picture are seen by one person alone, by the answer's token while it lives.

A token is kept in memory for a quarter of an hour, and never written down: after that, or after a restart, the picture
goes to its author directly. What is whispered has no nonce and no history; where a whisper fails, or nobody can tell
whether it did, the picture goes directly as well, so its author may see it twice, and nobody else ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import discord

from bot.cards.buttons import picture_view
from bot.cards.captions import Origin, alt_text, picture_words
from bot.delivery.upload import largest_fitting
from bot.language import say_to_owner
from bot.queue.job import Job

TOKEN_SECONDS = 14 * 60.0  # Discord's tokens die after fifteen minutes


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisper:
    """One interaction that can still be answered."""

    interaction: discord.Interaction[Any]
    until: float
    context: contextvars.Context  # of the command: discord.py keeps the transport of such answers in a variable of it

    async def edit(self, view: discord.ui.LayoutView, files: list[discord.File]) -> None:
        """Show the card anew; raise what Discord raises."""
        nobody = discord.AllowedMentions.none()
        await self._there(
            self.interaction.edit_original_response(view=view, attachments=files, allowed_mentions=nobody)
        )

    async def post(self, job: Job, *, png: bytes, name: str, origin: Origin | None) -> int | None:
        """Send the picture, and return its message; None: its file is too large. Raise what Discord raises."""
        limit = self.interaction.filesize_limit
        upload = await asyncio.to_thread(largest_fitting, png, stem=name, limit=limit)
        if upload is None:
            return None
        say = say_to_owner(job)
        message = await self._there(
            self.interaction.followup.send(
                picture_words(say, job, origin=origin),
                file=discord.File(
                    io.BytesIO(upload.data),
                    filename=upload.name,
                    description=alt_text(say, job),
                    spoiler=origin is not None and origin.hidden,
                ),
                view=picture_view(say, job),
                allowed_mentions=discord.AllowedMentions.none(),
                ephemeral=True,
                wait=True,
            )
        )
        return message.id

    async def _there(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.create_task(work, context=self.context.copy())


class Whispers:
    """All interactions of private jobs whose tokens live."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds."""
        self._clock = clock
        self._kept: dict[int, Whisper] = {}  # by interaction

    def keep(self, interaction: discord.Interaction[Any]) -> None:
        """Remember an interaction as long as it can be answered."""
        now = self._clock()
        self._kept = {key: one for key, one in self._kept.items() if one.until > now}
        self._kept[interaction.id] = Whisper(
            interaction=interaction, until=now + TOKEN_SECONDS, context=contextvars.copy_context()
        )

    def of(self, job: Job) -> Whisper | None:
        """What reaches this private job's author alone; None: nothing does any more."""
        found = self._kept.get(job.interaction_id)
        return found if found is not None and found.until > self._clock() else None
