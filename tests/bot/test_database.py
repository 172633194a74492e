"""The file on disk: one process, sound, of this Kiln's schema, upgraded whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from bot.errors import QueueUnavailable, StartError
from bot.queue.job_queue import JobQueue, Limits
from bot.storage import schema
from bot.storage.database import backup, check, connect, lock, model_differences, open_database, upgrade
from bot.storage.schema import SchemaReport
from bot.storage.tables import UserRow
from tests.fakes import Clock, new_job

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOBODY = 65534
HEAD = "0009"  # the newest revision


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may write everything; be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def foreign_write_lock(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        yield foreign


async def submitted(path: Path, *interaction_ids: int) -> None:
    async with open_database(path) as database:
        for number in interaction_ids:
            await JobQueue(database, limits=Limits(), now=Clock()).submit(new_job(number))


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        return raw.execute(statement).fetchall()


def refusal(act: Callable[[], object]) -> str:
    """The one line of the StartError that `act` must raise."""
    with pytest.raises(StartError) as refused:
        act()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# the models and the migrations


def test_models_and_migrations_agree() -> None:
    assert model_differences() == ()


def test_a_model_without_its_migration_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations")
    first = tmp_path / "migrations/versions/0001_jobs_and_users.py"
    source = first.read_text()
    monkeypatch.setattr(schema, "MIGRATIONS", tmp_path / "migrations")
    first.write_text(source.replace("""where="status = 'queued'")""", """where="status = 'other'")"""))
    assert model_differences() == ("index jobs_queued", "index jobs_queued_by_user")
    first.write_text(source.replace('sa.Column("notice", sa.Text(), nullable=True),', ""))
    assert "add_column" in model_differences()[0]


# one process


HOLD = """
import asyncio, sys
from pathlib import Path
from bot.storage.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])):
        print("open", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def test_a_second_process_is_told_who_holds_the_database_until_that_one_is_killed(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        assert f"is in use by another Kiln (process {first.pid})" in refusal(lambda: upgrade(path, now=NOW))
        first.kill()
        first.wait()
    assert upgrade(path, now=NOW).after == HEAD


def test_the_lock_is_free_again_after_an_error(path: Path) -> None:
    def fail_while_locked() -> None:
        with lock(path):
            assert f"process {os.getpid()}" in refusal(lambda: upgrade(path, now=NOW))
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_locked()
    assert upgrade(path, now=NOW).after == HEAD


def test_a_link_in_another_folder_is_the_same_database(path: Path) -> None:
    other = path.parent / "other"
    other.mkdir()
    link = other / path.name
    link.symlink_to(path)
    with lock(path):
        assert f"process {os.getpid()}" in refusal(lambda: upgrade(link, now=NOW))


def test_a_full_disk_at_the_lock_is_refused_with_the_files_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bot.storage.lock_file.os.pwrite", full)
    assert "kiln.sqlite3.lock cannot be written: No space left on device" in refusal(lambda: upgrade(path, now=NOW))


def test_a_lock_that_the_file_system_does_not_know_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("bot.storage.lock_file.fcntl.flock", unsupported)
    assert "cannot be locked: Operation not supported; use a folder on a local disk" in refusal(
        lambda: upgrade(path, now=NOW)
    )


async def test_a_lock_file_that_was_removed_is_made_again_before_the_next_write(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(path) as database:
        path.with_name("kiln.sqlite3.lock").unlink()
        await JobQueue(database, limits=Limits(), now=Clock()).submit(new_job(1))
        assert "was removed while it was held; it was made again" in caplog.text
        assert f"is in use by another Kiln (process {os.getpid()})" in refusal(lambda: upgrade(path, now=NOW))
    assert upgrade(path, now=NOW).after == HEAD


async def test_once_a_second_process_came_in_by_a_removed_lock_file_the_first_writes_nothing_any_more(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(path) as database:
        first = JobQueue(database, limits=Limits(), now=Clock())
        path.with_name("kiln.sqlite3.lock").unlink()
        async with open_database(path) as other:
            second = JobQueue(other, limits=Limits(), now=Clock())
            with pytest.raises(QueueUnavailable):
                await first.submit(new_job(1))
            await second.submit(new_job(2))
        with pytest.raises(QueueUnavailable):  # what it knows is old
            await first.claim()
        assert [(await first.line(limit=9))[0][0].interaction_id] == [2]
        assert caplog.text.count("This one writes nothing any more") == 1


async def test_a_second_process_between_the_lock_file_and_its_lock_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(handle: int, operation: int) -> None:
        raise BlockingIOError

    async with open_database(path) as database:
        path.with_name("kiln.sqlite3.lock").unlink()
        monkeypatch.setattr("bot.storage.lock_file.fcntl.flock", taken)
        with pytest.raises(QueueUnavailable):
            await JobQueue(database, limits=Limits(), now=Clock()).submit(new_job(1))


async def test_where_the_folder_was_moved_nothing_is_written_until_it_is_back(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, away = path.parent / "data", path.parent / "away"
    folder.mkdir()
    async with open_database(folder / path.name) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        await queue.submit(new_job(1))
        folder.rename(away)
        with pytest.raises(QueueUnavailable):
            await queue.submit(new_job(2))
        assert "cannot be made again: No such file or directory" in caplog.text
        away.rename(folder)
        await queue.submit(new_job(2))


# what cannot be opened


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"the folder {tmp_path / 'none'} of the database does not exist" in refusal(
        lambda: upgrade(tmp_path / "none" / "kiln.sqlite3", now=NOW)
    )


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    assert "is a folder, not a database" in refusal(lambda: upgrade(tmp_path, now=NOW))


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("these are my notes, not a database at all\n" * 100)
    assert "kiln.sqlite3 is not a database" in refusal(lambda: upgrade(path, now=NOW))
    assert "kiln.sqlite3 is not a database" in refusal(lambda: check(path))
    assert path.read_text().startswith("these are my notes")


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    query(path, "CREATE TABLE songs (title TEXT)")
    assert "is a database of another program" in refusal(lambda: upgrade(path, now=NOW))
    assert query(path, "SELECT name FROM sqlite_master") == [("songs",)]


async def test_a_corrupt_database_is_refused(path: Path) -> None:
    await submitted(path, 1, 2, 3)
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert "is corrupt" in refusal(lambda: upgrade(path, now=NOW))
    assert "is corrupt" in refusal(lambda: check(path))


async def test_a_damaged_index_is_found(path: Path) -> None:
    await submitted(path, 1, 2, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, 'queued''', 'running''') WHERE name = 'jobs_queued'")
    assert "is corrupt (" in refusal(lambda: check(path))


async def test_a_newer_schema_is_refused_by_both_names_and_not_touched(path: Path) -> None:
    await submitted(path, 1)
    query(path, "UPDATE alembic_version SET version_num = '0099'")
    words = refusal(lambda: upgrade(path, now=NOW))
    assert f"has schema 0099 of a newer Kiln; this one knows up to {HEAD}" in words
    assert words == refusal(lambda: check(path))
    assert query(path, "SELECT count(*) FROM jobs") == [(1,)]


def test_a_read_only_file_or_folder_is_refused(open_folder: Path) -> None:
    path = open_folder / "kiln.sqlite3"
    upgrade(path, now=NOW)
    if os.geteuid() == 0:
        for place in (path, open_folder, open_folder / "kiln.sqlite3.lock"):
            os.chown(place, NOBODY, NOBODY)
    try:
        path.chmod(0o444)
        with as_ordinary_user():
            assert f"{path} cannot be written: check its permissions" in refusal(lambda: upgrade(path, now=NOW))
        path.chmod(0o644)
        open_folder.chmod(0o555)
        with as_ordinary_user():
            assert f"{open_folder} cannot be written" in refusal(lambda: upgrade(path, now=NOW))
        open_folder.chmod(0o755)
        (open_folder / "kiln.sqlite3.lock").chmod(0o444)
        with as_ordinary_user():
            assert "kiln.sqlite3.lock cannot be written: Permission denied" in refusal(lambda: upgrade(path, now=NOW))
    finally:
        open_folder.chmod(0o755)


FULL = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from bot.storage.database import upgrade
from bot.errors import StartError

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    upgrade(Path(sys.argv[1]), now=datetime.now(UTC))
except StartError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_refused_and_a_later_start_works(path: Path) -> None:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    for size in (10, 5_000, 20_000):  # coverage's own file would not fit either
        command = [sys.executable, "-c", FULL, str(path), str(size)]
        answer = subprocess.run(command, capture_output=True, cwd=ROOT, text=True, check=True, env=unmeasured)
        assert answer.stderr == ""
        assert "kiln.sqlite3 cannot be read or written, the disk failed or is full" in answer.stdout
        assert answer.stdout.count("\n") == 1
    assert upgrade(path, now=NOW).after == HEAD


def test_a_copy_that_the_disk_does_not_take_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    upgrade(path, now=NOW)
    monkeypatch.setattr("bot.storage.schema.os.fsync", full)
    to = path.with_name("copy.sqlite3")
    assert "cannot be written: No space left on device" in refusal(lambda: backup(path, to))
    assert not [name for name in path.parent.iterdir() if "copy" in name.name]


def test_a_database_locked_by_another_program_is_refused_at_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    upgrade(path, now=NOW)
    with foreign_write_lock(path):
        assert "is locked by another program" in refusal(lambda: upgrade(path, now=NOW))


# copies and upgrades


def test_check_takes_an_empty_file_and_misses_an_absent_one(path: Path) -> None:
    assert f"there is no database {path}" in refusal(lambda: check(path))
    path.touch()
    assert check(path) == SchemaReport(revision=None, head=HEAD, jobs=0)


async def test_check_reports_a_sound_file(path: Path) -> None:
    await submitted(path, 1, 2)
    assert check(path) == SchemaReport(revision=HEAD, head=HEAD, jobs=2)


async def test_check_finds_rows_that_refer_to_nothing(path: Path) -> None:
    await submitted(path, 1)
    query(path, "DELETE FROM users")
    assert "has 1 rows that refer to nothing" in refusal(lambda: check(path))


async def test_a_copy_is_whole_while_the_database_is_in_use(path: Path) -> None:
    to = path.with_name("copy.sqlite3")
    async with open_database(path) as database:
        await JobQueue(database, limits=Limits(), now=Clock()).submit(new_job(1))
        await asyncio.to_thread(backup, path, to)
    assert check(to).jobs == 1
    assert "copy.sqlite3 exists already" in refusal(lambda: backup(path, to))
    assert "there is no database" in refusal(lambda: backup(path.with_name("none"), to))


def test_a_start_that_changes_nothing_makes_no_copy(path: Path) -> None:
    first = upgrade(path, now=NOW)
    second = upgrade(path, now=NOW)
    assert (first.before, first.after, first.backup) == (None, HEAD, None)
    assert (second.before, second.after, second.backup) == (HEAD, HEAD, None)
    assert sorted(name.name for name in path.parent.iterdir()) == ["kiln.sqlite3", "kiln.sqlite3.lock"]


NEXT = """
import os
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0099", "{head}", None, None

def upgrade():
    op.create_table("badges", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("weight", sa.Float(), nullable=False, server_default="1.0"))
        users.alter_column("theoretical_arrival", nullable=True)
    {act}
"""


def with_next_revision(folder: Path, act: str) -> Path:
    script = folder / "migrations"
    shutil.copytree(schema.MIGRATIONS, script, dirs_exist_ok=True)
    (script / "versions/0099_badges.py").write_text(NEXT.format(act=act, head=HEAD))
    return script


UPGRADE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from bot.storage import schema

print(schema.upgrade(Path(sys.argv[1]), now=datetime.now(UTC), script=Path(sys.argv[2])).after)
"""


async def test_an_upgrade_killed_midway_leaves_the_old_schema_and_works_when_run_again(path: Path) -> None:
    await submitted(path, 1, 2)
    script = with_next_revision(path.parent, 'if "DIE" in os.environ: os._exit(9)')
    before = query(path, "SELECT name, sql FROM sqlite_master ORDER BY name")
    command = [sys.executable, "-c", UPGRADE, str(path), str(script)]

    def run(**environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=False)

    assert (await asyncio.to_thread(run, DIE="1")).returncode == 9
    assert query(path, "SELECT name, sql FROM sqlite_master ORDER BY name") == before
    assert check(path) == SchemaReport(revision=HEAD, head=HEAD, jobs=2)
    assert (await asyncio.to_thread(run)).stdout == b"0099\n"
    assert query(path, "SELECT version_num FROM alembic_version") == [("0099",)]
    assert query(path, "SELECT count(*) FROM users WHERE weight = 1.0") == [(1,)]
    assert query(path, "SELECT count(*) FROM jobs") == [(2,)]  # recreating users did not take its jobs along
    copies = sorted(path.parent.glob(f"kiln-{HEAD}-*.sqlite3"))
    assert copies
    assert all(check(copy).jobs == 2 for copy in copies)


async def test_an_upgrade_that_breaks_a_reference_is_rolled_back(path: Path) -> None:
    await submitted(path, 1)
    script = with_next_revision(path.parent, 'op.execute("DELETE FROM users")')
    words = refusal(lambda: schema.upgrade(path, now=NOW, script=script))
    assert "cannot be upgraded: the upgrade would leave 1 rows that refer to nothing" in words
    assert check(path) == SchemaReport(revision=HEAD, head=HEAD, jobs=1)
    assert query(path, "SELECT count(*) FROM users") == [(1,)]


def test_the_copy_before_an_upgrade_is_named_by_revision_and_time(path: Path) -> None:
    upgrade(path, now=NOW)
    report = schema.upgrade(path, now=NOW, script=with_next_revision(path.parent, "pass"))
    assert (report.before, report.after) == (HEAD, "0099")
    assert report.backup == path.with_name(f"kiln-{HEAD}-20260102T030405Z.sqlite3")
    with path.open("wb") as file:
        file.write(report.backup.read_bytes())
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    again = schema.upgrade(path, now=NOW, script=path.parent / "migrations")
    assert again.backup == path.with_name(f"kiln-{HEAD}-20260102T030405Z-2.sqlite3")


def test_migrations_run_only_through_kiln(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "alembic", "current"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "run migrations through `kiln db upgrade`" in answer.stdout + answer.stderr


# transactions


async def test_every_connection_has_its_pragmas(path: Path) -> None:
    def pragmas(session: Session) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "query_only", "busy_timeout")
        return [session.scalar(text(f"PRAGMA {name}")) for name in names]

    async with open_database(path) as database:
        assert await database.write(pragmas) == ["wal", 2, 1, 0, 5000]
        assert await asyncio.gather(*(database.read(pragmas) for _ in range(3))) == [["wal", 2, 1, 1, 5000]] * 3


async def test_a_reader_cannot_write(path: Path) -> None:
    async with open_database(path) as database:
        with pytest.raises(QueueUnavailable):
            await database.read(lambda session: session.execute(text("DELETE FROM jobs")))


async def test_a_foreign_write_lock_of_three_seconds_is_waited_out(path: Path) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        with foreign_write_lock(path) as foreign:
            unlock = threading.Timer(3.0, foreign.rollback)
            unlock.start()
            began = asyncio.get_running_loop().time()
            assert (await queue.submit(new_job(1))).id == 1
            assert asyncio.get_running_loop().time() - began > 2.9
            unlock.join()


async def test_a_longer_foreign_lock_refuses_and_logs_the_cause(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_database(path, busy_seconds=0.05) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        with foreign_write_lock(path), pytest.raises(QueueUnavailable):
            await queue.submit(new_job(1))
        assert "database is locked" in caplog.text
        assert (await queue.overview()).waiting == 0
        assert (await queue.submit(new_job(1))).id == 1


async def test_a_bug_of_ours_is_not_called_an_unavailable_queue(path: Path) -> None:
    async with open_database(path) as database:
        with pytest.raises(IntegrityError):
            await database.write(
                lambda session: session.execute(text("INSERT INTO users (id, theoretical_arrival) VALUES (1, NULL)"))
            )


async def test_a_bug_in_reading_is_not_called_an_unavailable_queue(path: Path) -> None:
    async with open_database(path) as database:
        with pytest.raises(IntegrityError):
            await database.read(lambda session: _raise(IntegrityError("x", None, ValueError())))


def _raise(error: Exception) -> None:
    raise error


async def test_times_come_back_aware_and_in_utc(path: Path) -> None:
    def store(session: Session) -> None:
        session.add(UserRow(id=1, theoretical_arrival=NOW.astimezone(tz=None)))

    def naive(session: Session) -> None:
        session.add(UserRow(id=2, theoretical_arrival=NOW.replace(tzinfo=None)))
        session.flush()

    async with open_database(path) as database:
        await database.write(store)
        (user,) = await database.read(lambda session: session.scalars(text("SELECT 1")).all())
        found = await database.read(lambda session: session.get(UserRow, user))
        assert found is not None
        assert found.theoretical_arrival == NOW
        assert found.theoretical_arrival.utcoffset() == timedelta()
        with pytest.raises(StatementError, match="a time without a zone"):
            await database.write(naive)


async def test_closing_waits_for_a_write_whose_caller_was_cancelled(path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        session.add(UserRow(id=5, theoretical_arrival=NOW))
        entered.set()
        assert leave.wait(10)

    upgrade(path, now=NOW)
    database = connect(path)
    caller = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(entered.wait)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    leave.set()
    await database.aclose()
    assert query(path, "SELECT id FROM users") == [(5,)]
