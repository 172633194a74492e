"""One SQLite file, one process, one writer: the lock, the engines, and what runs in them.

`open_database` locks the file for this process, upgrades it and opens it. Knows no tables and no verbs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from bot.storage import schema
from bot.storage.commits import Commits, refused, unavailable
from bot.storage.lock_file import lock
from bot.storage.schema import BUSY_SECONDS, SchemaReport, UpgradeReport, backup, check, model_differences

__all__ = [
    "Database",
    "SchemaReport",
    "UpgradeReport",
    "backup",
    "check",
    "connect",
    "lock",
    "model_differences",
    "open_database",
    "upgrade",
]

READERS = 2

_T = TypeVar("_T")


class Database:
    """Two engines on one file: one connection that writes, a few that can only read; each in threads of its own."""

    def __init__(self, writer: Engine, reader: Engine, *, guard: Callable[[], None] = lambda: None) -> None:
        """`guard`: see Commits."""
        self._writer, self._reader = writer, reader
        self._commits = Commits(writer, guard=guard)
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="reader")

    async def write(self, work: Callable[[Session], _T]) -> _T:
        """Run `work` in an immediate transaction and commit it to the disk; an exception of its own rolls it back.

        Writes that come together share a commit. A cancelled caller does not interrupt `work`: it is committed or
        rolled back as a whole, out of the caller's sight. `work` runs on the writer's thread. Raise QueueUnavailable
        when the file is locked for long, full or failing; the cause is in the log.
        """
        result: _T = await self._commits.do(work)
        return result

    async def read(self, work: Callable[[Session], _T]) -> _T:
        """Run `work` on one consistent view of the file, on a reader's thread; it cannot write.

        Raise QueueUnavailable as above.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, _view, self._reader, work)

    async def aclose(self) -> None:
        """Wait for what is under way, then close the file."""
        await self._commits.aclose()
        await asyncio.to_thread(self._readers.shutdown)
        self._reader.dispose()
        self._writer.dispose()


@asynccontextmanager
async def open_database(
    path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), busy_seconds: float = BUSY_SECONDS
) -> AsyncIterator[Database]:
    """Lock, check, upgrade and open the database; StartError says in one line why that is impossible."""
    with lock(path) as held:
        await asyncio.to_thread(schema.upgrade, path, now=now())
        database = connect(path, busy_seconds=busy_seconds, guard=held.hold)
        try:
            yield database
        finally:
            await database.aclose()


def connect(path: Path, *, busy_seconds: float = BUSY_SECONDS, guard: Callable[[], None] = lambda: None) -> Database:
    """The engines alone, for a file that is locked and upgraded; the caller closes them. `guard` is as in Commits."""
    return Database(
        _engine(path, busy_seconds=busy_seconds, begin="BEGIN IMMEDIATE", pool_size=1),
        _engine(path, busy_seconds=busy_seconds, begin="BEGIN", pool_size=READERS, query_only=True),
        guard=guard,
    )


def upgrade(path: Path, *, now: datetime) -> UpgradeReport:
    """Upgrade a database that no Kiln uses; blocking. See schema.upgrade."""
    with lock(path):
        return schema.upgrade(path, now=now)


def _view(engine: Engine, work: Callable[[Session], _T]) -> _T:  # reader's thread
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)
    except Exception as error:
        if refused(error):
            raise unavailable(error) from error
        raise


def _engine(path: Path, *, busy_seconds: float, begin: str, pool_size: int, query_only: bool = False) -> Engine:
    """An engine that begins its transactions itself: the driver's own begin comes too late to hold a limit."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        hide_parameters=True,  # prompts do not belong into logs
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=busy_seconds + 25,
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _record: object) -> None:
        raw.isolation_level = None
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_seconds * 1000:.0f}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA query_only = {query_only:d}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
