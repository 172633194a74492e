"""Daily copies and old pictures: real files, a real database, a clock that is moved by hand."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from bot.host import keeper as module
from bot.host.keeper import Keeper
from bot.host.keeping import Keeping, Picture, too_many
from bot.queue.job import Job, JobStatus
from bot.queue.job_queue import JobQueue
from bot.queue.past import Past, Shown
from bot.storage.database import Database, check
from gen.request import ImageResult
from tests.bot.conftest import PLENTY
from tests.fakes import Clock, new_job

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DRAWN = ImageResult(png=b"", sha256="", seconds=1.0, model="fake")


def picture(job_id: int, *, days: float, size: int = 100) -> Picture:
    return Picture(job_id=job_id, path=f"{job_id}.png", finished_at=NOW - timedelta(days=days), size=size)


def doomed(pictures: list[Picture], **keeping: float) -> list[int]:
    found = too_many(pictures, keeping=Keeping(**keeping), now=NOW)  # type: ignore[arg-type]
    return [one.job_id for one in found]


def test_pictures_over_the_age_go_and_younger_ones_stay() -> None:
    assert doomed([picture(1, days=31), picture(2, days=29)], days=30) == [1]


def test_the_oldest_go_until_the_rest_is_within_the_size() -> None:
    pictures = [picture(3, days=1), picture(1, days=3), picture(2, days=2)]
    assert doomed(pictures, picture_bytes=200) == [1]
    assert doomed(pictures, picture_bytes=199) == [1, 2]
    assert doomed(pictures, picture_bytes=300) == []


def test_what_is_too_old_makes_room_first() -> None:
    assert doomed([picture(1, days=40), picture(2, days=2), picture(3, days=1)], days=30, picture_bytes=200) == [1]


def test_without_a_wish_everything_stays() -> None:
    assert doomed([picture(1, days=9999, size=2**40)]) == []


class Folder:
    """A data folder with a queue and a keeper."""

    def __init__(self, path: Path, database: Database, clock: Clock, **keeping: float) -> None:
        self.data, self.clock = path.parent, clock
        self.queue = JobQueue(database, limits=PLENTY, now=clock)
        wish = Keeping(**keeping)  # type: ignore[arg-type]
        self.keeper = Keeper(database=database, path=path, keeping=wish, now=clock)

    async def draw(self, number: int, *, delivered: bool = True, size: int = 100) -> Job:
        """A job with its file."""
        await self.queue.submit(new_job(number))
        job = await self.queue.claim()
        assert job is not None
        name = f"pictures/{self.clock():%Y-%m}/{job.id}-{number}.png"
        file = self.data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
        os.utime(file, (self.clock().timestamp(),) * 2)
        await self.queue.record_drawn(job, picture=name, result=DRAWN)
        if delivered:
            await self.queue.record_delivered(job.id, message_id=number)
        return await self.job(job.id)

    async def job(self, job_id: int) -> Job:
        job = await self.queue.job(job_id)
        assert job is not None
        return job

    def files(self) -> list[str]:
        return sorted(file.name for file in (self.data / "pictures").glob("*/*"))


async def test_a_job_whose_picture_was_removed_says_so_and_no_row_names_a_file_that_is_gone(
    path: Path, database: Database, clock: Clock
) -> None:
    folder = Folder(path, database, clock, days=30)
    old = await folder.draw(1)
    clock.move(32 * 86400)
    await folder.draw(2)
    assert await folder.keeper.make_room() == 1
    first, second = await folder.job(1), await folder.job(2)
    assert (first.picture, first.is_picture_removed, first.status) == (None, True, JobStatus.DELIVERED)
    assert (second.picture is None, second.is_picture_removed) == (False, False)
    assert folder.files() == ["2-2.png"]
    looked_at = await Past(database, now=clock).pictures(Shown(user_id=first.user_id))
    assert [job.id for job in looked_at.jobs] == [2, 1]
    assert not (folder.data / str(old.picture)).parent.exists()


async def test_a_picture_that_waits_to_be_posted_is_never_removed(path: Path, database: Database, clock: Clock) -> None:
    folder = Folder(path, database, clock, days=1, picture_bytes=1)
    await folder.draw(1, delivered=False)
    clock.move(400 * 86400)
    assert await folder.keeper.make_room() == 0
    assert folder.files() == ["1-1.png"]


async def test_a_job_that_changed_since_the_look_keeps_its_picture(
    path: Path, database: Database, clock: Clock
) -> None:
    folder = Folder(path, database, clock, days=1)
    job = await folder.draw(1, delivered=False)
    seen = Picture(job_id=job.id, path=str(job.picture), finished_at=clock(), size=1)
    assert await database.write(partial(module._forget, pictures=[seen])) == []
    assert (await folder.job(1)).picture is not None


async def test_a_crash_between_the_row_and_the_file_leaves_a_file_that_the_next_look_removes(
    path: Path, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(path, database, clock, days=30)
    await folder.draw(1)
    clock.move(40 * 86400)

    def dies(files: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_remove", dies)
        with pytest.raises(KeyboardInterrupt):
            await folder.keeper.make_room()
    assert ((await folder.job(1)).is_picture_removed, folder.files()) == (True, ["1-1.png"])
    assert await folder.keeper.make_room() == 1
    assert folder.files() == []


async def test_files_of_other_names_and_of_today_are_not_ours_to_remove(
    path: Path, database: Database, clock: Clock
) -> None:
    folder = Folder(path, database, clock, days=30)
    await folder.draw(1)
    month = next((folder.data / "pictures").iterdir())
    for name, age in (("holiday.png", 9), ("77-1.png", 0.5), (".78-1.png.half", 9), ("79-1.png", 9)):
        (month / name).write_bytes(b"x")
        os.utime(month / name, (clock().timestamp() - age * 86400,) * 2)
    await folder.keeper.make_room()
    assert folder.files() == ["1-1.png", "77-1.png", "holiday.png"]


async def test_a_look_copies_once_a_day_and_keeps_so_many_copies_that_are_sound(
    path: Path, database: Database, clock: Clock
) -> None:
    folder = Folder(path, database, clock, backups=2)
    await folder.draw(1)
    for hours in (0, 1, 22, 2, 25, 25):
        clock.move(hours * 3600)
        await folder.keeper.look()
    copies = sorted((folder.data / "backups").iterdir())
    assert [copy.name for copy in copies] == ["kiln-20260103T020000Z.sqlite3", "kiln-20260104T030000Z.sqlite3"]
    assert check(copies[-1]).jobs == 1


async def test_a_clock_that_was_set_back_makes_no_copy_after_copy(path: Path, database: Database, clock: Clock) -> None:
    folder = Folder(path, database, clock, backups=3)
    assert await folder.keeper.back_up() is not None
    clock.move(-3600)
    assert await folder.keeper.back_up() is None


async def test_no_copies_are_made_where_none_are_wanted(path: Path, database: Database, clock: Clock) -> None:
    await Folder(path, database, clock, backups=0).keeper.look()
    assert not (path.parent / "backups").exists()


async def test_a_folder_that_takes_no_copy_is_logged_and_pictures_are_still_kept_small(
    path: Path, database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(path, database, clock, days=30)
    (folder.data / "backups").write_text("not a folder")
    await folder.draw(1)
    clock.move(40 * 86400)
    await folder.keeper.look()
    assert "the backup failed; Kiln tries again in 0:10:00" in caplog.text
    assert folder.files() == []


async def test_a_name_that_only_looks_like_a_copys_is_left_alone_and_copies_are_made(
    path: Path, database: Database, clock: Clock
) -> None:
    folder = Folder(path, database, clock, backups=1)
    odd = folder.data / "backups" / "kiln-20269999T999999Z.sqlite3"
    odd.parent.mkdir()
    odd.touch()
    made = await folder.keeper.back_up()
    assert sorted(odd.parent.iterdir()) == [made, odd]


async def test_an_error_of_ours_in_a_look_is_logged_and_the_next_look_comes(
    path: Path, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_back_up", lambda *_: 1 / 0)
    folder = Folder(path, database, clock, days=30)
    await folder.draw(1)
    clock.move(40 * 86400)
    await folder.keeper.look()
    assert "ZeroDivisionError" in caplog.text
    assert folder.files() == []
