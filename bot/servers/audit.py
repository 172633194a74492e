"""The audit log: who did what, written in the transaction of the act itself; and what the log channel is still to say.

Each row is its own outbox: `posted` is set when the log channel has it, so a failure there loses nothing. Knows no
Discord; `bot.panel.log_channel` posts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, fields
from datetime import datetime

from sqlalchemy import ColumnElement, func, literal_column, select, update
from sqlalchemy.orm import Session

from bot.servers.server import Act, Entry
from bot.storage.database import Database
from bot.storage.server_tables import AuditRow
from bot.storage.tables import JobRow

_FIELDS = tuple(field.name for field in fields(Entry))


class Audit:
    """Reads the log, and remembers what was posted. Each may raise QueueUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, entry: Entry, *, now: datetime) -> Entry:
        """Write down an act that changes nothing else."""
        return await self._database.write(lambda session: note(session, entry, now=now))

    async def unposted(self, *, limit: int, without: Collection[int] = ()) -> tuple[Entry, ...]:
        """What the log channels have not heard, oldest first, but for those of some servers."""
        unposted: ColumnElement[bool] = literal_column(
            "posted = 0"
        )  # as a literal, which lets SQLite use the partial index
        left = select(AuditRow).where(unposted, AuditRow.guild_id.not_in(without)).order_by(AuditRow.id).limit(limit)
        return await self._database.read(lambda session: tuple(map(_entry, session.scalars(left))))

    async def record_posted(self, entry_id: int) -> None:
        """The log channel has it, or there is none to have it."""
        change = update(AuditRow).where(AuditRow.id == entry_id).values(posted=True)
        await self._database.write(lambda session: session.execute(change))

    async def hidden(self, *job_ids: int) -> frozenset[int]:
        """Those of these jobs whose pictures the classifier put behind a spoiler."""
        seen = select(AuditRow.job_id).where(AuditRow.act == Act.SEEN, AuditRow.job_id.in_(job_ids))
        return await self._database.read(lambda session: frozenset(filter(None, session.scalars(seen))))

    async def of_server(self, guild_id: int, *, limit: int) -> tuple[Entry, ...]:
        """The last acts in a server, newest first."""
        last = select(AuditRow).where(AuditRow.guild_id == guild_id).order_by(AuditRow.id.desc()).limit(limit)
        return await self._database.read(lambda session: tuple(map(_entry, session.scalars(last))))


def note(session: Session, entry: Entry, *, now: datetime) -> Entry:
    """Write an act down within its transaction; return it with its id and time."""
    row = AuditRow(**{**asdict(entry), "id": None, "at": now})
    session.add(row)
    session.flush()
    return _entry(row)


def note_of_job(session: Session, act: Act, row: JobRow, *, actor_id: int, now: datetime) -> None:
    """Write down what a moderator did with somebody's job."""
    entry = Entry(act=act, guild_id=row.guild_id, actor_id=actor_id, user_id=row.user_id, job_id=row.id)
    note(session, entry, now=now)


def acts_since(session: Session, act: Act, *, guild_id: int, actor_id: int, since: datetime) -> int:
    """How often somebody did this in a server since then."""
    found = select(func.count()).where(
        AuditRow.guild_id == guild_id, AuditRow.act == act, AuditRow.actor_id == actor_id, AuditRow.at >= since
    )
    return session.scalar(found) or 0


def _entry(row: AuditRow) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _FIELDS})
