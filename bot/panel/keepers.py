"""The parts that serve those who keep a server, and the host: opened together, handed to their commands together."""

from __future__ import annotations

from dataclasses import dataclass

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
