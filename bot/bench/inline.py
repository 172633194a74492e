"""The queue's database on one connection without threads: the same statements, a third of the time.

For playing thousands of histories, where SQL decides and speed is not what is measured. Not for serving: each
statement blocks the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, StaticPool, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.database import Database, upgrade


class InlineDialect(SQLiteDialect_pysqlite):
    """The blocking driver under the asynchronous interface, which runs it where it is called."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """What asynchronous cursors have, to give up theirs early; this one keeps its rows until they are read."""


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


@asynccontextmanager
async def open_inline(path: Path) -> AsyncIterator[Database]:
    """Make or upgrade the database at `path` and open it; reads and writes share one connection."""
    upgrade(path, now=datetime.now(UTC))
    registry.register("sqlite.inline", __name__, "InlineDialect")
    engine = create_engine(
        URL.create("sqlite+inline", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "isolation_level": None, "factory": _Connection},
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _record: object) -> None:
        raw.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    database = Database(AsyncEngine(engine), AsyncEngine(engine))
    try:
        yield database
    finally:
        await database.aclose()
