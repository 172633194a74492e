"""A recipe is read back from files that anybody may have made: nothing is decoded, and what is none is refused."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gen.errors import InvalidRequest
from gen.recipe_reader import read_parameters, read_recipe

TOLD = {
    "prompt": "a red house",
    "seed": 42,
    "width": 256,
    "height": 128,
    "steps": 12,
    "guidance": 3.5,
    "model": "m",
    "weights_sha256": "ab",
    "dtype": "float32",
    "versions": {"kiln": "1.2"},
}


def _png(size: tuple[int, int] = (32, 32), **texts: str) -> bytes:
    info, file = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_itxt(name, text)
    Image.new("RGB", size).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def _told(**changes: Any) -> bytes:
    return _png(kiln=json.dumps({**TOLD, **changes}))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _with_chunk(kind: bytes, data: bytes) -> bytes:
    png = _png()
    return png[:33] + _chunk(kind, data) + png[33:]


def test_a_recipe_of_an_older_kiln_lacks_what_did_not_exist_then() -> None:
    found = read_recipe(_told())
    assert found is not None
    assert (found.request.negative, found.request.cfg_scale, found.request.loras) == ("", 1.0, ())


def test_a_picture_without_a_recipe_has_none() -> None:
    assert read_recipe(_png()) is None
    assert read_parameters(_png()) is None


def test_another_programs_settings_are_read_as_they_are() -> None:
    assert read_parameters(_png(parameters="a cat\nSteps: 20")) == "a cat\nSteps: 20"


@pytest.mark.parametrize("data", [b"", b"just text", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40), b"<svg>" * 50])
def test_what_is_no_png_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a PNG file"):
        read_recipe(data)


@pytest.mark.parametrize("size", [(9999, 9999), (2**31 - 1, 1), (0, 5), (2049, 16)])
def test_a_picture_that_is_too_large_is_refused_before_anything_is_decoded(size: tuple[int, int]) -> None:
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    with pytest.raises(InvalidRequest, match=f"{size[0]}x{size[1]} pixels; 2048x2048 is the most"):
        read_recipe(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))


@pytest.mark.parametrize("kind", [b"iTXt", b"zTXt"])
def test_a_bomb_of_text_is_refused_unpacked_no_further_than_the_limit(kind: bytes) -> None:
    packed = zlib.compress(b"x" * 300_000_000)
    head = b"kiln\0\1\0\0\0" if kind == b"iTXt" else b"kiln\0\0"
    assert len(packed) < 400_000
    with pytest.raises(InvalidRequest, match="damaged"):
        read_recipe(_with_chunk(kind, head + packed))


def test_text_that_is_long_is_not_parsed() -> None:
    with pytest.raises(InvalidRequest, match="900,010 characters; 20,000 is the most"):
        read_recipe(_png(kiln="[" * 900_010))


def test_a_file_of_many_bytes_is_not_opened() -> None:
    with pytest.raises(InvalidRequest, match="bytes; 33,554,432 is the most"):
        read_recipe(_png() + bytes(2**25))


@pytest.mark.parametrize("length", [40, 60, 80])
def test_a_file_that_is_cut_off_is_damaged(length: int) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        read_recipe(_told()[:length])


@pytest.mark.parametrize("text", ["", "{", "[" * 15_000, "null", "[]", '"x"', "1" * 10_000, "NaN"])
def test_json_that_is_no_recipe_is_damaged(text: str) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        read_recipe(_png(kiln=text))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "42"}, "seed is '42'"),
        ({"seed": True}, "seed is 'True'"),
        ({"seed": 4.5}, "seed is '4.5'"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**80}, "seed is too large"),
        ({"guidance": 10**400}, "guidance is too large"),
        ({"guidance": float("nan")}, "guidance must be"),
        ({"guidance": float("inf")}, "guidance must be"),
        ({"steps": 10_000}, "steps must be from 1 to 50"),
        ({"width": None}, "width is 'None'"),
        ({"width": 130}, "multiple of 16"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "a\u202ehouse"}, "U\\+202E"),
        ({"prompt": "a\nSteps: 3"}, "U\\+000A"),
        ({"negative": "x" * 1001, "cfg_scale": 2}, "negative prompt may have 1,000"),
        ({"negative": "tree"}, "cfg_scale above 1"),
        ({"loras": {}}, "loras is no list"),
        ({"loras": ["ink"]}, "loras is no list"),
        ({"loras": [{"name": "../../etc/passwd", "strength": 1}]}, "no LoRA named"),
        ({"loras": [{"name": "ink"}]}, "strength is 'None'"),
        ({"loras": [{"name": f"a{n}", "strength": 1} for n in range(6)]}, "5 LoRAs at most; there are 6"),
        ({"variations": [{"seed": 1, "share": 2}]}, "share must be from"),
        ({"model": "x" * 201}, "model is"),
        ({"model": "a\u202eb"}, "model is"),
        ({"versions": []}, "table"),
        ({"versions": {"kiln": 1}}, "kiln is '1'"),
        ({"versions": {str(n): "1" for n in range(21)}}, "table"),
    ],
)
def test_a_value_that_is_none_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_recipe(_told(**changes))
