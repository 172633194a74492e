"""The picture as Discord receives it: the PNG where it fits, else smaller encodings of the same picture.

The original stays on disk whatever happens here. Knows no Discord and no queue.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file to attach."""

    name: str
    data: bytes


def largest_fitting(png: bytes, *, stem: str, limit: int) -> Upload | None:
    """Return the best encoding of `png` of at most `limit` bytes, None if there is none. Blocking.

    The order is PNG, lossless WebP, then WebP and JPEG that lose ever more.
    """
    if len(png) <= limit:
        return Upload(name=f"{stem}.png", data=png)
    with Image.open(io.BytesIO(png)) as picture:
        flat = picture.convert("RGB")
    for ending, encode in _ENCODINGS:
        data = encode(flat)
        if len(data) <= limit:
            return Upload(name=f"{stem}.{ending}", data=data)
    return None


def _encoder(form: str, **options: object) -> Callable[[Image.Image], bytes]:
    def encode(picture: Image.Image) -> bytes:
        file = io.BytesIO()
        picture.save(file, format=form, **options)
        return file.getvalue()

    return encode


_ENCODINGS = (
    ("webp", _encoder("WEBP", lossless=True)),
    ("webp", _encoder("WEBP", quality=92)),
    ("webp", _encoder("WEBP", quality=75)),
    ("jpg", _encoder("JPEG", quality=60)),
    ("jpg", _encoder("JPEG", quality=30)),
)
