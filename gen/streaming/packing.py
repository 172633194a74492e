"""A model's arena: read from its file in the cache folder, or packed from the checkpoint and written there.

A cache that cannot be used or written never stops the start: what is wrong is said in one line, and the weights are
packed in memory. Knows no model and no plan.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gen.errors import WeightsMissing
from gen.streaming import arena_file
from gen.streaming.arena import Arena, Entry, Layout, Read, host_buffer, pack
from gen.streaming.arena_file import StaleArena
from gen.streaming.cards import GIB
from gen.weight_file import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An entry to be packed."""

    name: str
    layout: Layout
    read: Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """All that makes one model's arena."""

    title: str  # the model's name, for people
    sources: Sequence[Source]
    files: Sequence[Path]  # of the checkpoint, the DiT's first
    about: dict[str, Any]  # what else decides the entries' bytes: the precision

    @property
    def layouts(self) -> dict[str, Layout]:
        """Every entry's layout, in order."""
        return {source.name: source.layout for source in self.sources}

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(source.layout.size for source in self.sources)


def open_arena(packing: Packing, *, cache: Path | None, device: torch.device) -> Arena:
    """The arena of a model; quantizes on `device`. Raise WeightsMissing when the checkpoint is at fault."""
    try:
        about = {"files": arena_file.fingerprint(packing.files)} | packing.about
    except OSError as error:
        raise WeightsMissing(f"{error.filename} cannot be read: {error.strerror}.") from error
    path = cache and cache / f"{packing.files[0].stem}-{packing.about['precision']}.arena"
    if path is not None and _is_there(path):
        try:
            return _read(packing, path, about)
        except StaleArena as error:
            log.warning("%s is packed again: %s.", path, error)
    return _pack(packing, path if path and _has_room(packing, path) else None, about, device=device)


def _is_there(path: Path) -> bool:
    """True if there is a file, once halves are swept away that lie beside it or alone.

    A folder that cannot be looked into has none, and writing there says why.
    """
    try:
        arena_file.sweep(path)
        return path.exists()
    except OSError:
        return False


def _read(packing: Packing, path: Path, about: dict[str, Any]) -> Arena:
    begun = time.perf_counter()
    with _bar(packing, "Loading") as bar:
        entries, digest = arena_file.read(path, about=about, layouts=packing.layouts, told=bar.update)
    log.info("%s: read %.1f GiB in %.1f s", path, packing.size / GIB, time.perf_counter() - begun)
    return Arena(entries, sha256=digest)


def _pack(packing: Packing, path: Path | None, about: dict[str, Any], *, device: torch.device) -> Arena:
    entries: list[Entry] = []
    with _bar(packing, "Packing") as bar, ThreadPoolExecutor(1, thread_name_prefix="sha256") as aside:
        digest = aside.submit(sha256, packing.files[0])
        if path is not None:
            try:
                with arena_file.writing(path, about=about, layouts=packing.layouts) as write:
                    for source in packing.sources:
                        entries.append(_packed(source, bar, device=device))
                        write(entries[-1])
                    about["sha256"] = digest.result()
            except OSError as error:
                _say_unwritten(path, error.strerror or str(error))
        rest = packing.sources[len(entries) :]  # if the file could not be written
        entries.extend(_packed(source, bar, device=device) for source in rest)
        return Arena(entries, sha256=digest.result())


def _packed(source: Source, bar: tqdm[Any], *, device: torch.device) -> Entry:
    entry = Entry(name=source.name, layout=source.layout, host=host_buffer(source.layout.size))
    pack(entry.layout, source.read, entry.host, device=device)
    bar.update(entry.layout.size)
    return entry


def _has_room(packing: Packing, path: Path) -> bool:
    needed = arena_file.file_size(packing.layouts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed <= free + (path.stat().st_size if path.exists() else 0):
            path.unlink()  # it is stale, and beside it there would never be room
            free = shutil.disk_usage(path.parent).free
    except OSError as error:
        _say_unwritten(path, error.strerror or str(error))
        return False
    if free < needed:
        _say_unwritten(path, f"it needs {needed / GIB:.1f} GiB, and {path.parent} has {free / GIB:.1f} GiB free")
    return free >= needed


def _say_unwritten(path: Path, reason: str) -> None:
    log.warning("The packed weights stay in memory, and each start packs them again: %s: %s.", path, reason)


def _bar(packing: Packing, verb: str) -> tqdm[Any]:
    return tqdm(
        total=packing.size, desc=f"{verb} {packing.title}", unit="B", unit_scale=True, leave=False, disable=None
    )
