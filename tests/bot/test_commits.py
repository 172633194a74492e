"""Group commit: who comes together shares an fsync and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bot.errors import QueueUnavailable, Refusal
from bot.storage.commits import GROUP_SECONDS, Commits
from bot.storage.database import Database

AT = "2026-01-01 00:00:00.000000"


def add(user_id: int) -> Callable[[Session], int]:
    """Work that stores a person; a second time it breaks a constraint."""

    def work(session: Session) -> int:
        session.execute(text(f"INSERT INTO users (id, theoretical_arrival) VALUES ({user_id}, '{AT}')"))
        return user_id

    return work


def refuse(session: Session) -> None:
    add(99)(session)
    raise Refusal("no")


def stored(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as raw:
        return [user for (user,) in raw.execute("SELECT id FROM users ORDER BY id")]


@pytest.fixture
def committed() -> Iterator[list[int]]:
    """How many transactions were committed, as the length of a list."""
    seen: list[int] = []

    def note(_: object) -> None:
        seen.append(1)

    event.listen(Engine, "commit", note)
    yield seen
    event.remove(Engine, "commit", note)


class Held:
    """A database whose writer is busy until `go`; what is asked for meanwhile makes one group."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        database._commits._clock = clock
        self.database, self._leave, self.first = (
            database,
            threading.Event(),
            asyncio.ensure_future(self._hold(database)),
        )

    async def _hold(self, database: Database) -> None:
        entered = threading.Event()

        def work(session: Session) -> None:
            entered.set()
            assert self._leave.wait(10)

        await database.write(work)

    async def ask(self, *works: Callable[[Session], object]) -> list[asyncio.Task[object]]:
        asked = [asyncio.create_task(self.database.write(work)) for work in works]
        await asyncio.sleep(0)
        return asked

    async def go(self, asked: list[asyncio.Task[object]]) -> list[object]:
        self._leave.set()
        await asyncio.wait({self.first})  # in the same group
        return await asyncio.gather(*asked, return_exceptions=True)


@pytest.fixture
def held(database: Database) -> Held:
    return Held(database, clock=lambda: 0.0)


async def test_writes_that_come_together_share_one_commit(held: Held, path: Path, committed: list[int]) -> None:
    asked = await held.ask(*(add(number) for number in range(1, 51)))
    assert await held.go(asked) == list(range(1, 51))
    assert stored(path) == list(range(1, 51))
    assert len(committed) == 1


async def test_a_group_ends_with_its_time(database: Database, path: Path, committed: list[int]) -> None:
    ticks = count()
    held = Held(database, clock=lambda: GROUP_SECONDS * next(ticks))
    await held.go(await held.ask(*(add(number) for number in range(1, 6))))
    assert (len(stored(path)), len(committed)) == (5, 6)


async def test_a_refusal_or_an_error_of_one_touches_no_other(held: Held, path: Path) -> None:
    asked = await held.ask(add(1), refuse, add(2), add(1), add(3))
    one, refused, two, broken, three = await held.go(asked)
    assert (one, two, three) == (1, 2, 3)
    assert isinstance(refused, Refusal)
    assert isinstance(broken, IntegrityError)
    assert stored(path) == [1, 2, 3]


async def test_nobody_hears_of_success_before_the_commit(held: Held) -> None:
    asked = await held.ask(*(add(number) for number in (1, 2, 3)))
    seen: list[bool] = []

    def note(_: object) -> None:
        seen.extend(task.done() for task in asked)

    event.listen(Engine, "commit", note)
    await held.go(asked)
    event.remove(Engine, "commit", note)
    assert seen == [False] * 3


async def test_a_cancelled_caller_takes_nobody_along(held: Held, path: Path) -> None:
    asked = await held.ask(add(1), add(2), add(3))
    asked[1].cancel()
    one, two, three = await held.go(asked)
    assert (one, three) == (1, 3)
    assert isinstance(two, asyncio.CancelledError)
    assert stored(path) == [1, 2, 3]  # whole: it was asked for


async def test_when_the_disk_is_full_within_a_group_each_answer_is_true(
    held: Held, database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(session: Session) -> None:
        session.execute(text("PRAGMA max_page_count = 1"))  # SQLite takes the present size, then
        session.execute(text("CREATE TABLE large AS SELECT zeroblob(100000) AS much"))

    asked = await held.ask(add(1), fill, add(2))
    answers = await held.go(asked)
    assert isinstance(answers[1], QueueUnavailable)
    assert "disk is full" in caplog.text
    assert stored(path) == [answer for answer in answers if isinstance(answer, int)]
    await database.write(lambda session: session.execute(text("PRAGMA max_page_count = 1000000")))
    assert await database.write(add(4)) == 4


async def test_after_a_lost_transaction_nothing_is_committed_by_the_statement(
    held: Held, database: Database, path: Path
) -> None:
    """SQLite rolls back by itself on some errors; in a savepoint's place there would be no transaction at all."""

    def lose(session: Session) -> None:
        session.execute(text("ROLLBACK"))
        raise Refusal("the transaction is gone")

    asked = await held.ask(add(1), lose, add(2))
    answers = await held.go(asked)
    assert [type(answer) for answer in answers] == [QueueUnavailable, QueueUnavailable, int]
    assert isinstance(held.first.exception(), QueueUnavailable)  # of the same group
    assert stored(path) == [2]  # whoever came behind it, in the next


async def test_closing_without_a_write_returns(database: Database) -> None:
    await Commits(database._writer).aclose()
