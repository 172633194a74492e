"""The database file on disk: is it sound, is it ours, which revision has it, copy it, upgrade it.

Blocking, and for a file that nobody writes at the moment (database.py holds the lock). Everything that is wrong
comes out as StartError: one line that names the file and says what to do. Knows no verbs and no engine.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from bot.errors import StartError
from bot.storage import people_tables, server_tables, style_tables, tables

METADATA = tables.Base.metadata
# The modules that hold rows: importing one makes its tables known.
FAMILIES = (tables, people_tables, server_tables, style_tables)
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
BUSY_SECONDS = 5.0  # how long a write waits for somebody else's lock

_CAUSES = {  # SQLite's primary result code to what the operator should know
    sqlite3.SQLITE_BUSY: "is locked by another program: close it (a database browser?) and start again",
    sqlite3.SQLITE_LOCKED: "is locked by another program: close it (a database browser?) and start again",
    sqlite3.SQLITE_READONLY: "cannot be written: check the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "cannot be opened: check the permissions of the file and its folder",
    sqlite3.SQLITE_NOTADB: "is not a database: move it away, or restore a copy of it",
    sqlite3.SQLITE_CORRUPT: "is corrupt: restore a copy of it (they lie beside it, named by revision and time)",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space and start again",
    sqlite3.SQLITE_IOERR: "cannot be read or written, the disk failed or is full",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaReport:
    """A sound database file, as `check` found it."""

    revision: str | None  # None: empty, not yet upgraded
    head: str  # the newest revision that this Kiln knows
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """What an upgrade did; `before` equals `after` when there was nothing to do."""

    before: str | None
    after: str
    backup: Path | None  # the copy of the old file, None when nothing was changed or the file was new


def upgrade(path: Path, *, now: datetime, script: Path = MIGRATIONS) -> UpgradeReport:
    """Bring the file to this Kiln's schema, after a copy of it beside it; make it if there is none.

    A revision is one transaction: killed midway, the file has the old schema and the next upgrade goes on.
    """
    check_folder(path)
    config = _config(script)
    head = _head(config)
    with _as_start_error(path), _connected(path) as connection:
        _check_sound(connection, path)
        before = _revision(connection, path, config)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")  # writable, and nobody else writes
        connection.rollback()
    if before == head:
        return UpgradeReport(before=before, after=head, backup=None)
    copy = None
    if before is not None:
        copy = _free_name(path, f"{path.stem}-{before}-{now:%Y%m%dT%H%M%SZ}")
        backup(path, copy)
        log.info("upgrading %s from schema %s to %s; a copy of the old one is %s", path, before, head, copy)
    with _as_start_error(path), _migrating(URL.create("sqlite", database=str(path))) as engine_connection:
        config.attributes["connection"] = engine_connection
        command.upgrade(config, "head")
    return UpgradeReport(before=before, after=head, backup=copy)


def check(path: Path) -> SchemaReport:
    """Read the whole file and report; StartError if it is missing, unsound, foreign or from a newer Kiln."""
    _check_exists(path)
    config = _config(MIGRATIONS)
    with _as_start_error(path), _connected(path) as connection:
        connection.execute("PRAGMA query_only = ON")
        _check_sound(connection, path, pragma="integrity_check")
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise StartError(f"{path} has {len(broken)} rows that refer to nothing: restore a copy of it")
        revision = _revision(connection, path, config)
        jobs = connection.execute("SELECT count(*) FROM jobs").fetchone()[0] if revision else 0
    return SchemaReport(revision=revision, head=_head(config), jobs=jobs)


def backup(path: Path, to: Path) -> None:
    """Copy a sound database, also while it is in use; `to` appears whole or not at all. StartError if `to` exists."""
    _check_exists(path)
    if to.exists():
        raise StartError(f"{to} exists already: choose another name for the copy of {path}")
    check_folder(to)
    half = to.with_name(to.name + ".half")
    half.unlink(missing_ok=True)
    try:
        with _as_start_error(path), _connected(path) as source:
            _check_sound(source, path)  # a copy of a corrupt file would be trusted one day
            with _as_start_error(to), closing(sqlite3.connect(half)) as target:
                source.backup(target)
            with half.open("rb+") as file:
                os.fsync(file.fileno())
            half.rename(to)
    finally:
        half.unlink(missing_ok=True)


def model_differences() -> tuple[str, ...]:
    """How the modules of rows differ from what the migrations make; empty when they agree."""
    config = _config(MIGRATIONS)
    in_memory = URL.create("sqlite")
    with _migrating(in_memory) as migrated, _migrating(in_memory) as modelled:
        config.attributes["connection"] = migrated
        command.upgrade(config, "head")
        METADATA.create_all(modelled)
        context = MigrationContext.configure(migrated, opts={"compare_type": True, "compare_server_default": True})
        found = [str(difference) for difference in compare_metadata(context, METADATA)]
        ours, theirs = _indexes(modelled), _indexes(migrated)  # Alembic does not compare the WHERE of an index
    return (*found, *(f"index {name}" for name in sorted(ours.keys() | theirs) if ours.get(name) != theirs.get(name)))


def check_folder(path: Path) -> None:
    """StartError unless `path` may be a database: its folder is there, and both can be written."""
    folder = path.parent
    if not folder.is_dir():
        raise StartError(f"the folder {folder} of the database does not exist: create it")
    if path.is_dir():
        raise StartError(f"{path} is a folder, not a database")
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise StartError(f"{place} cannot be written: check its permissions")


def _free_name(path: Path, stem: str) -> Path:
    """Beside `path`; numbered when an upgrade that did not finish left a copy in the same second."""
    names = (f"{stem}{number}{path.suffix}" for number in chain([""], (f"-{n}" for n in count(2))))
    return next(copy for name in names if not (copy := path.with_name(name)).exists())


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise StartError(f"there is no database {path}")


def _check_sound(connection: sqlite3.Connection, path: Path, *, pragma: str = "quick_check") -> None:
    found = connection.execute(f"PRAGMA {pragma}(1)").fetchone()[0]
    if found != "ok":
        raise StartError(f"{path} is corrupt ({' '.join(str(found).split())}): restore a copy of it")


def _revision(connection: sqlite3.Connection, path: Path, config: Config) -> str | None:
    """The file's revision, None for an empty file; StartError if it is not ours or from a newer Kiln."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    rows = (
        connection.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
    )
    if not rows:
        if tables - {"alembic_version"}:
            raise StartError(f"{path} is a database of another program, not Kiln's: choose another file")
        return None
    revision = str(rows[0][0])
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if revision not in known:
        raise StartError(
            f"{path} has schema {revision} of a newer Kiln; this one knows up to {_head(config)}: upgrade Kiln"
        )
    return revision


def _config(script: Path) -> Config:
    config = Config(attributes={"metadata": METADATA})
    config.set_main_option("script_location", str(script).replace("%", "%%"))
    return config


def _head(config: Config) -> str:
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None, "no migrations"
    return head


def _indexes(connection: Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    return {str(name): str(sql) for name, sql in rows}


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection


@contextmanager
def _migrating(url: URL) -> Iterator[Connection]:
    """A connection that migrations can use: explicit transactions, foreign keys off, every commit on the disk."""
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _record: object) -> None:
        raw.isolation_level = None
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as connection:
        yield connection


@contextmanager
def _as_start_error(path: Path) -> Iterator[None]:
    """Turn SQLite's, the disk's and Alembic's errors into one line for the operator."""
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        raw = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(raw, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        raise StartError(f"{path} {_CAUSES.get(code & 0xFF, 'cannot be used')} ({raw})") from error
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from error
    except CommandError as error:
        raise StartError(f"{path} cannot be upgraded: {error}") from error
