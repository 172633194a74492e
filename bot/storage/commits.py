"""Group commit: writes that arrive while one is under way share its transaction and its one fsync.

Each runs in a savepoint of its own, so a refusal or an error of one undoes nothing of another, and none hears of
success before the shared commit is on the disk. One thread writes; a task hands it the next group as long as there is
something to write. Knows no tables and no verbs.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import iscoroutine
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from bot.errors import QueueUnavailable

GROUP_SECONDS = 0.02  # then a group is committed, whoever else has come: its first waits this long at most

Work = Callable[[Session], Any]
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One piece of work, what came of it, and who waits for that; they are told after the commit."""

    work: Work
    told: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class _Lost(Exception):
    """SQLite rolled the whole transaction back by itself, as it does when the disk is full."""


class Commits:
    """The one writer of a database."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] = time.perf_counter,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        """`clock` counts seconds; `guard` is called within each transaction, and raises if nothing may be written."""
        self._engine, self._clock, self._guard = engine, clock, guard
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._waiting: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    async def do(self, work: Work) -> Any:
        """Have `work` done on the writer's thread, and return or raise what it did once that is on the disk.

        A cancelled caller does not interrupt it. Raise QueueUnavailable when the file does not take it.
        """
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(work=work, told=told))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="commits")
        return await told

    async def aclose(self) -> None:
        """Wait until all that was asked for is done."""
        if self._task is not None:
            await asyncio.wait({self._task})
        self._thread.shutdown()

    async def _serve(self) -> None:
        while self._waiting:
            for asked in await asyncio.get_running_loop().run_in_executor(self._thread, self._commit):
                _tell(asked)

    def _commit(self) -> list[_Asked]:  # writer's thread
        """Do what waits in one transaction, commit it, and return it."""
        group: list[_Asked] = []
        came = len(self._waiting)
        try:
            with self._engine.connect() as connection, connection.begin():
                self._guard()
                until = self._clock() + GROUP_SECONDS
                while self._waiting and (not group or self._clock() < until):
                    group.append(self._waiting.popleft())
                    _do(connection, group[-1])
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            if not group:  # locked for long: whoever came meanwhile has not waited so long
                group = [self._waiting.popleft() for _ in range(came)]
            for asked in group:  # nothing was stored, whatever a part had to say
                asked.error = error.__cause__ if isinstance(error, _Lost) else error  # type: ignore[assignment]
        return group


def refused(error: Exception) -> bool:
    """Whether the file refuses (locked, full, failing); else a statement or a constraint of ours is wrong."""
    if isinstance(error, DatabaseError):
        return type(error) in (DatabaseError, OperationalError)
    return isinstance(error, sqlite3.OperationalError | PoolTimeoutError)


def unavailable(error: Exception) -> QueueUnavailable:
    """What people hear of a file that refuses; the operator finds the cause in the log."""
    log.error("the database did not take a transaction", exc_info=error)
    told = QueueUnavailable()
    told.__cause__ = error
    return told


def _do(connection: Connection, asked: _Asked) -> None:
    """Do one piece of work within its savepoint."""
    try:
        with (
            Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session,
            session.begin(),
        ):
            asked.result = asked.work(session)
            assert not iscoroutine(asked.result), "work on a session is not async"
    except Exception as error:
        asked.error = error
        raw: Any = connection.connection.driver_connection
        if not raw.in_transaction:  # what follows would be committed statement by statement
            raise _Lost from error


def _tell(asked: _Asked) -> None:
    if asked.told.done():
        return  # its caller was cancelled
    if asked.error is None:
        asked.told.set_result(asked.result)
    else:
        asked.told.set_exception(unavailable(asked.error) if refused(asked.error) else asked.error)
