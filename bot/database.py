"""One SQLite file, one process, one writer: the lock, the engines, and transactions that cannot be half known.

`open_database` locks the file for this process, upgrades it and opens it. Knows no tables and no verbs.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from bot import schema
from bot.errors import QueueUnavailable, StartError
from bot.schema import BUSY_SECONDS, SchemaReport, UpgradeReport, backup, check, check_folder, model_differences

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
log = logging.getLogger(__name__)


class Database:
    """Two engines on one file: one connection that writes, a few that can only read."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._under_way: set[asyncio.Task[Any]] = set()

    async def write(self, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        """Run `work` in one immediate transaction and commit it to the disk; an exception rolls it back.

        A cancelled caller does not interrupt it: it commits or rolls back as a whole, out of the caller's sight.
        Raise QueueUnavailable when the file is locked for long, full or failing; the cause is in the log.
        """
        return await self._unbroken(self._writer, work)

    async def read(self, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        """Run `work` on one consistent view of the file; it cannot write. Raise QueueUnavailable as above."""
        return await self._unbroken(self._reader, work)

    async def aclose(self) -> None:
        """Wait for what is under way, then close the file."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._reader.dispose()
        await self._writer.dispose()

    async def _unbroken(self, engine: AsyncEngine, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        task = asyncio.create_task(_transact(engine, work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)


@asynccontextmanager
async def open_database(
    path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), busy_seconds: float = BUSY_SECONDS
) -> AsyncIterator[Database]:
    """Lock, check, upgrade and open the database; StartError says in one line why that is impossible."""
    with lock(path):
        await asyncio.to_thread(schema.upgrade, path, now=now())
        database = connect(path, busy_seconds=busy_seconds)
        try:
            yield database
        finally:
            await database.aclose()


def connect(path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Database:
    """The engines alone, for a file that is locked and upgraded already; the caller closes them."""
    return Database(
        _engine(path, busy_seconds=busy_seconds, begin="BEGIN IMMEDIATE", pool_size=1),
        _engine(path, busy_seconds=busy_seconds, begin="BEGIN", pool_size=READERS, query_only=True),
    )


def upgrade(path: Path, *, now: datetime) -> UpgradeReport:
    """Upgrade a database that no Kiln uses; blocking. See schema.upgrade."""
    with lock(path):
        return schema.upgrade(path, now=now)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `<path>.lock` for this process; StartError names the process that holds it.

    The kernel drops the lock with its process, however that ends; the file itself stays and means nothing.
    """
    check_folder(path)
    place = path.with_name(path.name + ".lock")
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartError(f"{place} cannot be written: {error.strerror}") from error
    try:
        _take(handle, path)
        _sign(handle, place)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StartError(
            f"{path} is in use by another Kiln (process {holder}): stop that one first, or use another data folder"
        ) from error
    except OSError as error:
        raise StartError(f"{path} cannot be locked: {error.strerror}; use a folder on a local disk") from error


def _sign(handle: int, place: Path) -> None:
    """Leave this process's number in the lock file, for the message to a second one."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise StartError(f"{place} cannot be written: {error.strerror}") from error


async def _transact(engine: AsyncEngine, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            return await work(session)
    except (DatabaseError, sqlite3.OperationalError, PoolTimeoutError) as error:
        if isinstance(error, DatabaseError) and type(error) not in (DatabaseError, OperationalError):
            raise  # a broken constraint or a wrong statement is a bug of ours
        log.exception("the database did not take a transaction")
        raise QueueUnavailable from error


def _engine(path: Path, *, busy_seconds: float, begin: str, pool_size: int, query_only: bool = False) -> AsyncEngine:
    """An engine that begins its transactions itself: the driver's own begin comes too late to hold a limit."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        hide_parameters=True,  # prompts do not belong into logs
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=busy_seconds + 25,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(raw: Any, _record: object) -> None:
        raw.isolation_level = None
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_seconds * 1000:.0f}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA query_only = {query_only:d}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
