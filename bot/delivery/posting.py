"""Post one picture in one place so that people see it exactly once, whatever Discord answers.

Two things make a repeat harmless: the nonce, with which Discord returns the first message for some minutes, and the
place's history, where the bot finds its own file by the same words. Once the nonce is too old, nothing is sent again
before the history was read. Which places are tried in which order is ladder.py's. Knows no queue and no card.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import aiohttp
import discord

from bot.background import backoff
from bot.cards.buttons import picture_view
from bot.cards.captions import Origin, alt_text, picture_words
from bot.cards.job_card import author_only
from bot.delivery.upload import Upload, largest_fitting
from bot.language import Worded, msg, say_to_owner
from bot.queue.job import Job
from bot.queue.outbox import nonce

NONCE_LASTS = timedelta(minutes=2)  # Discord keeps a nonce "a few minutes"; we trust it for this long
UPLOAD_LIMIT = 10 * 2**20  # bytes, of a server without boosts (discord.com/developers, 2026-08)
TOO_LARGE = 40005  # Discord: request entity too large
# Discord: no messages in a forum, in a non-text channel, in this type of channel, in an archived or a locked thread
NO_MESSAGES_HERE = frozenset({40058, 50008, 50024, 50083, 160005})
REPEATED = "The library repeated this by itself: an earlier try may have taken effect."

# What a request to Discord raises when Discord cannot be reached or does not want it.
UNREACHABLE = (discord.HTTPException, discord.RateLimited, aiohttp.ClientError, OSError, TimeoutError)

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The message that shows the picture."""

    message_id: int
    channel_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to post."""

    channel: discord.abc.Messageable
    limit: int  # bytes of a file
    moved: bool  # not where the picture was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What is written down around each try."""

    begun: Callable[[], Awaitable[None]]  # before a send: from now on a message may stand there
    failed: Callable[[float, str], Awaitable[None]]  # it failed in passing; the pause in seconds, and why


class Undeliverable(Worded):
    """Discord does not take this picture anywhere; it says why, for its owner and the operator."""


class Unsure(Worded):
    """It may have been posted, and nobody can tell; it says why, for its owner and the operator."""


class LockedOut(Exception):
    """Discord does not take the bot's token any more: nothing can be sent before the next start."""


class Refused(Exception):
    """This place takes no picture, and none stands there."""


class _TooLarge(Exception):
    """This file is larger than the place takes."""


