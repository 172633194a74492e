"""What else DiffSynth's pipeline offers goes through streamed blocks: img2img, ControlNet, IP-Adapter's keys."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffsynth.models import flux_dit
from diffsynth.models.flux_controlnet import FluxControlNet
from diffsynth.models.general_modules import TimestepEmbeddings
from diffsynth.pipelines.flux_image import MultiControlNet
from diffsynth.utils.controlnet import ControlNetInput
from PIL import Image
from torch import Tensor, nn

from gen.flux import load_generator
from gen.streaming.planner import Rung
from gen.weights import DEMO_WEIGHTS, FluxShape
from tests.gen.engine_models import DemoEngine

PICTURE = Image.linear_gradient("L").resize((128, 128)).convert("RGB")


@pytest.fixture(scope="module")
def streamed() -> Iterator[DemoEngine]:
    made = DemoEngine()
    made.engine._settle(Rung(resident=(1, 5), slots=2, vae_tile=None))
    yield made
    made.generator.close()


@pytest.fixture(scope="module")
def plain() -> DemoEngine:
    """DiffSynth's own blocks, asked in the same way."""
    made = DemoEngine.__new__(DemoEngine)
    made.pipe = load_generator(DEMO_WEIGHTS, device="cpu")._pipe
    return made


class SmallControlNet(FluxControlNet):  # type: ignore[misc]
    """FluxControlNet at the demo model's size, with random weights."""

    def __init__(self, shape: FluxShape) -> None:
        nn.Module.__init__(self)
        dim = shape.dim
        self.pos_embedder = flux_dit.RoPEEmbedding(dim, 10000, list(shape.rope_axes))
        self.time_embedder, self.guidance_embedder = TimestepEmbeddings(256, dim), TimestepEmbeddings(256, dim)
        self.pooled_text_embedder = nn.Sequential(nn.Linear(shape.clip_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.context_embedder, self.x_embedder = nn.Linear(shape.t5_dim, dim), nn.Linear(64, dim)
        self.blocks = nn.ModuleList([flux_dit.FluxJointTransformerBlock(dim, shape.heads)])
        self.single_blocks = nn.ModuleList([flux_dit.FluxSingleTransformerBlock(dim, shape.heads)])
        self.controlnet_blocks, self.controlnet_single_blocks = (nn.ModuleList([nn.Linear(dim, dim)]) for _ in range(2))
        self.mode_dict: dict[str, int] = {}
        self.controlnet_mode_embedder = None
        self.controlnet_x_embedder = nn.Linear(64, dim)


def _both(streamed: DemoEngine, plain: DemoEngine, **asked: Any) -> tuple[Tensor, Tensor]:
    return streamed.latents(**asked), plain.latents(**asked)


def test_img2img_begins_from_a_picture(streamed: DemoEngine, plain: DemoEngine) -> None:
    mine, theirs = _both(streamed, plain, input_image=PICTURE, denoising_strength=0.5)
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.3)


def test_a_controlnet_steers_streamed_blocks(streamed: DemoEngine, plain: DemoEngine) -> None:
    torch.manual_seed(5)
    net = MultiControlNet([SmallControlNet(streamed.weights.shape).eval().requires_grad_(False)])
    asked = {"controlnet_inputs": [ControlNetInput(image=PICTURE, scale=0.7)]}
    for made in (streamed, plain):
        made.pipe.controlnet = net
    try:
        mine, theirs = _both(streamed, plain, **asked)
    finally:
        for made in (streamed, plain):
            made.pipe.controlnet = None
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.05)


def test_a_reference_picture_makes_the_sequence_longer(streamed: DemoEngine, plain: DemoEngine) -> None:
    mine, theirs = _both(streamed, plain, kontext_images=PICTURE)
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.05)
