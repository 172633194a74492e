"""Reads a picture's recipe back, from a file that anybody may have made: no pixel is decoded, all is checked.

Sizes are looked at before Pillow sees the file, text chunks are bounded before they are parsed, and what is found
becomes a `Recipe` only if it is one. Knows no model: whether it can be drawn here is the model's profile's business.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any

from PIL import Image, UnidentifiedImageError

from gen.errors import InvalidRequest
from gen.message import msg
from gen.png import Recipe
from gen.request import SIDE_MAX, ImageRequest, LoraUse, Variation

FILE_MAX_BYTES = 32 * 2**20  # a PNG of 2048x2048 has 12 MB and less
TEXT_MAX_CHARACTERS = 20_000  # of the JSON; the longest recipe has under 6,000
NAME_MAX_CHARACTERS = 200  # of the model, a version, a dtype
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "prompt": str,
    "seed": int,
    "width": int,
    "height": int,
    "steps": int,
    "guidance": (int, float),
    "negative": str,
    "cfg_scale": (int, float),
}
_ADDED = {"negative": "", "cfg_scale": 1.0, "loras": [], "variations": []}  # by Kiln since


def read_recipe(png: bytes) -> Recipe | None:
    """The recipe of a PNG file that Kiln drew; None for a picture without one.

    Raise InvalidRequest for what is no PNG, is larger than any picture of Kiln's, or has a recipe that is none.
    """
    texts = _texts(png)
    found = texts.get("kiln")
    if found is None:
        return None
    _check_length(found)
    try:
        told = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(msg("The picture's recipe is damaged: it is no JSON.")) from error
    if not isinstance(told, dict):
        raise InvalidRequest(msg("The picture's recipe is damaged: it is no JSON object."))
    return _recipe(told)


def read_parameters(png: bytes) -> str | None:
    """The line of settings that other programs write, as it stands there; None where there is none.

    Raise InvalidRequest as `read_recipe` does. Whoever shows it must make it inert.
    """
    found = _texts(png).get("parameters")
    if found is not None:
        _check_length(found)
    return found


def _texts(png: bytes) -> dict[str, str]:
    """The text chunks before the pixels, which are not decoded."""
    if len(png) > FILE_MAX_BYTES:
        raise InvalidRequest(
            msg("The file has {value:,} bytes; {most:,} is the most."), value=len(png), most=FILE_MAX_BYTES
        )
    if len(png) < 24 or not png.startswith(_SIGNATURE) or png[12:16] != b"IHDR":
        raise InvalidRequest(msg("This is not a PNG file."))
    width, height = struct.unpack(">II", png[16:24])
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX):
        raise InvalidRequest(
            msg("The picture has {width}x{height} pixels; {most}x{most} is the most."),
            width=width,
            height=height,
            most=SIDE_MAX,
        )
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            return {str(name): str(text) for name, text in picture.info.items() if isinstance(text, str)}
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:  # a bomb of text is a ValueError
        raise InvalidRequest(msg("This PNG file is damaged.")) from error


def _check_length(text: str) -> None:
    if len(text) > TEXT_MAX_CHARACTERS:
        raise InvalidRequest(
            msg("The picture's recipe has {value:,} characters; {most:,} is the most."),
            value=len(text),
            most=TEXT_MAX_CHARACTERS,
        )


def _recipe(told: dict[str, Any]) -> Recipe:
    told = {**_ADDED, **told}
    asked = {name: _value(told, name, kind) for name, kind in _KINDS.items()}
    loras = tuple(
        LoraUse(name=_value(one, "name", str), strength=float(_value(one, "strength", (int, float))))
        for one in _objects(told, "loras")
    )
    variations = tuple(
        Variation(seed=_value(one, "seed", int), share=float(_value(one, "share", (int, float))))
        for one in _objects(told, "variations")
    )
    asked |= {name: float(asked[name]) for name in ("guidance", "cfg_scale")}
    request = ImageRequest(**asked, loras=loras, variations=variations)
    return Recipe(
        request=request,
        model=_name(told, "model"),
        weights_sha256=_name(told, "weights_sha256"),
        dtype=_name(told, "dtype"),
        versions=_table(told.get("versions", {})),
        lora_sha256=_table(told.get("lora_sha256", {})),
    )


def _value(told: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = told.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidRequest(
            msg("The picture's recipe is damaged: {name} is {value!r}."), name=name, value=str(value)[:40]
        )
    if isinstance(value, int) and abs(value) >= 2**63:  # float() of it would fail
        raise InvalidRequest(msg("The picture's recipe is damaged: {name} is too large."), name=name)
    return value


def _objects(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    values = told.get(name)
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise InvalidRequest(msg("The picture's recipe is damaged: {name} is no list of objects."), name=name)
    return values


def _name(told: dict[str, Any], name: str) -> str:
    value: str = _value(told, name, str)
    if len(value) > NAME_MAX_CHARACTERS or not value.isprintable():
        raise InvalidRequest(msg("The picture's recipe is damaged: {name} is {value!r}."), name=name, value=value[:40])
    return value


def _table(told: Any) -> dict[str, str]:
    if not isinstance(told, dict) or len(told) > 20:
        raise InvalidRequest(msg("The picture's recipe is damaged: a table in it is none."))
    return {name[:NAME_MAX_CHARACTERS]: _name(told, name) for name in told}
