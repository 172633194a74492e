"""The demo model through the streamed engine, on the CPU, with whatever plan a test chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gen.engine import Engine, Options
from gen.flux import build_engine
from gen.generator import FluxGenerator
from gen.request import ImageRequest
from gen.streaming.planner import Rung, resting
from gen.weights import DEMO_WEIGHTS, find_weights

CPU = torch.device("cpu")
EVERYTHING = resting(tuple(range(8)))
USUAL = Options(device=CPU, dtype=torch.float32, compiled=False, poison=True)


class DemoEngine:
    """A generator and its engine; slots are poisoned after every visit."""

    def __init__(self, **options: Any) -> None:
        torch.set_num_threads(1)
        self.weights = find_weights(DEMO_WEIGHTS)
        self.pipe, made = build_engine(self.weights, replace(USUAL, **options))
        self.engine: Engine = made
        self.generator = FluxGenerator(self.weights, self.pipe, made)

    def ask(self, *, seed: int = 1, prompt: str = "a red house", size: str = "128x128", steps: int = 2) -> ImageRequest:
        return self.generator.profile.request(prompt, seed=seed, size=size, steps=steps)

    def latents(self, rung: Rung | None = None, **more: Any) -> Tensor:
        """What the DiT makes of one picture; `more` goes to DiffSynth's pipeline."""
        if rung is not None:
            self.engine._settle(rung)
        kept: list[Tensor] = []
        watch = self.pipe.vae_decoder.register_forward_pre_hook(lambda _, given: kept.append(given[0].clone()))
        asked = {"prompt": "a red house", "seed": 1, "width": 128, "height": 128, "num_inference_steps": 2}
        try:
            with torch.no_grad():
                self.pipe(**asked | {"t5_sequence_length": 64, "progress_bar_cmd": lambda steps: steps} | more)
        finally:
            watch.remove()
        return kept[0]