class _Attachment(discord.File):
    """Knows whether the library sent it more than once: it repeats a 5xx and a broken connection out of our sight.

    A gateway may take minutes for each, so before each it asks whether that would be `blind`.
    """

    repeated = False
    blind: Callable[[bool], bool]  # given whether it is a repeat of the library's

    def reset(self, *, seek: int | bool = True) -> None:
        """Called before each try, with how many there were. Raise TimeoutError rather than send it blindly."""
        self.repeated |= bool(seek)
        if self.blind(self.repeated):
            raise TimeoutError("its nonce is too old to send it again without a look")
        super().reset(seek=seek)


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

    async def post(self, job: Job, *, png: bytes, target: Target, notes: Notes, origin: Origin | None = None) -> Posted:
        """Send the largest encoding that fits; each time it is refused as too large, one smaller than that.

        Raise Refused, Undeliverable, Unsure or LockedOut.
        """
        limit = target.limit
        while True:
            upload = await asyncio.to_thread(largest_fitting, png, stem=file_stem(job), limit=limit)
            if upload is None:
                raise Undeliverable(msg("The picture's file is too large for this server."))
            try:
                send = partial(self._send, target, job, upload, origin=origin)
                return await self._send_once(target, job, send=send, notes=notes)
            except _TooLarge:
                _log.warning("job %d: %d bytes are too many here", job.id, len(upload.data))
                limit = len(upload.data) - 1

    async def find(self, job: Job, *, channel_id: int) -> Posted | None:
        """Look for the picture where a send was begun, however long that takes. Raise Unsure or LockedOut."""
        channel = self._client.get_partial_messageable(channel_id, guild_id=job.guild_id)
        return await self.insist(job, lambda: self._find(channel, job, channel_id=channel_id))

    async def insist(self, job: Job, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask Discord for something that may be asked again, with growing pauses. Raise as `post` does."""
        pauses = self._pauses()
        while True:
            try:
                return await ask()
            except UNREACHABLE as error:
                _raise_unless_passing(error)
                pause = _pause(error, next(pauses))
                _log.warning("job %d: Discord does not answer (%s), again in %.1f s", job.id, _brief(error), pause)
            await asyncio.sleep(pause)

    async def _send_once(
        self, target: Target, job: Job, *, send: Callable[[Callable[[bool], bool]], Awaitable[Posted]], notes: Notes
    ) -> Posted:
        """Try until Discord has the message, with growing pauses."""
        pauses, began, in_doubt = self._pauses(), self._clock(), False

        def blind(repeated: bool) -> bool:
            return (in_doubt or repeated) and self._clock() - began > NONCE_LASTS.total_seconds()

        while True:
            try:
                if blind(False):
                    found = await self._find(target.channel, job, channel_id=_id(target))
                    if found is not None:
                        return found
                    began, in_doubt = self._clock(), False
                await notes.begun()
                return await send(blind)
            except UNREACHABLE as error:
                in_doubt |= _may_stand(error)
                try:
                    _raise_unless_passing(error)
                except (Refused, Undeliverable):
                    found = await self.find(job, channel_id=_id(target)) if in_doubt else None
                    if found is not None:
                        return found
                    raise
                pause = _pause(error, next(pauses))
                _log.warning("job %d: posting failed (%s), again in %.1f s", job.id, _brief(error), pause)
                await notes.failed(pause, _brief(error))
            await asyncio.sleep(pause)

    async def _send(
        self, target: Target, job: Job, upload: Upload, blind: Callable[[bool], bool], *, origin: Origin | None
    ) -> Posted:
        say = say_to_owner(job)
        file = _Attachment(
            io.BytesIO(upload.data),
            filename=upload.name,
            description=alt_text(say, job),
            spoiler=origin is not None and origin.hidden,
        )
        file.blind = blind
        try:
            message = await target.channel.send(
                picture_words(say, job, moved=target.moved, origin=origin),
                file=file,
                view=picture_view(say, job),
                allowed_mentions=author_only(job),
                suppress_embeds=True,
                nonce=nonce(job.id, job.interaction_id),
            )
        except UNREACHABLE as error:
            if file.repeated:
                error.add_note(REPEATED)
            raise
        return Posted(message_id=message.id, channel_id=message.channel.id)

    async def _find(self, channel: discord.abc.Messageable, job: Job, *, channel_id: int) -> Posted | None:
        """Look for the bot's own message with this job's file, since the job was asked for."""
        try:
            await self._check_history(job, channel_id)
            assert self._client.user is not None
            me, stem = self._client.user.id, file_stem(job) + "."
            async for message in channel.history(limit=None, after=discord.Object(job.interaction_id)):
                if message.author.id == me and any(_is_of(file, stem) for file in message.attachments):
                    _log.info("job %d: its picture is message %d already", job.id, message.id)
                    return Posted(message_id=message.id, channel_id=message.channel.id)
        except discord.NotFound:
            return None  # gone, and any message with it
        except discord.Forbidden as error:
            text = msg("It may have been posted in <#{channel}>, where I may not look any more.")
            raise Unsure(text, channel=channel_id) from error
        return None

    async def _check_history(self, job: Job, channel_id: int) -> None:
        """Raise Unsure if the history would come back empty for want of a permission, as Discord has it."""
        await self._client.wait_until_ready()  # servers and their permissions are known from then on
        guild = self._client.get_guild(job.guild_id)
        channel = guild.get_channel_or_thread(channel_id) if guild else None
        if guild is not None and channel is None and channel_id == job.channel_id and job.parent_channel_id is not None:
            channel = guild.get_channel(job.parent_channel_id)  # an archived thread: the rights are those of above
        if guild is None or channel is None:
            return  # a direct message, or Discord says what is wrong
        if not channel.permissions_for(guild.me).read_message_history:
            raise Unsure(
                msg(
                    "It may have been posted before; to be sure I need the permission Read Message History in "
                    "<#{channel}>."
                ),
                channel=channel_id,
            )


def _is_of(file: discord.Attachment, stem: str) -> bool:
    """Whether this is the file, behind a spoiler or not."""
    return file.filename.removeprefix("SPOILER_").startswith(stem)


def file_stem(job: Job) -> str:
    """The name of the posted file without its ending; the history is searched for it."""
    return f"kiln-{nonce(job.id, job.interaction_id)}"


def _id(target: Target) -> int:
    return int(target.channel.id)  # type: ignore[attr-defined]


def _may_stand(error: Exception) -> bool:
    """Whether a message may have come of a send that ended in this error."""
    if REPEATED in getattr(error, "__notes__", ()):
        return True
    if isinstance(error, discord.RateLimited):
        return False
    return not isinstance(error, discord.HTTPException) or error.status >= 500


def _pause(error: Exception, pause: float) -> float:
    """Seconds until the next try: never less than Discord asked for."""
    return max(pause, error.retry_after) if isinstance(error, discord.RateLimited) else pause


def _raise_unless_passing(error: Exception) -> None:
    """Let 429, 5xx and broken connections pass as worth another try; raise what a repeat cannot cure."""
    if not isinstance(error, discord.HTTPException):
        return
    if error.status == 413 or error.code == TOO_LARGE:
        raise _TooLarge from error
    if isinstance(error, discord.Forbidden | discord.NotFound) or error.code in NO_MESSAGES_HERE:
        raise Refused(_brief(error)) from error
    if error.status == 401:
        raise LockedOut(_brief(error)) from error
    if error.status != 429 and error.status < 500:
        raise Undeliverable(msg("Discord does not take the picture ({error})."), error=_brief(error)) from error


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
