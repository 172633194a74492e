"""Drawing with a loaded pipeline: one request in, one PNG file out.

Lives on the one GPU thread. Knows DiffSynth's pipeline only by its call; `gen.flux` builds it. Knows no queue.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gen import __version__
from gen.checks import check_picture
from gen.demo.captions import unknown_words
from gen.engine import Engine
from gen.errors import BadPicture, OutOfMemory
from gen.executor import Unfinished
from gen.lora import Branches
from gen.lora_shelf import LoraShelf, merged
from gen.message import Message, msg
from gen.noise import initial_noise
from gen.png import Recipe, encode_png
from gen.preview import fit, pixels
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport
from gen.steps import Steps
from gen.streaming.planner import gib
from gen.streaming.sizes import Wanted
from gen.weight_file import sha256
from gen.weights import Weights

log = logging.getLogger(__name__)
SMALLER_PLAN = 0.85  # of the budget, for the second try when memory ran out


class FluxGenerator:
    """Draws with one loaded model. Built, used and closed on the GPU thread."""

    def __init__(self, weights: Weights, pipe: Any, engine: Engine | None = None, *, loras: Path | None = None) -> None:
        """`loras` is the folder of LoRA files; by default `loras` among the weights."""
        self._weights, self._pipe, self._engine = weights, pipe, engine
        self._loras = LoraShelf(loras or weights.folder / "loras", weights.shape)
        self._worn: Branches | None = None  # by the engine
        self._sha256 = engine.arena.sha256 if engine else sha256(weights.dit)
        with torch.no_grad():
            self._colours = fit(pipe.vae_decoder, device=torch.device(pipe.device), dtype=pipe.torch_dtype)
        packages = ("diffsynth", "torch", *(engine.packages if engine else ()))
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

        Raise InvalidRequest outside the model's limits or for a LoRA that is not there or does not fit, OutOfMemory, or
        BadPicture.
        """
        self.profile.check(request)
        started = time.perf_counter()
        with _memory_told(request.size), self._wearing(request):
            recipe = self._recipe(request)
            picture = self._drawn(request, self._steps(request, started, on_step))
        notice = self._notice(request.prompt)
        seconds = time.perf_counter() - started
        finish = partial(_finish, picture, recipe, seconds=seconds, notice=notice)
        return Unfinished(seconds=seconds, finish=finish)

    def close(self) -> None:
        """Free the model's memory."""
        engine, self._engine = self._engine, None
        del self._pipe
        if engine is not None:
            engine.close()
        del engine
        gc.collect()  # modules refer to each other, and the card's memory is wanted now
        if torch.cuda.is_available():
            torch._dynamo.reset()  # graphs of a model that is gone count toward the limit, behind which none is made
            torch.cuda.empty_cache()

    @contextmanager
    def _wearing(self, request: ImageRequest) -> Iterator[None]:
        """The model with the request's LoRAs: branches beside the engine's blocks, or merged where there is none."""
        branches = self._loras.branches(request.loras)
        if self._engine is None:
            with merged(self._pipe.dit, branches):
                yield
            return
        if branches is not self._worn:
            self._worn = {}  # nothing is that, so that after an error the next picture begins anew
            self._engine.adapt(branches)
            self._worn = branches
        yield

    def _drawn(self, request: ImageRequest, steps: Steps) -> Image.Image:
        """A picture that is one. Numbers that broke in float8 get one more try with exact sums."""
        try:
            picture = self._fitted(request, steps)
            check_picture(picture)
        except BadPicture as error:
            if self._engine is None or not self._engine.is_narrow:
                raise
            log.warning("%s It is drawn again with sums in bfloat16; precision bfloat16 has exact weights too.", error)
            with self._engine.exactly():
                picture = self._fitted(request, steps)
            check_picture(picture)
        return picture

    def _fitted(self, request: ImageRequest, steps: Steps) -> Image.Image:
        """Draw within the budget; where that was too small after all, once more with a smaller plan if there is one.

        Without one the first error is told: the planner's would name a budget that nobody chose.
        """
        if self._engine is None:
            return self._denoise(request, steps)
        prompts = 1 if request.cfg_scale == 1.0 else 2
        wanted = Wanted(width=request.width, height=request.height, steps=request.steps, prompts=prompts)
        try:
            with _memory_told(request.size), self._engine.running(wanted):
                return self._denoise(request, steps)
        except OutOfMemory as error:
            if not self._engine.has_plan(wanted, shrink=SMALLER_PLAN):
                raise
            log.warning("%s It is drawn again with a smaller plan.", str(error))  # a record may be kept, tensors not
        gc.collect()  # no frame holds the failed try's tensors any more, but cycles do
        self._engine.recover()
        with self._engine.running(wanted, shrink=SMALLER_PLAN):
            return self._denoise(request, steps)

    @torch.no_grad()  # not inference_mode: its tensors are of another kind to compiled graphs
    def _denoise(self, request: ImageRequest, steps: Steps) -> Image.Image:
        def noise(shape: tuple[int, ...], **_: Any) -> Tensor:
            made = initial_noise(shape, request.seed, request.variations)
            return made.to(self._pipe.device, self._pipe.torch_dtype)

        self._pipe.generate_noise = noise
        try:
            picture = self._pipe(
                prompt=request.prompt,
                negative_prompt=request.negative,
                cfg_scale=request.cfg_scale,
                seed=request.seed,
                width=request.width,
                height=request.height,
                num_inference_steps=request.steps,
                embedded_guidance=request.guidance,
                t5_sequence_length=self._weights.shape.t5_tokens,
                progress_bar_cmd=steps,
            )
        finally:
            self._pipe.model_fn.forget()
        assert isinstance(picture, Image.Image)
        return picture

    def _steps(self, request: ImageRequest, started: float, on_step: Callable[[StepReport], None]) -> Steps:
        def told(step: int, preview: bytes) -> None:
            seconds = time.perf_counter() - started
            on_step(StepReport(step=step, steps=request.steps, seconds=seconds, preview=preview or None))

        return Steps(told, look=self._look, device=torch.device(self._pipe.device))

    def _look(self) -> Tensor:
        """What the picture is going to be, (h, w, 3) uint8 on the device."""
        return pixels(self._pipe.model_fn.estimate, self._colours)

    def _recipe(self, request: ImageRequest) -> Recipe:
        return Recipe(
            request=request,
            model=self.profile.name,
            weights_sha256=self._sha256,
            lora_sha256={use.name: self._loras.sha256(use.name) for use in request.loras},
            dtype=str(self._pipe.torch_dtype).removeprefix("torch."),
            versions=self._versions,
        )

    def _notice(self, prompt: str) -> Message | None:
        """One line for the person who asked, where the model could not follow the whole prompt."""
        if self.profile.is_demo and (unknown := unknown_words(prompt)):
            return Message(
                msg("The small demo model does not know: {words}. README.md tells how to connect the real one."),
                words=", ".join(unknown[:3]),
            )
        limit = self._weights.shape.t5_tokens
        if len(self._pipe.tokenizer_2(prompt).input_ids) > limit:
            return Message(
                msg("The prompt is longer than the {limit} tokens that the model reads; its end had no effect."),
                limit=limit,
            )
        return None


@contextmanager
def _memory_told(size: str) -> Iterator[None]:
    """Raise OutOfMemory with its numbers where torch ran out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(size) from error


def _out_of_memory(size: str) -> OutOfMemory:
    """With the numbers behind it, where there is a card."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return OutOfMemory(msg("{size} needs more memory than there is."), size=size)
    free, total = torch.cuda.mem_get_info()
    return OutOfMemory(
        msg(
            "{size} needs more memory than there is: Kiln holds {held} of at most {limit}, {free} of {total} are free."
        ),
        size=size,
        held=gib(torch.cuda.memory_reserved()),
        limit=gib(round(torch.cuda.get_per_process_memory_fraction() * total)),
        free=gib(free),
        total=gib(total),
    )


def _finish(picture: Image.Image, recipe: Recipe, *, seconds: float, notice: Message | None) -> ImageResult:
    """Compress the picture, on any thread: 0.2 to 0.4 s for 1024x1024 (2 cores, 2026-11) that the GPU need not wait."""
    png = encode_png(picture, recipe)
    return ImageResult(
        png=png, sha256=hashlib.sha256(png).hexdigest(), seconds=seconds, model=recipe.model, notice=notice
    )
