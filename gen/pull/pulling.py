"""One pull from end to end: what is needed, what is here, room and licence; then fetch, link, check and write down.

What a person placed in a model's folder is checked and used, and never replaced. Knows no command line: what it has to
say goes through a callback.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gen.errors import DownloadFailed, HubUnreachable, LicenceNotAccepted, WeightsMissing
from gen.pull import hub
from gen.pull.known import KNOWN, LICENCE, Model, Repository
from gen.pull.store import (
    Entry,
    Progress,
    is_own,
    link,
    locked,
    model_folder,
    read_listed,
    repository_folder,
    trouble,
    write_listed,
)
from gen.weight_file import digest
from gen.weights import Weights, check_dit, find_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How to go about it."""

    cache: Path
    accepted: bool  # the licence
    tell: Callable[[str], None]
    progress: Progress
    total: Callable[[int], None]  # bytes that `progress` will tell of next
    sleep: Callable[[float], None]


def pull(model: Model, order: Pull) -> Weights:
    """Bring a model here and check it; raise DownloadFailed, LicenceNotAccepted, PullLocked or WeightsMissing."""
    if model.dit is not None:
        check_dit(model.dit, model_folder(order.cache, model.name))  # before anything is fetched for its sake
    with locked(order.cache):
        _check_place(model, order.cache)
        try:
            listed = {repository: hub.list_files(repository) for repository in model.repositories}
        except HubUnreachable as error:
            raise HubUnreachable(f"{error}\n{by_hand(model, order.cache)}") from error
        folder = model_folder(order.cache, model.name)
        entries = [entry for files in listed.values() for entry in files]
        placed = {entry.path for entry in entries if _is_placed(folder, entry.path)}
        ahead = _say_what_comes(model, listed, placed, order)
        _check_placed(folder, [entry for entry in entries if entry.path in placed], order)
        order.total(ahead)
        sources: dict[str, Path] = {}
        for repository, files in listed.items():
            paths = [entry.path for entry in files if entry.path not in placed]
            if paths:
                base = hub.fetch(repository.name, paths, cache=order.cache, progress=order.progress, sleep=order.sleep)
                sources |= {path: base / path for path in paths}
        return _bring_together(model, entries, sources, order)


def find_offline(model: Model, order: Pull) -> Weights:
    """Make a model of what is here, asking no network; raise WeightsMissing with the list of what to place where."""
    with locked(order.cache):
        _check_place(model, order.cache)
        folder = model_folder(order.cache, model.name)
        known = {entry.path: entry for entry in read_listed(folder)}
        entries: dict[str, Entry] = {}
        sources: dict[str, Path] = {}
        for repository in model.repositories:
            for root in (folder, hub.cached(repository.name, order.cache)):  # what a person placed comes first
                for path, file in _files_here(root, repository):
                    if path not in entries:
                        fresh = Entry(path=path, bytes=file.stat().st_size, sha256="", source=repository.name)
                        entries[path] = known.get(path, fresh)
                        if root != folder or is_own(folder, path):
                            sources[path] = file.resolve()
        _check_known(folder, [entry for path, entry in entries.items() if path in known], order)
        try:
            return _bring_together(model, list(entries.values()), sources, order)
        except WeightsMissing as error:
            raise WeightsMissing(f"{error}\n{by_hand(model, order.cache)}") from error


def expected(folder: Path) -> list[Entry]:
    """What the hub says that the files of a folder which nobody pulled should be; raise as `hub.list_files` does."""
    names = {path.name for path in folder.glob("*.safetensors")}
    repositories = [
        repository
        for model in KNOWN.values()
        for repository in model.repositories
        if {file.path for file in repository.files} & names
    ]
    entries = {entry.path: entry for repository in dict.fromkeys(repositories) for entry in hub.list_files(repository)}
    return [entry for path, entry in entries.items() if (folder / path).is_file()]


def by_hand(model: Model, cache: Path) -> str:
    """What a person must place, and where."""
    folder = model_folder(cache, model.name)
    lines = [
        f"{file.path:<50} {size(file.about_bytes):>9}  of {repository.name}"
        for repository in model.repositories
        for file in repository.files
        if not (folder / file.path).exists()
    ]
    return "\n".join(
        [
            f"To do it by hand, place these files (sizes are about) in {folder}:",
            *(f"  {line}" for line in lines),
            f"and then run: kiln weights pull {model.dit or model.name} --offline",
        ]
    )


