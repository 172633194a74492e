"""Drawing with a loaded pipeline: one request in, one PNG file out.

Lives on the one GPU thread. Knows DiffSynth's pipeline only by its call; `gen.flux` builds it. Knows no queue.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gen import __version__
from gen.demo.captions import unknown_words
from gen.errors import BadPicture, OutOfMemory
from gen.executor import Unfinished
from gen.png import Recipe, encode_png
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport
from gen.weights import Weights, sha256

DEMO_HINT = "README.md tells how to connect the real one."


class FluxGenerator:
    """Draws with one loaded model. Built, used and closed on the GPU thread."""

    def __init__(self, weights: Weights, pipe: Any) -> None:
        self._weights, self._pipe = weights, pipe
        self._sha256 = sha256(weights.dit)
        packages = ("diffsynth", "torch")
        self._versions = {"kiln": __version__} | {name: importlib.metadata.version(name) for name in packages}

    @property
    def profile(self) -> ModelProfile:
        """The model's name, defaults and limits."""
        return self._weights.profile

    def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        """Paint one picture and compress it at once."""
        return self.paint(request, on_step=on_step).finish()

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Draw one picture to its pixels; call `on_step` after each step, and stop with whatever it raises.

        Raise InvalidRequest outside the model's limits, OutOfMemory, or BadPicture.
        """
        self.profile.check(request)
        started = time.perf_counter()
        picture = self._denoise(request, _Steps(request.steps, started, on_step))
        _check_picture(picture)
        recipe, notice = self._recipe(request), self._notice(request.prompt)
        seconds = time.perf_counter() - started
        finish = partial(_finish, picture, recipe, seconds=seconds, notice=notice)
        return Unfinished(seconds=seconds, finish=finish)

    def close(self) -> None:
        """Free the model's memory."""
        del self._pipe
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _denoise(self, request: ImageRequest, steps: _Steps) -> Image.Image:
        try:
            picture = self._pipe(
                prompt=request.prompt,
                seed=request.seed,
                width=request.width,
                height=request.height,
                num_inference_steps=request.steps,
                embedded_guidance=request.guidance,
                t5_sequence_length=self._weights.shape.t5_tokens,
                progress_bar_cmd=steps,
            )
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{request.size} needs more memory than this card has free.") from error
        assert isinstance(picture, Image.Image)
        return picture

    def _recipe(self, request: ImageRequest) -> Recipe:
        return Recipe(
            request=request,
            model=self.profile.name,
            weights_sha256=self._sha256,
            dtype=str(self._pipe.torch_dtype).removeprefix("torch."),
            versions=self._versions,
        )

    def _notice(self, prompt: str) -> str | None:
        """One line for the person who asked, where the model could not follow the whole prompt."""
        if self.profile.is_demo and (unknown := unknown_words(prompt)):
            words = ", ".join(unknown[:3])
            return f"The small demo model does not know: {words}. {DEMO_HINT}"
        limit = self._weights.shape.t5_tokens
        if len(self._pipe.tokenizer_2(prompt).input_ids) > limit:
            return f"The prompt is longer than the {limit} tokens that the model reads; its end had no effect."
        return None


def _finish(picture: Image.Image, recipe: Recipe, *, seconds: float, notice: str | None) -> ImageResult:
    """Compress the picture, on any thread: 0.2 to 0.4 s for 1024x1024 (2 cores, 2026-11) that the GPU need not wait."""
    png = encode_png(picture, recipe)
    return ImageResult(
        png=png, sha256=hashlib.sha256(png).hexdigest(), seconds=seconds, model=recipe.model, notice=notice
    )


def _check_picture(picture: Image.Image) -> None:
    """Raise BadPicture for one flat colour; numbers that broke on the way decode to black."""
    match picture.getcolors(maxcolors=1):
        case [(_, (0, 0, 0))]:
            raise BadPicture("The model drew a black picture: its weights are damaged, or its numbers overflowed.")
        case [_]:
            raise BadPicture("The model drew nothing but one flat colour; another seed may do better.")


class _Steps:
    """Stands where DiffSynth expects its progress bar: reports each finished step."""

    def __init__(self, steps: int, started: float, on_step: Callable[[StepReport], None]) -> None:
        self._steps, self._started, self._on_step = steps, started, on_step

    def __call__(self, timesteps: Iterable[Tensor]) -> Iterator[Tensor]:
        for step, timestep in enumerate(timesteps, start=1):
            yield timestep
            seconds = time.perf_counter() - self._started
            self._on_step(StepReport(step=step, steps=self._steps, seconds=seconds))
