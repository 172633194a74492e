"""Where a picture goes: its channel, else the channel above a thread, else its author directly, else nowhere.

Each rung is tried once, by posting.py, which sees to it that the picture stands there once. The outbox remembers what
was begun where, also for the next process, and which channels take none, so that they are not hammered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import discord

from bot.background import patiently
from bot.cards.captions import Origin
from bot.delivery.posting import (
    UNREACHABLE,
    UPLOAD_LIMIT,
    Notes,
    Posted,
    Poster,
    Refused,
    Target,
    Undeliverable,
    file_stem,
)
from bot.delivery.whispers import Whispers
from bot.language import msg
from bot.queue.job import Job
from bot.queue.outbox import Letter, Outbox

READY_SECONDS = 30.0  # for the gateway to name the servers; a picture goes on without it, made smaller

_log = logging.getLogger(__name__)


class Ladder:
    """All rungs, through a client that is logged in."""

    def __init__(self, client: discord.Client, *, poster: Poster, outbox: Outbox, whispers: Whispers) -> None:
        self._client, self._poster, self._outbox, self._whispers = client, poster, outbox, whispers

    async def climb(self, letter: Letter, *, png: bytes, origin: Origin | None = None) -> Posted:
        """Bring the picture to people, and return its message.

        Raise Undeliverable when nobody can be reached, Unsure when it may stand somewhere, LockedOut when the bot has
        no say any more.
        """
        job = letter.job
        if letter.tried_channel_id is not None:
            found = await self._poster.find(job, channel_id=letter.tried_channel_id)
            if found is not None:
                return found
        if job.private and (whispered := await self._whisper(job, png=png, origin=origin)) is not None:
            return whispered
        if len(png) > UPLOAD_LIMIT and self._client.get_guild(job.guild_id) is None:
            await self._wait_for_servers()
        for channel_id in _channels(job):
            channel = self._client.get_partial_messageable(channel_id, guild_id=job.guild_id)
            target = Target(channel=channel, limit=self._limit(job), moved=channel_id != job.channel_id)
            posted = await self._try(job, channel_id, png=png, target=target, origin=origin)
            if posted is not None:
                return posted
        posted = await self._directly(job, png=png, origin=origin)
        if posted is None and job.private:
            raise Undeliverable(msg("I may not send it to you directly."))
        if posted is None:
            raise Undeliverable(msg("I may post neither in <#{channel}> nor to you directly."), channel=job.channel_id)
        return posted

    async def _whisper(self, job: Job, *, png: bytes, origin: Origin | None) -> Posted | None:
        """Bring a private picture by its command's token; None: that did not do."""
        whisper = self._whispers.of(job)
        try:
            sent = await whisper.post(job, png=png, name=file_stem(job), origin=origin) if whisper else None
        except UNREACHABLE as error:
            _log.warning("job %d: its token does not bring the picture (%s)", job.id, error)
            return None
        return None if sent is None else Posted(message_id=sent, channel_id=job.channel_id)

    async def _directly(self, job: Job, *, png: bytes, origin: Origin | None) -> Posted | None:
        try:
            direct = await self._poster.insist(job, lambda: self._client.create_dm(discord.Object(job.user_id)))
        except Refused as refused:
            _log.warning("job %d: its author takes no direct message (%s)", job.id, refused)
            return None
        target = Target(channel=direct, limit=UPLOAD_LIMIT, moved=not job.private)
        return await self._try(job, direct.id, png=png, target=target, origin=origin)

    async def _try(
        self, job: Job, channel_id: int, *, png: bytes, target: Target, origin: Origin | None
    ) -> Posted | None:
        """Post on one rung; None: it takes no picture, and is remembered for that."""
        outbox = self._outbox
        if await patiently(partial(outbox.is_dead, channel_id)):
            return None

        async def begun() -> None:
            await patiently(partial(outbox.begin, job.id, channel_id=channel_id))

        async def failed(pause: float, error: str) -> None:
            await patiently(partial(outbox.postpone, job.id, pause=timedelta(seconds=pause), error=error))

        try:
            notes = Notes(begun=begun, failed=failed)
            return await self._poster.post(job, png=png, target=target, notes=notes, origin=origin)
        except Refused as refused:
            _log.warning("job %d: channel %d takes no picture (%s)", job.id, channel_id, refused)
            await patiently(partial(outbox.refuse, job.id, channel_id=channel_id, error=str(refused)))
            return None

    async def _wait_for_servers(self) -> None:
        """Just after the start no server is known, and a boosted one takes larger files than others."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._client.wait_until_ready(), timeout=READY_SECONDS)

    def _limit(self, job: Job) -> int:
        guild = self._client.get_guild(job.guild_id)
        return guild.filesize_limit if guild else UPLOAD_LIMIT


def _channels(job: Job) -> Iterator[int]:
    if job.private:
        return
    yield job.channel_id
    if job.parent_channel_id is not None:
        yield job.parent_channel_id
