"""Two pictures, pixel by pixel, in a sentence: identical, or how far off, and what was different about their making.

Blocking. Knows no Discord and no queue.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from bot.language import Say, msg
from gen.errors import InvalidRequest
from gen.png import BROKEN, Recipe
from gen.recipe_reader import read_recipe

_PARTS = {
    "model": msg("the model"),
    "weights_sha256": msg("its weights"),
    "lora_sha256": msg("a LoRA's file"),
    "dtype": msg("the precision"),
    "versions": msg("versions of programs"),
}


def compare(say: Say, first: Path, second: bytes) -> str:
    """How `second` compares with the picture in the file `first`."""
    try:
        before = first.read_bytes()
        with Image.open(io.BytesIO(before), formats=["PNG"]) as one, Image.open(io.BytesIO(second)) as other:
            told = _distance(say, one.convert("RGB"), other.convert("RGB"))
    except BROKEN:
        return say("the first picture's file is missing or damaged, so there is nothing to compare with")
    changed = [say(_PARTS[name]) for name in _differences(before, second)]
    if not changed:
        return told
    return say("{told}; what has changed since: {parts}", told=told, parts=say(", ").join(changed))


def _distance(say: Say, one: Image.Image, other: Image.Image) -> str:
    if one.size != other.size:
        return say(
            "not the same size: {first} and {second}",
            first="x".join(map(str, one.size)),
            second="x".join(map(str, other.size)),
        )
    difference = ImageChops.difference(one, other)
    if difference.getbbox() is None:
        return say("identical: every pixel is the same")
    worst = difference.split()[0]
    for channel in difference.split()[1:]:
        worst = ImageChops.lighter(worst, channel)
    same = worst.histogram()[0]
    return say(
        "not identical: {part:.1%} of the pixels differ, by {mean:.2f} of 255 on average, {most} at most",
        part=1 - same / (one.width * one.height),
        mean=sum(ImageStat.Stat(difference).mean) / 3,
        most=worst.getextrema()[1],
    )


def _differences(before: bytes, after: bytes) -> list[str]:
    """Which parts of the recipes differ, of those that nobody asked for."""
    recipes: list[Recipe | None] = []
    for png in (before, after):
        try:
            recipes.append(read_recipe(png))
        except InvalidRequest:
            return []
    old, new = recipes
    if old is None or new is None:
        return []
    return [name for name in _PARTS if getattr(old, name) != getattr(new, name)]
