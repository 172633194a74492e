"""One SQLite file, one process, one writer: the lock, the engines, and transactions that cannot be half known.

`open_database` locks the file for this process, upgrades it and opens it. Knows no tables and no verbs.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, QueuePool, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

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


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """What asynchronous cursors have, to give up theirs early; this one keeps its rows until they are read."""


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """An engine, and the threads on which its transactions run: as many as it has connections."""

    engine: AsyncEngine
    threads: ThreadPoolExecutor


class Database:
    """One connection that writes and a few that can only read, each on a thread of its own.

    A transaction goes to its thread as a whole. A driver that is asked across threads for every single statement
    costs three times as much of the processor.
    """

    def __init__(self, writer: _Side, reader: _Side, *, patience_seconds: float) -> None:
        """`patience_seconds`: how long a transaction may wait for those before it."""
        self._writer = writer
        self._reader = reader
        self._patience_seconds = patience_seconds
        self._under_way: set[asyncio.Task[Any]] = set()

    async def write(self, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        """Run `work` in one immediate transaction and commit it to the disk; an exception rolls it back.

        It runs on the writer's thread and may await nothing but its session.

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
        for side in (self._reader, self._writer):
            await asyncio.get_running_loop().run_in_executor(side.threads, side.engine.sync_engine.dispose)
            side.threads.shutdown()

    async def _unbroken(self, side: _Side, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        task = asyncio.create_task(self._on_its_thread(side, work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _on_its_thread(self, side: _Side, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        latest = time.perf_counter() + self._patience_seconds

        def run() -> _T:
            if time.perf_counter() > latest:
                log.error("a transaction waited %g s for those before it and was given up", self._patience_seconds)
                raise QueueUnavailable
            return _drive(_transact(side.engine, work))

        return await asyncio.get_running_loop().run_in_executor(side.threads, run)


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
        _side(_engine(path, busy_seconds=busy_seconds, begin="BEGIN IMMEDIATE", pool_size=1), 1, "writer"),
        _side(
            _engine(path, busy_seconds=busy_seconds, begin="BEGIN", pool_size=READERS, query_only=True),
            READERS,
            "reader",
        ),
        patience_seconds=busy_seconds + 25,
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
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


async def _transact(engine: AsyncEngine, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
    session = AsyncSession(engine, expire_on_commit=False)
    try:
        async with session.begin():
            return await work(session)
    except (DatabaseError, sqlite3.OperationalError) as error:
        if isinstance(error, DatabaseError) and type(error) not in (DatabaseError, OperationalError):
            raise  # a broken constraint or a wrong statement is a bug of ours
        log.exception("the database did not take a transaction")
        raise QueueUnavailable from error
    finally:
        await session.close()


def _drive(transaction: Coroutine[Any, Any, _T]) -> _T:
    """Run a transaction to its end on this thread: it only ever awaits the blocking driver, which never suspends."""
    try:
        transaction.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    transaction.close()
    raise RuntimeError("a transaction may await nothing but its session")


def _side(engine: AsyncEngine, threads: int, name: str) -> _Side:
    return _Side(engine=engine, threads=ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name))


def _engine(path: Path, *, busy_seconds: float, begin: str, pool_size: int, query_only: bool = False) -> AsyncEngine:
    """An engine that begins its transactions itself: the driver's own begin comes too late to hold a limit."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        hide_parameters=True,  # prompts do not belong into logs
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "factory": _Connection},
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

    engine.dialect.is_async = True  # the interface asks; under it the driver blocks, on a thread of its own
    return AsyncEngine(engine)
