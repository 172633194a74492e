"""Blocks as functions compute what DiffSynth's modules compute; so do adapters and masks; hoisted is direct."""

from typing import Any

import pytest
import torch
from diffsynth.models.flux_dit import FluxJointTransformerBlock, FluxSingleTransformerBlock, RoPEEmbedding
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gen.flux_blocks import joint_block, single_block
from gen.sums import ExactSums

DIM, HEADS, TEXT, IMAGE = 64, 4, 6, 12


def _block(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    block = kind(DIM, HEADS)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    return block.eval().requires_grad_(False)


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(4)
    ids = torch.randint(0, 9, (1, TEXT + IMAGE, 3)).float()
    rotation = RoPEEmbedding(DIM, 10000, [4, 6, 6])(ids)
    return torch.randn(2, IMAGE, DIM), torch.randn(2, TEXT, DIM), torch.randn(2, DIM), rotation


def _modulation(block: nn.Module, conditioning: Tensor) -> Tensor:
    """Outputs of the block's own modulation linears, side by side."""
    active = F.silu(conditioning)
    return torch.cat([m(active) for name, m in block.named_modules() if name.endswith("linear")], dim=-1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_joint_block_is_diffsynths(masked: bool, adapted: bool) -> None:
    block = _block(FluxJointTransformerBlock)
    image, text, conditioning, rotation = _inputs()
    more = _more(masked, adapted)
    wanted = block(image, text, conditioning, rotation, more[0], ipadapter_kwargs_list=more[1])
    weights = dict(block.named_parameters())
    found = joint_block(HEADS, ExactSums())(weights, (image, text), _modulation(block, conditioning), rotation, *more)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_single_block_is_diffsynths(masked: bool, adapted: bool) -> None:
    block = _block(FluxSingleTransformerBlock)
    image, text, conditioning, rotation = _inputs()
    joined, more = torch.cat((text, image), dim=1), _more(masked, adapted, tokens=TEXT + IMAGE)
    wanted = block(joined, text, conditioning, rotation, more[0], ipadapter_kwargs_list=more[1])
    weights = dict(block.named_parameters())
    found = single_block(HEADS, ExactSums())(weights, (joined, text), _modulation(block, conditioning), rotation, *more)
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    assert found[1] is text


def _more(masked: bool, adapted: bool, *, tokens: int = IMAGE) -> tuple[Tensor | None, dict[str, Any] | None]:
    """A mask that hides some pairs, and an adapter's keys and values."""
    size = TEXT + IMAGE
    mask = torch.zeros(1, 1, size, size).masked_fill(torch.rand(size, size) < 0.3, -1e4) if masked else None
    keys = torch.randn(2, HEADS, 5, DIM // HEADS)
    return mask, {"ip_k": keys, "ip_v": keys.flip(2), "scale": 0.7} if adapted else None
