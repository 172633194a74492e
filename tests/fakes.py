"""Fakes of our own protocols: `FakeGenerator` draws small real PNG files, blocking, on the GPU thread."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from PIL import Image

from bot.queue.job import NewJob
from gen.errors import OutOfMemory
from gen.executor import Unfinished
from gen.message import Message
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport

FAKE_PROFILE = ModelProfile(
    name="fake",
    width=256,
    height=256,
    steps=4,
    guidance=3.5,
    side_min=128,
    side_max=512,
    pixels_max=512 * 512,
    is_demo=True,
)


def image_request(prompt: str = "a red house", **changes: object) -> ImageRequest:
    """A valid small request; name what should differ."""
    values: dict[str, object] = {"seed": 42, "width": 128, "height": 128, "steps": 4, "guidance": 3.5}
    return ImageRequest(prompt=prompt, **{**values, **changes})  # type: ignore[arg-type]


def new_job(interaction_id: int, *, user_id: int = 1, request: ImageRequest | None = None) -> NewJob:
    """A job as the command makes it, all ids but these the same."""
    return NewJob(
        interaction_id=interaction_id,
        user_id=user_id,
        guild_id=10,
        channel_id=20,
        request=request or image_request(),
    )


class Clock:
    """A clock that stands until it is moved; call it for the time."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        """Forward, or back."""
        self.time += timedelta(seconds=seconds)


class FakeGenerator:
    """Draws one flat colour per seed. A word in the prompt makes it misbehave.

    `broken` raises OutOfMemory at the second step, `bug` a KeyError, `exit` SystemExit, `stopiteration`
    StopIteration; `endless` steps until it is stopped; `stuck` blocks between two steps, deaf to everything, until
    `release` is set, and tells so with `stuck`; `crash` ends the process at once, like a driver's fault.
    """

    def __init__(
        self, *, seconds_per_step: float = 0.0, profile: ModelProfile = FAKE_PROFILE, preview: bytes | None = None
    ) -> None:
        self.profile, self.preview = profile, preview
        self.seconds_per_step = seconds_per_step
        self.stuck, self.release = threading.Event(), threading.Event()
        self.drawn: list[ImageRequest] = []  # finished, in order
        self.begun: list[ImageRequest] = []
        self.threads: list[str] = [threading.current_thread().name]  # where it was made, used, closed
        self.closed = False

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Draw; nothing is left to do then."""
        result = self.draw(request, on_step=on_step)
        return Unfinished(seconds=result.seconds, finish=lambda: result)

    def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        """Take the steps, misbehave if the prompt says so, and return a PNG file of the asked size."""
        self.threads.append(threading.current_thread().name)
        self.begun.append(request)
        began = time.perf_counter()
        step = 0
        while step < request.steps or "endless" in request.prompt:
            step += 1
            time.sleep(max(self.seconds_per_step, 0.001 if "endless" in request.prompt else 0.0))
            seconds = time.perf_counter() - began
            on_step(StepReport(step=step, steps=request.steps, seconds=seconds, preview=self.preview))
            if step == 1:
                self._misbehave(request)
        self.drawn.append(request)
        png = picture(request)
        return ImageResult(
            png=png,
            sha256=hashlib.sha256(png).hexdigest(),
            seconds=time.perf_counter() - began,
            model=self.profile.name,
            notice=Message("drawn by a fake") if "notice" in request.prompt else None,
        )

    def close(self) -> None:
        """Note that and where it happened."""
        self.threads.append(threading.current_thread().name)
        self.closed = True

    def _misbehave(self, request: ImageRequest) -> None:
        words = request.prompt.split()
        if "crash" in words:
            os._exit(139)
        if "stuck" in words:
            self.stuck.set()
            self.release.wait()
        if "broken" in words:
            raise OutOfMemory("The picture needs more memory than the card has.")
        for word, error in (("bug", KeyError), ("exit", SystemExit), ("stopiteration", StopIteration)):
            if word in words:
                raise error("as asked")


def picture(request: ImageRequest) -> bytes:
    """The PNG file that FakeGenerator draws for `request`."""
    file = io.BytesIO()
    red, green, blue = request.seed % 256, request.seed // 256 % 256, request.steps
    Image.new("RGB", (request.width, request.height), (red, green, blue)).save(file, format="PNG")
    return file.getvalue()
