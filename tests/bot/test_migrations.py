"""Upgrades of real old files: what people had before is there afterwards, and the queue goes on with it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.asking.people import NOTHING_CHOSEN, open_people
from bot.errors import StartError
from bot.queue.job import JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.queue.past import Past, Shown
from bot.servers.moderation import Moderation
from bot.servers.server import Standing
from bot.storage import schema
from bot.storage.database import check, open_database
from gen.request import ImageResult
from tests.fakes import Clock, new_job

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT = "2026-01-01 00:00:00.000000"
STATES = ("queued", "running", "drawn", "delivered", "cancelled", "failed", "quarantined")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of revision 0001: two people, each with two jobs in every state."""
    script = tmp_path / "old"
    shutil.copytree(schema.MIGRATIONS, script, ignore=shutil.ignore_patterns("000[2-9]*", "00[1-9]*"))
    path = tmp_path / "kiln.sqlite3"
    assert schema.upgrade(path, now=NOW, script=script).after == "0001"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany("INSERT INTO users VALUES (?, ?)", [(7, AT), (8, AT)])
        rows = [(state, user) for state in STATES for _ in range(2) for user in (7, 8)]
        raw.executemany(
            "INSERT INTO jobs (status, interaction_id, user_id, guild_id, channel_id, prompt, seed, width, height, "
            "steps, guidance, attempts, attempt_token, created_at, started_at, finished_at, seconds) "
            f"VALUES (?, ?, ?, 10, 20, 'a fox', 1, 128, 128, 4, 3.5, ?, ?, '{AT}', ?, ?, ?)",
            [(state, number, user, *_lived(state)) for number, (state, user) in enumerate(rows)],
        )
    return path


def _lived(state: str) -> tuple[object, ...]:
    ran, over = state not in ("queued", "cancelled"), state not in ("queued", "running")
    timed = state in ("drawn", "delivered")
    return int(ran), "t" if ran else None, AT if ran else None, AT if over else None, 2.0 if timed else None


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(statement).fetchall()


def test_0002_keeps_every_job_and_counts_who_waits(old: Path) -> None:
    unchanged = "SELECT id, status, user_id, attempts, attempt_token, started_at, seconds FROM jobs ORDER BY id"
    before = query(old, unchanged)
    assert schema.upgrade(old, now=NOW).before == "0001"
    assert check(old).jobs == 28
    assert query(old, unchanged) == before
    accounts = query(old, "SELECT name, parent_id, weight, vtime, waiting, ticket FROM accounts ORDER BY id")
    assert accounts == [("everyone", None, 1, 0, 0, 0), ("user:7", 1, 1, 0, 2, 1), ("user:8", 1, 1, 0, 2, 2)]
    owned = "SELECT DISTINCT status, account_id IS NOT NULL FROM jobs"
    assert dict(query(old, owned)) == {state: state in ("queued", "running") for state in STATES}  # type: ignore[arg-type]
    assert query(old, "SELECT budget_day, budget_seconds FROM users") == [(None, 0.0)] * 2


async def test_after_0002_the_queue_goes_on(old: Path) -> None:
    async with open_database(old) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        assert len((await queue.recover()).requeued) == 4
        assert len(await queue.undelivered()) == 4
        await queue.submit(new_job(100, user_id=7))
        turns = []
        while job := await queue.claim():
            result = ImageResult(png=b"", sha256="", seconds=2.0, model="fake")
            assert await queue.record_drawn(job, picture="x", result=result)
            turns.append((job.user_id, job.id))
        assert [user for user, _ in turns] == [7, 8] * 4 + [7]
        assert (await queue.overview()).waiting == 0
        cancelled = await queue.job(17)
        assert cancelled is not None
        assert cancelled.status is JobStatus.CANCELLED


async def test_after_0003_no_end_of_before_is_shown_again(old: Path) -> None:
    schema.upgrade(old, now=NOW)
    assert query(old, "SELECT DISTINCT pictures_lost FROM jobs") == [(0,)]
    async with open_database(old) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        assert await queue.unshown() == ()
        job = await queue.claim()
        assert job is not None
        await queue.record_failed(job, reason="broken")
        assert [left.id for left in await queue.unshown()] == [job.id]


