"""One SQLite file, one process, one writer: the lock, the engines, and what runs in them.

`open_database` locks the file for this process, upgrades it and opens it. Knows no tables and no verbs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from bot.errors import StartError
from bot.storage import schema
from bot.storage.commits import Commits, refused, unavailable
from bot.storage.schema import BUSY_SECONDS, SchemaReport, UpgradeReport, backup, check, check_folder, model_differences

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

    def __init__(self, writer: Engine, reader: Engine) -> None:
        self._writer, self._reader = writer, reader
        self._commits = Commits(writer)
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
    """Hold `<path>.lock`, beside the file itself if `path` is a link, for this process; StartError names who holds it.

    The kernel drops the lock with its process, however that ends; the file itself stays and means nothing.
    """
    check_folder(path)
    file = path.resolve()
    place = file.with_name(file.name + ".lock")
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
