"""A model on the card whose plan a test chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gen.engine import Options
from gen.flux import build_engine
from gen.generator import FluxGenerator
from gen.request import ImageRequest
from gen.streaming.planner import Rung, resting
from gen.streaming.sizes import Precision
from gen.weights import FluxShape, find_weights

ON_CARD = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")]
GIB = 2**30
EVERYTHING = resting(tuple(range(6)))
STREAMED = Rung(slots=2, vae_tile=None)


class Model:
    """A generator whose plan the test chooses."""

    def __init__(self, folder: Path, **options: object) -> None:
        usual = Options(
            device=torch.device("cuda", 0),
            dtype=torch.bfloat16,
            precision=Precision.FLOAT8,
            compiled=False,
            poison=True,
            cache=folder / "cache",
        )
        self.weights = find_weights(folder)
        pipe, self.engine = build_engine(self.weights, replace(usual, **options))  # type: ignore[arg-type]
        self.generator = FluxGenerator(self.weights, pipe, self.engine)

    @staticmethod
    def shape(folder: Path) -> FluxShape:
        return find_weights(folder).shape

    def ask(self, *, seed: int = 1, prompt: str = "a", size: str = "384x384", steps: int = 3) -> ImageRequest:
        return self.generator.profile.request(prompt, seed=seed, size=size, steps=steps)

    def latents(self, rung: Rung | None = None, **asked: object) -> torch.Tensor:
        """What the DiT made of one picture, float32 on the CPU."""
        if rung is not None:
            self.engine._settle(rung)
        kept: list[torch.Tensor] = []
        decoder = self.generator._pipe.vae_decoder
        watch = decoder.register_forward_pre_hook(lambda _, given: kept.append(given[0].float().cpu()))
        try:
            with torch.no_grad():
                self.generator._denoise(self.ask(**asked), lambda steps: steps)  # type: ignore[arg-type]
        finally:
            watch.remove()
        return kept[0]
