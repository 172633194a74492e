"""How the demo looks: faces, and the pace. Style and script of its page are in `demo.css` and `demo.js`.

Knows no Discord, no bot and no server.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw

from gen.executor import Generator, Unfinished
from gen.request import ImageRequest, ModelProfile, StepReport

STEP_SECONDS = 0.25  # at least: alone on two cores the small model takes 0.05 s, and nobody would see a bar or a queue

FACES = {"Kiln": "#e8743b", "You": "#3ba55d", "Ada": "#8a5cf6", "Ben": "#c9922e"}  # colours
FACE_PIXELS = 128


def face(name: str) -> bytes:
    """The avatar of one of FACES, as PNG: a kiln for the bot, the first letter for people."""
    picture = Image.new("RGB", (FACE_PIXELS, FACE_PIXELS), FACES[name])
    draw = ImageDraw.Draw(picture)
    if name == "Kiln":
        draw.rounded_rectangle((26, 28, 102, 140), radius=38, fill="#5a2a16")
        draw.rounded_rectangle((42, 58, 86, 140), radius=22, fill="#ffb03a")
        draw.rounded_rectangle((53, 76, 75, 140), radius=11, fill="#fff3d6")
    else:
        middle = FACE_PIXELS // 2
        draw.text((middle, middle), name[0], fill="#ffffff", anchor="mm", font_size=72)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class Paced:
    """A generator that takes its time, as a large model does, so that progress and waiting can be watched."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def profile(self) -> ModelProfile:
        return self._generator.profile

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Draw with at least STEP_SECONDS a step; `seconds` of the result is the drawing alone, without the pauses."""
        began = time.perf_counter()
        paused = 0.0

        def unhurried(report: StepReport) -> None:
            nonlocal paused
            on_step(report)
            resting = time.perf_counter()
            time.sleep(max(0.0, began + report.step * STEP_SECONDS - resting))
            paused += time.perf_counter() - resting

        painted = self._generator.paint(request, on_step=unhurried)
        seconds = max(0.0, painted.seconds - paused)
        return Unfinished(seconds=seconds, finish=lambda: replace(painted.finish(), seconds=seconds))

    def close(self) -> None:
        self._generator.close()
