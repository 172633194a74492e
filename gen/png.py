"""A picture as a PNG file with its recipe inside. Knows Pillow's pictures, no model and no files.

Two text chunks: `parameters`, the line that other tools read (the A1111 web UI's format), and `kiln`, the same as
JSON with all that is needed to draw the picture again. No time, so that the same recipe gives the same bytes.
`gen.recipe_reader` reads them back.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gen.request import ImageRequest

# What Pillow raises for a file that is missing, no picture, or no whole one.
BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
RLE = 3  # zlib's strategy for pictures: four times as fast as the usual one, in as many bytes (1024x1024, 2026-11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a picture depends on."""

    request: ImageRequest
    model: str
    weights_sha256: str  # of the DiT's file
    dtype: str  # of the computation, such as "float32"
    versions: dict[str, str]  # package -> version
    lora_sha256: dict[str, str] = field(default_factory=dict)  # name -> of its file

    def as_parameters(self) -> str:
        """The recipe in the A1111 web UI's format."""
        request = self.request
        settings = {
            "Steps": request.steps,
            "Sampler": "Euler",
            "CFG scale": f"{request.cfg_scale:g}",
            "Distilled CFG Scale": f"{request.guidance:g}",
            "Seed": request.seed,
            "Size": request.size,
            "Model hash": self.weights_sha256[:10],
            "Model": self.model,
        }
        if request.variations:
            settings["Variations"] = " ".join(f"{one.seed}:{one.share:g}" for one in request.variations)
        settings["Version"] = f"Kiln {self.versions.get('kiln', '?')}"
        words = "".join([request.prompt, *(f" <lora:{use.name}:{use.strength:g}>" for use in request.loras)])
        avoided = [f"Negative prompt: {request.negative}"] if request.negative else []
        return "\n".join([words, *avoided, ", ".join(f"{name}: {value}" for name, value in settings.items())])

    def as_json(self) -> str:
        """The recipe as one JSON object, keys sorted."""
        rest: dict[str, Any] = asdict(self)
        flat = {**rest.pop("request"), **rest, "size": self.request.size}
        return json.dumps(flat, ensure_ascii=False, sort_keys=True)


def encode_png(picture: Image.Image, recipe: Recipe) -> bytes:
    """The PNG file of an RGB picture; the same picture and recipe give the same bytes."""
    text = PngInfo()
    text.add_text("parameters", recipe.as_parameters())
    text.add_itxt("kiln", recipe.as_json())
    file = io.BytesIO()
    picture.save(file, format="PNG", pnginfo=text, compress_type=RLE)
    return file.getvalue()
