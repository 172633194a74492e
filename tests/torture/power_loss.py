"""A power cut, as hard as the standard allows: of each file only what was last synced is left.

`keep_synced` mirrors every file into an image folder whenever it is synced, SQLite's by a shim around its VFS (the
system's library, through ctypes), Python's by `os.fsync`; a name appears in the image once its folder was synced. Run
as a program it submits and draws jobs on such files, and prints what was acknowledged at each cut:

    python -m tests.torture.power_loss FOLDER IMAGES [NORMAL]

With NORMAL commits are synced less than Kiln has it, to show that this is found.

Knows nothing of how Kiln decides; it only looks at what a disk would still hold.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.pool import Pool

from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Job, Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import open_database
from gen.executor import GpuExecutor
from gen.request import StepReport
from tests.fakes import FakeGenerator, image_request, new_job

ROUNDS, JOBS_A_ROUND = 6, 5
SYNC, OPEN, DELETE = 5, 5, 6  # places of xSync in sqlite3_io_methods, of xOpen and xDelete in sqlite3_vfs, in words
VFS_WORDS, METHODS_WORDS = 24, 19
NEW_SYNCS_FOLDER = 0x800 | 0x80000  # SQLITE_OPEN_MAIN_JOURNAL, _WAL: their first sync brings the folder to the disk too

_Word = ctypes.c_void_p
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _Word, ctypes.c_int)
_Delete = ctypes.CFUNCTYPE(ctypes.c_int, _Word, ctypes.c_char_p, ctypes.c_int)
# The name as an address: SQLite keeps it, and looks for more behind it.
_Open = ctypes.CFUNCTYPE(ctypes.c_int, _Word, _Word, _Word, ctypes.c_int, _Word)


class Mirror:
    """What a disk holds after a power cut, as a folder beside the real one."""

    def __init__(self, folder: Path, image: Path) -> None:
        self._folder, self._image = folder.resolve(), image
        self._synced: dict[int, bytes] = {}  # by inode, of files that Python synced
        self._deleted: set[Path] = set()  # but their folder was not synced since
        self._kept: list[object] = []  # what SQLite points to must not be freed
        self._fsync = os.fsync
        self._writing = threading.Lock()  # a cut falls between two syncs, not into one

    def install(self) -> None:
        """Begin to mirror; for the rest of the process."""
        os.fsync = self._python_synced  # type: ignore[assignment]
        self._shim_sqlite(ctypes.CDLL(ctypes.util.find_library("sqlite3")))

    def cut(self, to: Path) -> None:
        """Copy what a power cut now would leave."""
        with self._writing:
            shutil.copytree(self._image, to)

    def _keep(self, path: Path, content: bytes | None) -> None:
        """Note what the disk holds of one file for certain; None: that it is gone."""
        if not path.is_relative_to(self._folder):
            return
        to = self._image / path.relative_to(self._folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        with self._writing:
            self._deleted.discard(path)
            if content is None:
                to.unlink(missing_ok=True)
            else:
                to.write_bytes(content)

    def _folder_synced(self, folder: Path) -> None:
        for path in [path for path in self._deleted if path.parent == folder]:
            self._keep(path, None)

    def _python_synced(self, handle: int) -> None:
        self._fsync(handle)
        path, found = Path(os.readlink(f"/proc/self/fd/{handle}")), os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            self._synced[found.st_ino] = path.read_bytes()
            return
        self._folder_synced(path)
        for entry in path.iterdir() if path.is_relative_to(self._folder) else ():
            if entry.stat().st_ino in self._synced:
                self._keep(entry, self._synced[entry.stat().st_ino])

    def _shim_sqlite(self, sqlite: ctypes.CDLL) -> None:
        """Register a VFS that is the usual one but for xOpen, which swaps xSync of each file that it opens."""
        sqlite.sqlite3_vfs_find.restype = _Word
        usual = (_Word * VFS_WORDS).from_address(sqlite.sqlite3_vfs_find(None))
        vfs = (_Word * VFS_WORDS)(*usual)
        opened, deleted = _Open(_address(usual[OPEN])), _Delete(_address(usual[DELETE]))

        def open_file(this: int, name: int | None, file: int, flags: int, out: int) -> int:
            result = int(opened(this, name, file, flags, out))
            if result == 0 and name is not None:
                self._swap_sync(file, Path(ctypes.string_at(name).decode()), new=bool(flags & NEW_SYNCS_FOLDER))
            return result

        def delete_file(this: int, name: bytes, synced: int) -> int:
            result = int(deleted(this, name, synced))
            if result == 0:
                self._deleted.add(Path(name.decode()))
            if result == 0 and synced:
                self._folder_synced(Path(name.decode()).parent)
            return result

        name, shim, removal = ctypes.create_string_buffer(b"mirrored"), _Open(open_file), _Delete(delete_file)
        vfs[2], vfs[3] = None, ctypes.addressof(name)  # pNext, zName
        vfs[OPEN], vfs[DELETE] = ctypes.cast(shim, _Word).value, ctypes.cast(removal, _Word).value
        self._kept += [vfs, name, shim, removal]
        assert sqlite.sqlite3_vfs_register(ctypes.byref(vfs), 1) == 0

    def _swap_sync(self, file: int, path: Path, *, new: bool) -> None:
        pointer = _Word.from_address(file)
        assert pointer.value is not None
        methods = (_Word * METHODS_WORDS)(*(_Word * METHODS_WORDS).from_address(pointer.value))
        synced = _Sync(_address(methods[SYNC]))

        def sync(this: int, flags: int) -> int:
            result = int(synced(this, flags))
            self._keep(path, path.read_bytes())
            if new:
                self._folder_synced(path.parent)
            return result

        shim = _Sync(sync)
        methods[SYNC] = ctypes.cast(shim, _Word).value
        pointer.value = ctypes.addressof(methods)
        self._kept += [methods, shim]


def _address(word: int | None) -> int:
    assert word is not None
    return word


class Drawn:
    """Outcomes for programs; `ids` are the jobs that were told as drawn."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.one = asyncio.Event()

    def drawn(self, job: Job) -> None:
        """Told, so it must be on the disk."""
        self.ids.append(job.id)
        self.one.set()

    def started(self, job: Job) -> None: ...
    def progress(self, job: Job, report: StepReport) -> None: ...
    def failed(self, job: Job) -> None: ...
    def cancelled(self, job: Job) -> None: ...
    def requeued(self, job: Job) -> None: ...


