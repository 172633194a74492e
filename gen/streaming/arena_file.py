"""One file with all packed weights of a model, so that the second start reads them at the disk's speed.

    0         magic and layout version, the header's length and CRC-32 (24 bytes), the header as JSON
    1 MiB     the entries, each on a boundary of 4096 bytes, in the header's order

The header says what was packed (sizes and samples of the source files, the DiT's sha256), how (every entry's parts
with dtype, shape and offset) and each entry's checksum, which is verified whenever the entry is read. Written beside
its place, synced, and renamed: it is whole or absent. Knows no model and no card.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gen.streaming.arena import Entry, Layout, host_buffer

MAGIC = b"KILNARN1"
VERSION = 1  # of what an entry's bytes mean; a file of another version is packed anew
DATA, PAGE = 2**20, 4096  # bytes
READERS = 4
_HEAD = struct.Struct("<8sIII4x")  # magic, version, length and CRC-32 of the header
_SAMPLES, _SAMPLE = 64, 2**16
Bar = Callable[[int], object]  # told how many bytes were read or written


class StaleArena(Exception):
    """The file cannot be used; the text says why."""


def fingerprint(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What tells one set of source files from another in milliseconds: name, size, time of change, a sampled digest."""
    return [_fingerprint(path) for path in files]


def _fingerprint(path: Path) -> dict[str, Any]:
    digest, found = hashlib.sha256(), path.stat()
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            file.seek(max(0, found.st_size - _SAMPLE) * index // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return {"name": path.name, "size": found.st_size, "changed_ns": found.st_mtime_ns, "sample": digest.hexdigest()}


def checksum(buffer: Tensor) -> int:
    """The sum of a buffer's 64-bit words modulo 2^64: at memory speed, and no single damaged byte keeps it."""
    words = buffer[: buffer.nbytes // 8 * 8].view(torch.int64)
    return int(words.sum().item()) % 2**64


def describe(layout: Layout) -> list[list[Any]]:
    """A layout as JSON: name, dtype, shape and offset of each part."""
    return [[part.name, str(part.dtype), list(part.shape), part.offset] for part in layout.parts]


@contextmanager
def writing(path: Path, *, about: dict[str, Any], layouts: dict[str, Layout]) -> Iterator[Callable[[Entry], None]]:
    """Write a file of entries: call what this gives with every entry, in the order of `layouts`.

    The file appears at the end of the `with`; on any error nothing is left. Raise OSError.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    sums: dict[str, int] = {}
    places = dict(_places(layouts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            with suppress(OSError):  # not every file system can
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

            def write(entry: Entry) -> None:
                file.seek(places[entry.name])
                file.write(_bytes(entry.host))
                sums[entry.name] = checksum(entry.host)

            yield write
            file.truncate(max(places[name] + layout.size for name, layout in layouts.items()))
            _write_header(file, about, layouts, sums)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what processes that were killed left of this file half-written; one that still writes holds a lock."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), partial.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def file_size(layouts: dict[str, Layout]) -> int:
    """Bytes of a file with these entries."""
    return max((place + layouts[name].size for name, place in _places(layouts)), default=DATA)


def read_header(path: Path) -> dict[str, Any]:
    """The header; raise StaleArena, saying why, for a file that is none, is damaged or is of another version."""
    try:
        with path.open("rb") as file:
            magic, version, length, crc = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
            text = file.read(min(length, DATA))
    except OSError as error:
        raise StaleArena(f"it cannot be read: {error.strerror or error}") from error
    if magic != MAGIC:
        raise StaleArena("it is not a file of packed weights")
    if version != VERSION:
        raise StaleArena(f"it has layout version {version}, and this Kiln writes {VERSION}")
    if zlib.crc32(text) != crc:
        raise StaleArena("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    return header


def read(path: Path, *, about: dict[str, Any], layouts: dict[str, Layout], told: Bar) -> tuple[list[Entry], str]:
    """All entries, each verified, and the DiT's sha256; raise StaleArena saying why the file cannot be used."""
    header = read_header(path)
    for key, value in about.items():
        if key != "sha256" and header["about"].get(key) != value:
            raise StaleArena(f"it was packed from other {key}")
    kinds = [describe(layout) for layout in dict.fromkeys(layouts.values())]
    if [entry["name"] for entry in header["entries"]] != list(layouts) or header["layouts"] != kinds:
        raise StaleArena("it holds other entries than this model has")
    if path.stat().st_size < file_size(layouts):
        raise StaleArena("it is shorter than its header says")
    places = dict(_places(layouts))

    def load(found: dict[str, Any]) -> Entry:
        name = found["name"]
        entry = Entry(name=name, layout=layouts[name], host=host_buffer(layouts[name].size))
        _read_into(path, places[name], entry.host)
        if checksum(entry.host) != found["sum"]:
            raise StaleArena(f"its entry {name} is damaged")
        told(entry.layout.size)
        return entry

    with ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="arena") as pool:
        try:
            return list(pool.map(load, header["entries"])), str(header["about"]["sha256"])
        except StaleArena:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _places(layouts: dict[str, Layout]) -> Iterator[tuple[str, int]]:
    place = DATA
    for name, layout in layouts.items():
        yield name, place
        place += -(-layout.size // PAGE) * PAGE


def _write_header(file: BinaryIO, about: dict[str, Any], layouts: dict[str, Layout], sums: dict[str, int]) -> None:
    kinds = list(dict.fromkeys(layouts.values()))
    entries = [
        {"name": name, "offset": place, "size": layouts[name].size, "layout": kinds.index(layouts[name])}
        | {"sum": sums[name]}
        for name, place in _places(layouts)
    ]
    header = {"about": about, "layouts": [describe(kind) for kind in kinds], "entries": entries}
    text = json.dumps(header).encode()
    if len(text) > DATA - _HEAD.size:
        raise ValueError(f"the header has {len(text):,} bytes; there is room for {DATA - _HEAD.size:,}")
    file.seek(0)
    file.write(_HEAD.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text)


def _bytes(buffer: Tensor) -> memoryview:
    return memoryview(buffer.numpy().data)


def _read_into(path: Path, place: int, buffer: Tensor) -> None:
    into = _bytes(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            done = 0
            while done < len(into):
                read = os.preadv(file.fileno(), [into[done:]], place + done)
                if read == 0:
                    raise StaleArena("it is shorter than its header says")
                done += read
    except OSError as error:
        raise StaleArena(f"it cannot be read: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
