"""Keeps the data folder: a copy of the database each day, and pictures up to an age and a size.

A picture is removed from the database first and from the disk then: a row never names a file that Kiln removed, and
what a crash leaves between the two is found as a file that no row names. Jobs stay for ever, without their picture;
pictures that wait to be posted are never touched. Knows no Discord and no GPU.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bot.host.keeping import Keeping, Picture, too_many
from bot.queue.job import HAD_A_PICTURE
from bot.storage import schema
from bot.storage.database import Database
from bot.storage.tables import JobRow

LOOK_EVERY = timedelta(minutes=10)
BACKUP_EVERY = timedelta(days=1)
ORPHAN_AGE = timedelta(days=1)  # a file without a row: younger, it may be about to be recorded
AT_ONCE = 500  # rows in one transaction

_COPY = re.compile(r"kiln-(\d{8}T\d{6})Z\.sqlite3")
_PICTURE = re.compile(r"\d+-\d+\.png|\.\d+-\d+\.png\.half")
_STAMP = "%Y%m%dT%H%M%S"

log = logging.getLogger(__name__)


class Keeper:
    """Does the keeping of one data folder."""

    def __init__(self, *, database: Database, path: Path, keeping: Keeping, now: Callable[[], datetime]) -> None:
        """`path` is the database's file, in the data folder; `now` is aware UTC."""
        self._database, self._path, self._keeping, self._now = database, path, keeping, now
        self._data = path.parent

    async def run(self) -> None:
        """Look every ten minutes, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def look(self) -> None:
        """Do what is due; what fails is logged, and due again."""
        for what, work in (("the backup", self.back_up), ("removing old pictures", self.make_room)):
            try:
                await work()
            except Exception:  # whatever it is, the year is long
                log.exception("%s failed; Kiln tries again in %s", what, LOOK_EVERY)

    async def back_up(self) -> Path | None:
        """Copy the database if the last copy is a day old, and remove copies beyond the number; None: not due."""
        if self._keeping.backups == 0:
            return None
        return await asyncio.to_thread(_back_up, self._path, self._keeping.backups, self._now())

    async def make_room(self) -> int:
        """Remove pictures that are too old or too many, and files that no row names; return how many."""
        if self._keeping.days is None and self._keeping.picture_bytes is None:
            return 0
        rows = await self._database.read(_named)
        pictures = await asyncio.to_thread(_sized, self._data, rows)
        doomed = too_many(pictures, keeping=self._keeping, now=self._now())
        for first in range(0, len(doomed), AT_ONCE):
            forgotten = await self._database.write(partial(_forget, pictures=doomed[first : first + AT_ONCE]))
            await asyncio.to_thread(_remove, [self._data / path for path in forgotten])
        orphans = await asyncio.to_thread(_orphans, self._data, {path for _, path, _ in rows}, self._now())
        if doomed or orphans:
            log.info("removed %d old pictures and %d files without a job", len(doomed), len(orphans))
        return len(doomed) + len(orphans)


def _named(session: Session) -> list[tuple[int, str, datetime | None]]:
    """Every picture that a row names; with the time when its job ended, if it may be removed."""
    found = session.execute(
        select(JobRow.id, JobRow.picture, JobRow.finished_at, JobRow.status).where(JobRow.picture.is_not(None))
    )
    return [(id_, str(path), at if status in HAD_A_PICTURE else None) for id_, path, at, status in found]


def _sized(data: Path, rows: Iterable[tuple[int, str, datetime | None]]) -> list[Picture]:
    """With the size of each file; what is not there takes no room, and is nobody's to remove."""
    pictures = []
    for job_id, path, finished_at in rows:
        file = data / path
        if finished_at is not None and file.is_file():
            pictures.append(Picture(job_id=job_id, path=path, finished_at=finished_at, size=file.stat().st_size))
    return pictures


def _forget(session: Session, *, pictures: Sequence[Picture]) -> list[str]:
    """Note that these files are gone; return those that may go: a row may have changed meanwhile."""
    by_id = {picture.job_id: picture.path for picture in pictures}
    change = update(JobRow).where(JobRow.id.in_(by_id), JobRow.status.in_(HAD_A_PICTURE)).values(picture=None)
    return [by_id[job_id] for job_id in session.scalars(change.returning(JobRow.id))]


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()


def _orphans(data: Path, named: set[str], now: datetime) -> list[Path]:
    """Remove pictures that no row names, but none of today; only files that Kiln itself names so."""
    before = (now - ORPHAN_AGE).timestamp()
    files = (data / "pictures").glob("*/*")
    orphans = [
        file
        for file in files
        if _PICTURE.fullmatch(file.name)
        and file.relative_to(data).as_posix() not in named
        and file.stat().st_mtime < before
    ]
    _remove(orphans)
    return orphans


def _back_up(path: Path, keep: int, now: datetime) -> Path | None:
    folder = path.parent / "backups"
    folder.mkdir(exist_ok=True)
    made_at = {file: at for file in sorted(folder.iterdir()) if (at := _made_at(file)) is not None}
    copies, made = list(made_at), None
    if not any(abs(now - at) < BACKUP_EVERY for at in made_at.values()):  # also where the clock was set back
        made = folder / f"kiln-{now:{_STAMP}}Z.sqlite3"
        schema.backup(path, made)
        copies.append(made)
        log.info("the database is copied to %s", made)
    for file in sorted(copies)[:-keep]:
        if file != made:
            file.unlink()
    return made


def _made_at(file: Path) -> datetime | None:
    """When a copy was made; None: it is none of the schedule's."""
    found = _COPY.fullmatch(file.name)
    try:
        return datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC) if found else None
    except ValueError:  # digits that are no time
        return None