async def work(folder: Path, cut: Callable[[list[int], list[int]], None]) -> None:
    """Submit and draw; `cut` is called with what was acknowledged so far, and what was told as drawn."""
    outcomes, submitted = Drawn(), list[int]()
    async with open_database(folder / "kiln.sqlite3") as database, GpuExecutor(FakeGenerator) as executor:
        queue = JobQueue(database, limits=Limits(waiting_per_user=100, burst=1000), now=lambda: datetime.now(UTC))
        async with Dispatcher(queue=queue, executor=executor, outcomes=outcomes, pictures=folder) as dispatcher:
            for number in range(ROUNDS):
                for job in range(JOBS_A_ROUND):
                    new = new_job(number * JOBS_A_ROUND + job + 1, request=image_request(seed=job))
                    submitted.append((await queue.submit(new)).id)
                outcomes.one.clear()
                dispatcher.wake()
                await outcomes.one.wait()
                cut(list(submitted), list(outcomes.ids))


def main() -> None:
    """Cut after each round: what the image holds then is what the next start would find."""
    folder, images, otherwise = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    image = images / "disk"
    image.mkdir(parents=True)
    mirror = Mirror(folder, image)
    mirror.install()

    @event.listens_for(Pool, "checkout")
    def weaken(raw: object, *_: object) -> None:
        for synchronous in otherwise:
            raw.execute(f"PRAGMA synchronous = {synchronous}")  # type: ignore[attr-defined]

    def cut(submitted: list[int], drawn: list[int]) -> None:
        to = images / f"cut-{len(submitted)}"
        mirror.cut(to)
        (to / "acknowledged.json").write_text(json.dumps({"submitted": submitted, "drawn": drawn}))

    asyncio.run(work(folder, cut))


if __name__ == "__main__":
    main()
