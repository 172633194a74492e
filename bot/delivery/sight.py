"""What a member of a server can see: channels, threads, and whether a message still stands.

Nothing is assumed: a thread that the bot does not know, or a private one that it cannot look into, counts as unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import aiohttp
import discord

from bot.queue.job import Job

_log = logging.getLogger(__name__)


def visible_channels(member: discord.Member, *, here: int | None) -> frozenset[int]:
    """Ids of the channels and threads in which this member can read; `here` is where they are speaking."""
    guild = member.guild
    channels = [channel.id for channel in guild.channels if _may_read(channel.permissions_for(member))]
    threads = [thread.id for thread in guild.threads if _sees_thread(thread, member, here=here)]
    return frozenset([*channels, *threads])


def _sees_thread(thread: discord.Thread, member: discord.Member, *, here: int | None) -> bool:
    if thread.parent is None or not _may_read(thread.parent.permissions_for(member)):
        return False
    if not thread.is_private():
        return True
    return thread.id == here or thread.parent.permissions_for(member).manage_threads


def _may_read(allowed: discord.Permissions) -> bool:
    return allowed.view_channel and allowed.read_message_history


async def still_posted(client: discord.Client, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Those whose message still stands: what was deleted in Discord is not shown again. Asks Discord."""
    found = await asyncio.gather(*(_stands(client, job) for job in jobs))
    return tuple(job for job, stands in zip(jobs, found, strict=True) if stands)


async def _stands(client: discord.Client, job: Job) -> bool:
    assert job.result_channel_id is not None
    assert job.result_message_id is not None
    channel = client.get_partial_messageable(job.result_channel_id, guild_id=job.guild_id)
    try:
        await channel.get_partial_message(job.result_message_id).fetch()
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        if not isinstance(error, discord.NotFound):
            _log.info("job %d: whether its picture still stands cannot be told: %s", job.id, error)
        return False
    return True
