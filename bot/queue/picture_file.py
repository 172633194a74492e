"""A picture's file: there whole or not at all. Knows no queue and no PNG."""

from __future__ import annotations

import os
from pathlib import Path


def write_picture(path: Path, png: bytes) -> Path:
    """Write the file so that it is there whole or not at all, also after a power loss; blocking."""
    new_folders = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    try:
        with half.open("wb") as file:
            file.write(png)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)
    for folder in (path.parent, *(new.parent for new in new_folders)):
        _sync_folder(folder)
    return path


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
