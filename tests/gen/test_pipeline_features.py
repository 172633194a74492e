"""What else DiffSynth's pipeline offers goes through streamed blocks: img2img, inpainting, ControlNet, IP-Adapter."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffsynth.models import flux_dit
from diffsynth.models.flux_controlnet import FluxControlNet
from diffsynth.models.flux_ipadapter import FluxIpAdapter
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
MASK = Image.new("RGB", (128, 128))
MASK.paste((255, 255, 255), (64, 0, 128, 128))  # the right half is to be drawn anew


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

    def __init__(self, shape: FluxShape, *, mask_inputs: int = 0) -> None:
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
        self.controlnet_x_embedder = nn.Linear(64 + mask_inputs, dim)


class SmallEyes(nn.Module):
    """Stands where an IP-Adapter's encoder of pictures does: (B, 3, 384, 384) → what it sees, (B, 1152)."""

    def forward(self, pictures: Tensor) -> SimpleNamespace:
        """Coarse pixels, which are not all of one size."""
        return SimpleNamespace(pooler_output=nn.functional.adaptive_avg_pool2d(pictures, (24, 16)).flatten(1))


Lend = Callable[..., None]


@pytest.fixture
def lend(streamed: DemoEngine, plain: DemoEngine) -> Iterator[Lend]:
    """Gives both pipelines, or a part of theirs, other parts for the length of a test."""
    usual: list[tuple[Any, str, Any]] = []

    def lent(of: str = "", **parts: Any) -> None:
        for made in (streamed, plain):
            owner = made.pipe.get_submodule(of)
            for name, part in parts.items():
                usual.append((owner, name, getattr(owner, name)))
                setattr(owner, name, part)

    yield lent
    for owner, name, part in usual:
        setattr(owner, name, part)


def _both(streamed: DemoEngine, plain: DemoEngine, **asked: Any) -> tuple[Tensor, Tensor]:
    return streamed.latents(**asked), plain.latents(**asked)


def test_img2img_begins_from_a_picture(streamed: DemoEngine, plain: DemoEngine) -> None:
    mine, theirs = _both(streamed, plain, input_image=PICTURE, denoising_strength=0.5)
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.3)


@pytest.mark.parametrize("mask", [None, MASK])
def test_a_controlnet_steers_streamed_blocks_also_one_that_inpaints(
    streamed: DemoEngine, plain: DemoEngine, lend: Lend, mask: Image.Image | None
) -> None:
    torch.manual_seed(5)
    net = SmallControlNet(streamed.weights.shape, mask_inputs=4 if mask else 0)  # a channel more, in 2x2 patches
    lend(controlnet=MultiControlNet([net.eval().requires_grad_(False)]))
    steering = ControlNetInput(image=PICTURE, inpaint_mask=mask, scale=0.7)
    mine, theirs = _both(streamed, plain, controlnet_inputs=[steering])
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.05)
    if mask is not None:
        other = replace(steering, inpaint_mask=mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        assert not torch.allclose(mine, streamed.latents(controlnet_inputs=[other]), atol=0.05)


def test_a_model_that_fills_inpaints(streamed: DemoEngine, plain: DemoEngine, lend: Lend) -> None:
    torch.manual_seed(6)
    wide = nn.Linear(384, streamed.weights.shape.dim).requires_grad_(False)  # latents, the picture's, and the mask
    lend("dit", x_embedder=wide)
    mine, theirs = _both(streamed, plain, flux_fill_image=PICTURE, flux_fill_mask=MASK)
    assert torch.allclose(mine, theirs, atol=1e-3)
    other = MASK.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert not torch.allclose(mine, streamed.latents(flux_fill_image=PICTURE, flux_fill_mask=other), atol=0.05)


def test_an_ip_adapter_speaks_to_streamed_blocks(streamed: DemoEngine, plain: DemoEngine, lend: Lend) -> None:
    torch.manual_seed(7)
    shape = streamed.weights.shape
    adapter = FluxIpAdapter(shape.heads, shape.dim // shape.heads, 16, 4, shape.joint_blocks + shape.single_blocks)
    lend(ipadapter=adapter.eval().requires_grad_(False), ipadapter_image_encoder=SmallEyes())
    mine, theirs = _both(streamed, plain, ipadapter_images=PICTURE, ipadapter_scale=0.7)
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.05)


def test_a_reference_picture_makes_the_sequence_longer(streamed: DemoEngine, plain: DemoEngine) -> None:
    mine, theirs = _both(streamed, plain, kontext_images=PICTURE)
    assert torch.allclose(mine, theirs, atol=1e-3)
    assert not torch.allclose(mine, streamed.latents(), atol=0.05)
