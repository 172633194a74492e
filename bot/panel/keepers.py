"""The parts that serve those who keep a server, and the host: opened together, handed to their commands together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bot.background import patiently
from bot.delivery.looking import Looking
from bot.panel.log_channel import LogChannel
from bot.queue.job import Limits
from bot.queue.job_queue import JobQueue
from bot.servers.audit import Audit
from bot.servers.moderation import Moderation
from bot.servers.servers import Servers
from bot.settings import Settings
from bot.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepers:
    """What keepers and moderators work with."""

    servers: Servers
    moderation: Moderation
    audit: Audit
    log_channel: LogChannel
    looking: Looking
    limits: Limits  # the host's for one person; no server gives more
    owner_ids: frozenset[int]  # who may use /host

    async def role_deleted(self, guild_id: int, role_id: int, *, name: str) -> None:
        """A role is gone from a server, and what it had here goes with it."""
        await patiently(lambda: self.servers.forget_role(guild_id, role_id, name=name))
        self.log_channel.wake()

    async def roles_are(self, guild_id: int, role_ids: Collection[int]) -> None:
        """A server has these roles: others that had something here were deleted while nobody heard of it."""
        settings = await patiently(lambda: self.servers.settings(guild_id))
        terms = await patiently(lambda: self.servers.roles(guild_id))
        for role_id in {*settings.lora_role_ids, *(one.role_id for one in terms)} - {*role_ids}:
            await self.role_deleted(guild_id, role_id, name=str(role_id))


def open_keepers(database: Database, queue: JobQueue, *, settings: Settings) -> Keepers:
    """Open them over the queue; the log channel hears of what a submit writes into the audit log."""
    servers, audit = Servers(database, now=queue.now), Audit(database)
    log_channel = LogChannel(audit=audit, servers=servers, job=queue.job, now=queue.now)
    queue.on_note(log_channel.wake)
    return Keepers(
        servers=servers,
        moderation=Moderation(database, now=queue.now, moved=queue.moved),
        audit=audit,
        log_channel=log_channel,
        looking=Looking(audit=audit, noted=log_channel.wake),
        limits=settings.limits,
        owner_ids=settings.owner_ids or frozenset(),
    )
