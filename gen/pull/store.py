"""Where models lie on the disk: ModelScope's cache holds the files, a folder for each model brings them together.

    <cache>/models/<owner>--<name>/snapshots/master/    a repository, kept by ModelScope's client
    <cache>/kiln/<model>/                               links to them in the layout of `gen.weights`, or real files
        kiln-files.json                                 each file's size and sha256: what `verify` compares with

So two models share their text encoders, and files that another program fetched or a person placed are used. Knows no
network.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gen.errors import WeightsMissing
from gen.weight_file import digest

LISTED = "kiln-files.json"
Progress = Callable[[str, int], None]  # a file's path in its model, and so many bytes more of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a model, as it must be."""

    path: str  # in the model's folder
    bytes: int
    sha256: str  # hex; empty while nobody has said or counted it
    source: str  # a repository's name, or the file that was given
    stated: bool = True  # the sum is the hub's; else it was counted when the file came here


class PullLocked(WeightsMissing):
    """Another process fills the same folder."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """ModelScope's cache: MODELSCOPE_CACHE, or `.cache/modelscope` at home, as its client has it."""
    return Path(environment.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope").expanduser().absolute()


def model_folder(cache: Path, name: str) -> Path:
    """Where a model's files come together."""
    return cache / "kiln" / name


def repository_folder(cache: Path, repository: str) -> Path:
    """Where ModelScope's client keeps a repository that it fetches."""
    return cache / "models" / repository.replace("/", "--") / "snapshots" / "master"


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Only one pull at a time; raise PullLocked, naming the other, or WeightsMissing where nothing can be written."""
    path = cache / "kiln" / ".pull.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WeightsMissing(
            f"The folder {path.parent} cannot be written: {error.strerror}. "
            "Set MODELSCOPE_CACHE to a folder on a disk with room."
        ) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read().strip() or "unknown"
            raise PullLocked(f"Another pull (process {holder}) fills {cache}: wait for its end, or stop it.") from error
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield  # the kernel lets go of the lock, however the process ends


def read_listed(folder: Path) -> list[Entry]:
    """What `pull` wrote down of a model's files; empty if it wrote nothing. Raise WeightsMissing for nonsense."""
    path = folder / LISTED
    if not path.exists():
        return []
    try:
        return [Entry(**entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, TypeError, ValueError) as error:
        raise WeightsMissing(f"{path} cannot be read: {error}. `kiln weights pull` writes it anew.") from error


def write_listed(folder: Path, entries: Iterable[Entry]) -> None:
    """Write it whole or not at all."""
    partial = folder / f"{LISTED}.partial"
    partial.write_text(json.dumps([asdict(entry) for entry in entries], indent=1), "utf-8")
    partial.replace(folder / LISTED)


def trouble(folder: Path, entry: Entry, progress: Progress) -> str:
    """What is wrong with a file of a model, in words; empty if it is there, as long as it must be, and its sum fits.

    Reads the whole file where its sum is known.
    """
    path = folder / entry.path
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry.bytes:
        return f"has {size:,} bytes and should have {entry.bytes:,}"
    if entry.sha256 and (found := digest(path, lambda count: progress(entry.path, count))) != entry.sha256:
        return f"is damaged: its sha256 is {found[:16]}…, and should be {entry.sha256[:16]}…"
    return ""


def is_own(folder: Path, path: str) -> bool:
    """Whether `pull` made the link at a path of a model's folder: into the cache, or to the file listed for it.

    Any other link, and any real file, is a person's.
    """
    place = folder / path
    if not place.is_symlink():
        return False
    target = Path(os.path.normpath(place.parent / place.readlink()))
    models = folder.parent.parent / "models"
    if target.is_relative_to(models) or target.is_relative_to(models.resolve()):  # the cache may be a link itself
        return True
    return str(target) in {entry.source for entry in _listed(folder) if entry.path == path}


def _listed(folder: Path) -> list[Entry]:
    try:
        return read_listed(folder)
    except WeightsMissing:  # damaged, and written anew
        return []


def link(folder: Path, sources: Mapping[str, Path]) -> None:
    """Put links into a model's folder, path → file, and take away its own to what no longer belongs to it."""
    for path, source in sources.items():
        place = folder / path
        if is_own(folder, path) or not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(place.name + ".partial")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(_from(place.parent, source, cache=folder.parent.parent))
            fresh.replace(place)
    for place in folder.rglob("*"):
        path = place.relative_to(folder).as_posix()
        if path not in sources and is_own(folder, path):
            place.unlink()


def _from(place: Path, source: Path, *, cache: Path) -> Path:
    """What a link in a folder says: relative within the cache, which may then be moved, or seen from a container."""
    return Path(os.path.relpath(source, place)) if source.is_relative_to(cache) else source
