"""One system's pictures, timed in their parts: prompt, steps, decoding, PNG. Knows no system and no files.

A system that calls back when it has queued a step is marked on the card, without waiting, so that measuring does not
slow what is measured. One that calls back when the card has done a step, with the next one queued already, is marked on
the host's clock: a mark on the card would come a step late, and the mean of all steps would lack one.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from PIL import Image

from gen.png import RLE

WARM_UP_STEPS = 2
FEWEST_STEPS = 3  # of a picture that counts: the first is told from prompt and tables by the others
_PROMPTS = (
    "a lighthouse on a cliff in a storm, oil painting",
    "two foxes asleep in the snow, photograph",
    "a teapot shaped like an elephant, product photo",
    "a night market in the rain, neon, wide shot",
)


class Draw(Protocol):
    """Draws one picture and calls `on_step` after each step."""

    def __call__(self, prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        """Return the PNG file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Seconds of one picture."""

    steps: int
    text: float  # from the call to the first step's beginning: prompt, noise, modulation
    step: float
    vae: float  # from the last step's end, without the PNG
    png: float
    whole: float
    first_step_at: float  # perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a row tells of a system's speed; seconds."""

    s_per_step: float
    text_s: float
    vae_s: float
    png_s: float
    picture_s: float  # with a new prompt; the median, or composed of the parts if fewer steps were drawn
    pictures_s: list[float]  # all that were drawn in full
    measured_steps: int


class Marks:
    """Moments on the card, or on the host's clock."""

    def __init__(self, *, on_card: bool) -> None:
        self._on_card = on_card
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def add(self) -> None:
        """Mark this moment."""
        self._times.append(time.perf_counter())
        if self._on_card:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._events.append(event)

    def seconds(self) -> list[float]:
        """Seconds from each mark to the next; waits for the card."""
        if self._on_card:
            torch.cuda.synchronize()
            pairs = zip(self._events, self._events[1:], strict=False)
            return [one.elapsed_time(other) / 1000 for one, other in pairs]
        return [other - one for one, other in zip(self._times, self._times[1:], strict=False)]


def measure(draw: Draw, *, steps: int, on_card: bool, seconds: float, pictures: int) -> tuple[Picture, Figures]:
    """The warm-up's picture, which compiles, and the figures of up to `pictures` more, within about `seconds`.

    `on_card`: steps are told when they have been queued there, not when they have been done. Where a picture would take
    longer than is left, fewer steps are drawn and its time is composed of its parts.
    """
    once = partial(_draw, draw, on_card=on_card)
    warm_up = once(0, steps=WARM_UP_STEPS)
    first = once(1, steps=min(steps, max(FEWEST_STEPS, int(seconds / warm_up.step))))
    drawn = [first, *_within(once, first, time.perf_counter() + seconds - first.whole, steps=steps, pictures=pictures)]
    whole = [picture.whole for picture in drawn if picture.steps == steps]
    used = [picture for picture in drawn if picture.steps == steps] or drawn
    step, text, vae, png = (
        statistics.median(getattr(picture, part) for picture in used) for part in ("step", "text", "vae", "png")
    )
    figures = Figures(
        s_per_step=step,
        text_s=text,
        vae_s=vae,
        png_s=png,
        picture_s=statistics.median(whole) if whole else text + steps * step + vae + png,
        pictures_s=whole,
        measured_steps=used[0].steps,
    )
    return warm_up, figures


def _within(
    once: Callable[..., Picture], first: Picture, ends_at: float, *, steps: int, pictures: int
) -> Iterator[Picture]:
    last = first
    for seed in range(2, pictures + 1):
        left = ends_at - time.perf_counter() - last.text - last.vae - last.png
        possible = min(steps, int(left / last.step))
        if possible < FEWEST_STEPS:
            return
        last = once(seed, steps=possible)
        yield last


def _draw(draw: Draw, seed: int, *, steps: int, on_card: bool) -> Picture:
    marks = Marks(on_card=on_card)
    first: list[float] = []

    def on_step() -> None:
        if not first:
            if on_card:
                torch.cuda.synchronize()
            first.append(time.perf_counter())
        marks.add()

    started = time.perf_counter()
    marks.add()
    png = draw(f"{_PROMPTS[seed % len(_PROMPTS)]}, number {seed}", seed=seed, steps=steps, on_step=on_step)
    marks.add()
    first_part, *between, tail = marks.seconds()
    whole = time.perf_counter() - started
    step = statistics.mean(between)
    encoding = _png_seconds(png)
    return Picture(
        steps=steps,
        text=max(0.0, first_part - step),
        step=step,
        vae=max(0.0, tail - encoding),
        png=encoding,
        whole=whole,
        first_step_at=first[0],
    )


def _png_seconds(png: bytes) -> float:
    """Seconds that encoding this picture takes, found by doing it again."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    started = time.perf_counter()
    encode(picture)
    return time.perf_counter() - started


def encode(picture: Image.Image) -> bytes:
    """The picture as Kiln itself compresses it, so that every system pays the same."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_type=RLE)
    return file.getvalue()