def size(count: int) -> str:
    """Bytes as people read them: 23.8 GB."""
    for unit, limit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def _check_place(model: Model, cache: Path) -> None:
    """Raise WeightsMissing if another file of the same name is that model already; one that is gone has moved."""
    if model.dit is None:
        return
    there = model_folder(cache, model.name) / model.dit.name
    if there.exists() and not there.samefile(model.dit):
        raise WeightsMissing(
            f"There is a model {model.name!r} already, and its file is {there.resolve()}, not {model.dit}: nothing was "
            f"changed. Rename your file, or remove {there} if it is to take that place."
        )


def _say_what_comes(model: Model, listed: dict[Repository, list[Entry]], placed: set[str], order: Pull) -> int:
    """Sizes, room and licence, before anything starts; raise if it must not. The bytes of all files not whole yet."""
    folder = model_folder(order.cache, model.name)
    order.tell(f"{model.name}, {model.about}, into {folder}")
    missing = ahead = 0
    for repository, entries in listed.items():
        for entry in entries:
            there = entry.bytes if entry.path in placed else _fetched(order.cache, repository, entry)
            missing += entry.bytes - there
            ahead += entry.bytes if there < entry.bytes else 0  # the client tells of what it had, too
            note = "is here" if there == entry.bytes else f"{size(there)} are here" if there else ""
            order.tell(f"  {entry.path:<50} {size(entry.bytes):>9}  {note}".rstrip())
    free = shutil.disk_usage(order.cache).free
    order.tell(f"To fetch: {size(missing)}. Free on that disk: {size(free)}.")
    if missing and not order.accepted:
        order.tell(LICENCE)
        raise LicenceNotAccepted(
            "Nothing was fetched. If you accept the licence, add --accept-licence: "
            f"kiln weights pull {model.dit or model.name} --accept-licence"
        )
    if missing > free:
        raise DownloadFailed(
            f"{size(missing)} are to be fetched and {size(free)} are free on the disk of {order.cache}. "
            "Make room, or set MODELSCOPE_CACHE to a folder on another disk."
        )
    return ahead


def _fetched(cache: Path, repository: Repository, entry: Entry) -> int:
    """How many bytes of a file the client has already; never more than the file's own."""
    base = hub.cached(repository.name, cache) or repository_folder(cache, repository.name)
    whole, begun = base / entry.path, base / f"{entry.path}.incomplete"
    if whole.is_file() and whole.stat().st_size == entry.bytes:
        return entry.bytes
    return min(begun.stat().st_size, entry.bytes) if begun.is_file() else 0


def _is_placed(folder: Path, path: str) -> bool:
    """Whether a person put a file there, or a link to one; a link that leads nowhere is theirs to mend."""
    return os.path.lexists(folder / path) and not is_own(folder, path)


def _check_placed(folder: Path, entries: list[Entry], order: Pull) -> None:
    order.total(sum(entry.bytes for entry in entries))
    for entry in entries:
        if wrong := trouble(folder, entry, order.progress):
            raise WeightsMissing(
                f"{folder / entry.path} is not the file that the hub has: it {wrong}. It is yours, so it was not "
                "replaced: move it away and pull again, or draw with a folder of your own by KILN_WEIGHTS."
            )


def _check_known(folder: Path, entries: list[Entry], order: Pull) -> None:
    order.total(sum(entry.bytes for entry in entries))
    for entry in entries:
        if wrong := trouble(folder, entry, order.progress):
            raise WeightsMissing(f"{folder / entry.path} {wrong}: pull again with a network, or place it anew.")


def _bring_together(model: Model, entries: list[Entry], sources: dict[str, Path], order: Pull) -> Weights:
    """Link, check shapes, count the sums that nobody stated, and write them down."""
    folder = model_folder(order.cache, model.name)
    folder.mkdir(parents=True, exist_ok=True)
    if model.dit is not None:
        path = model.dit.name
        sources = {**sources, path: model.dit}
        entries = [*entries, Entry(path=path, bytes=model.dit.stat().st_size, sha256="", source=str(model.dit))]
    link(folder, sources)
    weights = find_weights(folder)
    unsaid = [entry for entry in entries if not entry.sha256]
    order.total(sum(entry.bytes for entry in unsaid))
    write_listed(folder, [_counted(folder, entry, order.progress) for entry in entries])
    return weights


def _counted(folder: Path, entry: Entry, progress: Progress) -> Entry:
    if entry.sha256:
        return entry
    found = digest(folder / entry.path, lambda count: progress(entry.path, count))
    return replace(entry, sha256=found, bytes=(folder / entry.path).stat().st_size, stated=False)


def _files_here(root: Path | None, repository: Repository) -> list[tuple[str, Path]]:
    """The files of a repository in a folder: path in the repository, and file."""
    if root is None or not root.is_dir():
        return []
    files = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*")) if path.is_file()]
    return [(path, file) for path, file in files if hub.is_wanted(path, repository.patterns)]
