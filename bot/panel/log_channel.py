"""The log channel of each server: posts what the audit log says, in its order, and loses nothing where that fails.

The audit log's rows are the outbox: what Discord does not take stays there, and is tried again when there is something
new to say, when a keeper chooses a channel, and at the next start. A channel that refuses rests for a while, so that
it is not hammered. A crash between a post and its note may post it twice, which does no harm here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import islice

import discord

from bot.background import Tasks, backoff, patiently
from bot.delivery.posting import UNREACHABLE
from bot.language import Message, Say, msg, say_in
from bot.panel.review import buttons
from bot.panel.words import entry_words
from bot.queue.job import Job
from bot.quoting import quoted_within
from bot.servers.audit import Audit
from bot.servers.server import Act, Entry
from bot.servers.servers import Servers

AT_ONCE = 50  # rows read at a time
TRIES = 5  # of one post, while Discord cannot be reached
REST = timedelta(minutes=10)  # of a channel that takes none
MESSAGE_CHARACTERS = 2000  # Discord's limit
PROMPT_CHARACTERS = 700  # of the words that a moderator is to judge, before escaping
GRACE = timedelta(seconds=1)  # for what is under way when the process stops

_log = logging.getLogger(__name__)


class LogChannel:
    """Posts through a client that is logged in. One for the process."""

    def __init__(
        self,
        *,
        audit: Audit,
        servers: Servers,
        job: Callable[[int], Awaitable[Job | None]],
        now: Callable[[], datetime],
        pauses: Callable[[], object] = backoff,
    ) -> None:
        """`job` reads one; `pauses` makes the waiting times of one post, in seconds."""
        self._audit, self._servers, self._job, self._now = audit, servers, job, now
        self._pauses = pauses
        self._tasks = Tasks()
        self._client: discord.Client | None = None
        self._resting: dict[int, datetime] = {}  # by server: until when
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connect(self, client: discord.Client) -> None:
        """Begin to post, first what an earlier process could not."""
        self._client = client
        self.wake()

    async def aclose(self) -> None:
        """Give what is under way a second; the rest is found at the next start."""
        self._client = None
        self._news.set()
        await self._tasks.wait(at_most=GRACE)
        await self._tasks.aclose()

    def wake(self) -> None:
        """There may be something to say. Returns at once."""
        self._news.set()
        if self._client is not None and (self._task is None or self._task.done()):
            self._task = self._tasks.spawn(self._say_all(self._client), name="log channels")

    def chosen(self, guild_id: int) -> None:
        """A keeper chose another channel: what is left goes there."""
        self._resting.pop(guild_id, None)
        self.wake()

    async def _say_all(self, client: discord.Client) -> None:
        await client.wait_until_ready()  # servers are known from then on
        while self._client is not None and self._news.is_set():
            self._news.clear()
            while self._client is not None:
                entries = await patiently(lambda: self._audit.unposted(limit=AT_ONCE, without=self._at_rest()))
                if not entries:
                    break
                for entry in entries:
                    if entry.guild_id not in self._resting:
                        await self._bring(client, entry)

    def _at_rest(self) -> frozenset[int]:
        now = self._now()
        self._resting = {guild: until for guild, until in self._resting.items() if until > now}
        return frozenset(self._resting)

    async def _bring(self, client: discord.Client, entry: Entry) -> None:
        """Post one entry and note it, or let its server's channel rest."""
        settings = await patiently(lambda: self._servers.settings(entry.guild_id))
        guild = client.get_guild(entry.guild_id)
        if guild is not None and settings.log_channel_id is not None:
            channel = client.get_partial_messageable(settings.log_channel_id, guild_id=guild.id)
            say = say_in(str(guild.preferred_locale))
            if not await self._post(channel, entry, say=say):
                self._resting[entry.guild_id] = self._now() + REST
                return
        await patiently(lambda: self._audit.record_posted(entry.id))

    async def _post(self, channel: discord.PartialMessageable, entry: Entry, *, say: Say) -> bool:
        """Try until Discord has it; False: this channel takes none, or Discord is away for long."""
        job = await patiently(lambda: self._job_of(entry))
        text = _words(say, entry, job)
        view = buttons(say, entry.job_id) if entry.act is Act.HOLD and entry.job_id is not None else None
        for pause in islice(self._pauses(), TRIES):  # type: ignore[call-overload]
            try:
                await channel.send(
                    text,
                    view=view,  # type: ignore[arg-type]
                    nonce=f"log-{entry.id}-{_stamp(entry)}",
                    allowed_mentions=discord.AllowedMentions.none(),
                    suppress_embeds=True,
                )
                return True
            except UNREACHABLE as error:
                _log.warning("server %d: its log channel does not take entry %d: %s", entry.guild_id, entry.id, error)
                if isinstance(error, discord.HTTPException) and 400 <= error.status < 500 and error.status != 429:
                    return False
            await asyncio.sleep(pause)
        return False

    async def _job_of(self, entry: Entry) -> Job | None:
        return None if entry.job_id is None else await self._job(entry.job_id)


def channel_problem(guild: discord.Guild, channel_id: int | None) -> Message | None:
    """Why the log channel of a server cannot be used, for its keepers; None: it can, or there is none."""
    if channel_id is None:
        return None
    channel = guild.get_channel_or_thread(channel_id)
    if channel is None:
        return Message(msg("The log channel was deleted, or I cannot see it: please choose another."))
    may = channel.permissions_for(guild.me)
    missing = tuple(
        Message(name)
        for name, given in ((msg("View Channel"), may.view_channel), (msg("Send Messages"), may.send_messages))
        if not given
    )
    if missing:
        text = msg("I cannot post in the log channel {channel}: I lack the permission {missing} there.")
        return Message(text, channel=f"<#{channel_id}>", missing=missing)
    return None


def _words(say: Say, entry: Entry, job: Job | None) -> str:
    """The act and, where a moderator is to judge them, the words."""
    text = entry_words(say, entry)
    if job is not None and job.private and entry.act is Act.REPORT:
        return text  # whoever reports it saw it, and the moderators have not to
    if job is not None and entry.act in (Act.HOLD, Act.FLAG, Act.REPORT, Act.SEEN):
        below = f"-# <#{job.channel_id}>"
        room = MESSAGE_CHARACTERS - len(f"{text}\n****\n{below}")
        text += f"\n**{quoted_within(job.request.prompt, room, characters=PROMPT_CHARACTERS)}**\n{below}"
    return text


def _stamp(entry: Entry) -> int:
    """A restored database gives the same numbers to other entries: the nonce holds the time as well."""
    assert entry.at is not None
    return int(entry.at.timestamp()) % 10**9
