"""Post one picture so that people see it exactly once, whatever Discord answers and whenever the process dies.

Two things make a repeat harmless: the nonce (the job's id and its interaction), with which Discord returns the first
message for some minutes, and the channel's history, where the bot finds its own file by the same words. The job's id
alone would not do: a new or restored database gives it to another job. After a restart, or once the nonce is too old,
nothing is sent again before the history was read. Knows no queue and no card.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import discord

from bot.background import backoff
from bot.cards import alt_text, author_only, picture_words
from bot.job import Job
from bot.upload import Upload, largest_fitting

NONCE_LASTS = timedelta(minutes=2)  # Discord keeps a nonce "a few minutes"; we trust it for this long
UPLOAD_LIMIT = 10 * 2**20  # bytes, of a server without boosts (discord.com/developers, 2026-08)
TOO_LARGE = 40005  # Discord: request entity too large

# What a request to Discord raises when Discord cannot be reached or does not want it.
UNREACHABLE = (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The message that shows the picture."""

    message_id: int
    channel_id: int


class Undeliverable(Exception):
    """No message can be sent for this job; `str()` says why, for its owner and the operator."""


class _TooLarge(Exception):
    """This file is larger than the channel takes."""


class Poster:
    """Posts pictures through a logged-in client. One for the process; each post is a call of its own."""

    def __init__(
        self,
        client: discord.Client,
        *,
        pauses: Callable[[], Iterator[float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pauses` makes the waiting times of one post, in seconds; `clock` counts seconds."""
        self._client = client
        self._pauses = pauses or backoff
        self._clock = clock

    async def post(self, job: Job, *, png: bytes, look_first: bool) -> Posted:
        """Post in the job's channel, else as a direct message. Raise Undeliverable when neither takes it.

        `look_first` when an earlier process may have posted it already.
        """
        channel = self._client.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        try:
            return await self._smaller_until_sent(channel, job, png=png, look_first=look_first, moved=False)
        except (discord.Forbidden, discord.NotFound) as gone:
            _log.warning("job %d: channel %d takes no picture (%s); trying its author", job.id, job.channel_id, gone)
        try:
            direct = await self._client.create_dm(discord.Object(job.user_id))
            return await self._smaller_until_sent(direct, job, png=png, look_first=look_first, moved=True)
        except (discord.Forbidden, discord.NotFound) as gone:
            raise Undeliverable(
                f"the picture is drawn, but I may post neither in <#{job.channel_id}> nor to you directly"
            ) from gone

    async def _smaller_until_sent(
        self, target: discord.abc.Messageable, job: Job, *, png: bytes, look_first: bool, moved: bool
    ) -> Posted:
        """Send the largest encoding that fits; each time it is refused as too large, one smaller than that."""
        limit = UPLOAD_LIMIT if moved else self._limit(job)
        while True:
            upload = await asyncio.to_thread(largest_fitting, png, stem=file_stem(job), limit=limit)
            if upload is None:
                raise Undeliverable("the picture is drawn, but its file is too large for this server")
            try:
                return await self._send_once(target, job, upload=upload, look_first=look_first, moved=moved)
            except _TooLarge:
                _log.warning("job %d: %d bytes are too many here", job.id, len(upload.data))
                limit = len(upload.data) - 1

    async def _send_once(
        self, target: discord.abc.Messageable, job: Job, *, upload: Upload, look_first: bool, moved: bool
    ) -> Posted:
        """Try until Discord has the message, with growing pauses. Forbidden and NotFound pass through."""
        pauses = self._pauses()
        first_try = None
        while True:
            try:
                if look_first or (first_try is not None and self._clock() - first_try > NONCE_LASTS.total_seconds()):
                    found = await self._find(target, job)
                    if found is not None:
                        return found
                    look_first, first_try = False, None
                first_try = self._clock() if first_try is None else first_try
                return await self._send(target, job, upload=upload, moved=moved)
            except UNREACHABLE as error:
                _raise_unless_passing(error)
                pause = next(pauses)
                _log.warning("job %d: posting failed (%s), again in %.1f s", job.id, _brief(error), pause)
            await asyncio.sleep(pause)

    async def _send(self, target: discord.abc.Messageable, job: Job, *, upload: Upload, moved: bool) -> Posted:
        message = await target.send(
            picture_words(job, moved=moved),
            file=discord.File(io.BytesIO(upload.data), filename=upload.name, description=alt_text(job)),
            allowed_mentions=author_only(job),
            suppress_embeds=True,
            nonce=nonce(job),
        )
        return Posted(message_id=message.id, channel_id=message.channel.id)

    async def _find(self, target: discord.abc.Messageable, job: Job) -> Posted | None:
        """Look for the bot's own message with this job's file, since the job was asked for."""
        self._check_history(job)
        assert self._client.user is not None
        me, stem = self._client.user.id, file_stem(job) + "."
        async for message in target.history(limit=None, after=discord.Object(job.interaction_id)):
            if message.author.id == me and any(file.filename.startswith(stem) for file in message.attachments):
                _log.info("job %d: its picture is message %d already", job.id, message.id)
                return Posted(message_id=message.id, channel_id=message.channel.id)
        return None

    def _check_history(self, job: Job) -> None:
        """Raise Undeliverable if the channel's history would come back empty for want of a permission."""
        guild = self._client.get_guild(job.guild_id)
        channel = guild.get_channel_or_thread(job.channel_id) if guild else None
        if guild is None or channel is None:
            return
        allowed = channel.permissions_for(guild.me)
        if allowed.view_channel and not allowed.read_message_history:
            raise Undeliverable(
                "the picture is drawn and may have been posted before; to be sure I need the permission "
                f"Read Message History in <#{job.channel_id}>"
            )

    def _limit(self, job: Job) -> int:
        guild = self._client.get_guild(job.guild_id)
        return guild.filesize_limit if guild else UPLOAD_LIMIT


def file_stem(job: Job) -> str:
    """The name of the posted file without its ending; the history is searched for it."""
    return f"kiln-{nonce(job)}"


def nonce(job: Job, *, mark: str = "-") -> str:
    """What Discord knows a job's message by: its id and its interaction, in the 25 characters that Discord takes.

    Another `mark` of one character names another message of the job.
    """
    return f"{job.id}{mark}{job.interaction_id % 10**12}"


def _raise_unless_passing(error: Exception) -> None:
    """Let 429, 5xx and broken connections pass as worth another try; raise what a repeat cannot cure."""
    if not isinstance(error, discord.HTTPException):
        return
    if error.status == 413 or error.code == TOO_LARGE:
        raise _TooLarge from error
    if isinstance(error, discord.Forbidden | discord.NotFound):
        raise error
    if error.status != 429 and error.status < 500:
        raise Undeliverable(f"Discord does not take the picture ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