async def test_after_0004_what_was_drawn_is_in_the_outbox_as_if_it_may_have_been_posted(old: Path) -> None:
    drawn = query(old, "SELECT id FROM jobs WHERE status = 'drawn' ORDER BY id")
    schema.upgrade(old, now=NOW)
    letters = query(old, "SELECT job_id, nonce, state, attempts, tried_channel_id FROM outbox ORDER BY job_id")
    assert letters == [(job, f"{job}-{job - 1}", "sending", 1, 20) for (job,) in drawn]  # type: ignore[operator]
    async with open_database(old) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        first, *_ = await queue.outbox.letters()
        assert await queue.record_delivered(first.job.id, message_id=5)
        assert len(await queue.outbox.letters()) == len(drawn) - 1


async def test_after_0006_everybodys_pictures_are_found_and_people_can_choose(old: Path) -> None:
    schema.upgrade(old, now=NOW)
    with closing(sqlite3.connect(old)) as raw, raw:
        raw.execute("UPDATE jobs SET picture = id || '.png' WHERE status = 'delivered'")
        plan = raw.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE user_id = 7 AND picture IS NOT NULL"
        ).fetchall()
    assert "jobs_pictures" in str(plan)
    async with open_database(old) as database:
        page = await Past(database, now=lambda: NOW).pictures(Shown(user_id=7))
        assert (page.found, {job.status for job in page.jobs}) == (2, {JobStatus.DELIVERED})
        people = await open_people(database)
        assert people.of(7) == NOTHING_CHOSEN
        assert (await people.choose(7, steps=3)).steps == 3


async def test_after_0005_every_job_is_there_and_no_id_is_used_again(old: Path) -> None:
    unchanged = "SELECT id, status, interaction_id, user_id, account_id, prompt, seconds, created_at FROM jobs"
    script = old.parent / "fourth"
    shutil.copytree(schema.MIGRATIONS, script, ignore=shutil.ignore_patterns("000[5-9]*", "00[1-9]*"))
    assert schema.upgrade(old, now=NOW, script=script).after == "0004"
    with closing(sqlite3.connect(old)) as raw, raw:
        raw.execute("DELETE FROM jobs WHERE id = 28")
    before, letters = query(old, unchanged), query(old, "SELECT * FROM outbox")
    schema.upgrade(old, now=NOW)
    assert query(old, unchanged) == before
    assert query(old, "SELECT * FROM outbox") == letters
    assert query(old, "SELECT DISTINCT passes, negative, cfg_scale, number FROM jobs") == [(4, "", 1.0, 0)]
    async with open_database(old) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        await queue.recover()
        assert (await queue.submit(new_job(100))).id == 29
        first = await queue.job(1)
        assert first is not None
        assert (first.request.loras, first.request.variations, first.verb) == ((), (), None)
        assert (await queue.submit(new_job(first.interaction_id))).id == 1


async def test_after_0007_no_server_has_chosen_anything_and_a_held_job_finds_its_tables(old: Path) -> None:
    schema.upgrade(old, now=NOW)
    for table in ("servers", "bans", "audit", "rules", "held"):
        assert query(old, f"SELECT count(*) FROM {table}") == [(0,)]
    async with open_database(old) as database:
        queue, clock = JobQueue(database, limits=Limits(), now=Clock()), Clock()
        await Moderation(database, now=clock, moved=queue.moved).stand(10, Standing.PAUSED, actor_id=1)
        assert query(old, "SELECT count(*), min(why) FROM held") == [(4, "pause")]


def test_0002_is_whole_or_absent(old: Path, tmp_path: Path) -> None:
    script = tmp_path / "broken"
    shutil.copytree(schema.MIGRATIONS, script)
    second = next((script / "versions").glob("0002*"))
    second.write_text(
        second.read_text().replace(
            '_index("jobs_deferred"', 'op.execute("SELECT no_such()")\n    _index("jobs_deferred"'
        )
    )
    before = query(old, "SELECT name, sql FROM sqlite_master ORDER BY name")
    with pytest.raises(StartError, match="cannot be used"):
        schema.upgrade(old, now=NOW, script=script)
    assert query(old, "SELECT name, sql FROM sqlite_master ORDER BY name") == before
    assert schema.upgrade(old, now=NOW).after == schema.check(old).head
