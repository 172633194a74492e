"""A small copy of a picture on disk, for lists. Knows no Discord and no queue."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from gen.png import BROKEN

SIDE = 256  # pixels at most
QUALITY = 80


def thumbnail(path: Path) -> bytes | None:
    """A WebP of 256 pixels a side at most; None where the picture's file is gone or damaged. Blocking."""
    file = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (SIDE, SIDE))
            small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(file, format="WEBP", quality=QUALITY)
    except BROKEN:
        return None
    return file.getvalue()
