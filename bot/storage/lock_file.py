"""One process a database: a lock file beside it, held by the kernel, and looked at again within each transaction.

Somebody may remove the file while it is held; then a second process can hold another of the same name. Both write
through SQLite, one transaction at a time, and the second makes its file before its first: so whoever sees within a
transaction that the file is still its own is the only one who writes.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bot.errors import QueueUnavailable, StartError
from bot.storage.schema import check_folder

log = logging.getLogger(__name__)


class LockFile:
    """A lock file that this process holds."""

    def __init__(self, place: Path, handle: int) -> None:
        """`handle` is open and locked."""
        self._place, self._handle = place, handle
        self._lost = False

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)

    def hold(self) -> None:
        """Within a transaction: be sure that this process alone may write; raise QueueUnavailable if it is not.

        A file that is gone is made again. One that is somebody else's ends it for good: what this process knows of
        the queue may be old.
        """
        try:
            if not self._lost and not self._is_ours():
                self._make_again()
        except FileExistsError:
            self._lost = True
            log.critical(
                "%s is not the file that this Kiln locked: somebody removed that, and another Kiln may use the "
                "database now. This one writes nothing any more: stop it, and start it again if no other runs",
                self._place,
            )
        except OSError as error:
            log.critical("%s was removed and cannot be made again: %s", self._place, error.strerror)
            raise QueueUnavailable from error
        if self._lost:
            raise QueueUnavailable

    def _is_ours(self) -> bool:
        """Whether the file is the one that is held; False: there is none. Raise FileExistsError for another one."""
        try:
            found = os.stat(self._place)
        except FileNotFoundError:
            return False
        if not os.path.samestat(found, os.fstat(self._handle)):
            raise FileExistsError
        return True

    def _make_again(self) -> None:
        handle = os.open(self._place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:  # by somebody who came between these two lines
            os.close(handle)
            raise FileExistsError from error
        os.close(self._handle)
        self._handle = handle
        with suppress(OSError):  # it is for a message only
            os.pwrite(handle, _signature(), 0)
        log.warning("%s was removed while it was held; it was made again. Leave it while Kiln runs", self._place)


@contextmanager
def lock(path: Path) -> Iterator[LockFile]:
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
    held = LockFile(place, handle)
    try:
        _take(handle, path)
        _sign(handle, place)
        yield held
    finally:
        held.close()


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
        os.pwrite(handle, _signature(), 0)
    except OSError as error:
        raise StartError(f"{place} cannot be written: {error.strerror}") from error


def _signature() -> bytes:
    return f"{os.getpid()}\n".encode()
