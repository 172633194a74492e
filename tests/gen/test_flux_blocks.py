"""Blocks as functions compute what DiffSynth's modules compute; so do adapters and masks; hoisted is direct."""

from typing import Any

import pytest
import torch
from diffsynth.models.flux_dit import FluxJointTransformerBlock, FluxSingleTransformerBlock, RoPEEmbedding
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gen.flux_blocks import Block, Operands, Streams, joint_block, single_block
from gen.shells import Handoff
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
    found, _ = _run(joint_block(HEADS, ExactSums()), block, (image, text), conditioning, rotation, *more)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_single_block_is_diffsynths(masked: bool, adapted: bool) -> None:
    block = _block(FluxSingleTransformerBlock)
    image, text, conditioning, rotation = _inputs()
    joined, more = torch.cat((text, image), dim=1), _more(masked, adapted, tokens=TEXT + IMAGE)
    wanted = block(joined, text, conditioning, rotation, more[0], ipadapter_kwargs_list=more[1])
    found, _ = _run(single_block(HEADS, ExactSums()), block, (joined, text), conditioning, rotation, *more)
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    assert found[1] is text


@pytest.mark.parametrize("kind", [FluxJointTransformerBlock, FluxSingleTransformerBlock])
def test_a_block_ends_with_what_the_next_one_begins_with(kind: type[nn.Module]) -> None:
    block = _block(kind)
    image, text, conditioning, rotation = _inputs()
    joint = kind is FluxJointTransformerBlock
    made = (joint_block if joint else single_block)(HEADS, ExactSums())
    streams = (image, text) if joint else (torch.cat((text, image), dim=1), text)
    following = _modulation(block, conditioning.flip(0) * 2)
    weights = dict(block.named_parameters())
    found, operands = _run(made, block, streams, conditioning, rotation, following=following)
    for left, begun in zip(operands, made.begin(weights, found, following), strict=True):
        assert torch.equal(left[0], begun[0])
    unlike = made.begin(weights, found, _modulation(block, conditioning))
    assert not torch.allclose(operands[0][0], unlike[0][0])


def _run(
    made: Block,
    block: nn.Module,
    streams: Streams,
    conditioning: Tensor,
    rotation: Tensor,
    *more: Any,
    following: Tensor | None = None,
) -> tuple[Streams, Operands]:
    """A block that nothing came before."""
    weights, row = dict(block.named_parameters()), _modulation(block, conditioning)
    begun = made.begin(weights, streams, row)
    return made.run(weights, streams, begun, row, row if following is None else following, rotation, *more)


def test_what_a_block_left_is_taken_once_and_only_with_the_very_streams_it_was_made_of() -> None:
    streams, operands = (torch.ones(1, 2, 3), torch.ones(1, 1, 3)), ((torch.zeros(1),),)
    handoff = Handoff()
    assert handoff.take(streams) is None
    handoff.leave(streams, operands)
    assert handoff.take(streams) is operands
    assert handoff.take(streams) is None
    handoff.leave(streams, operands)
    assert handoff.take((streams[0] + 0, streams[1])) is None  # as what adds a ControlNet's
    assert handoff.take(streams) is None
    handoff.leave(streams, operands)
    streams[0].add_(1)  # the same tensor with other values
    assert handoff.take(streams) is None
    handoff.leave(streams, operands)
    handoff.forget()
    assert handoff.take(streams) is None
    with torch.inference_mode():  # has no versions
        untold = torch.ones(1), torch.ones(1)
        handoff.leave(untold, operands)
        assert handoff.take(untold) is None


def _more(masked: bool, adapted: bool, *, tokens: int = IMAGE) -> tuple[Tensor | None, dict[str, Any] | None]:
    """A mask that hides some pairs, and an adapter's keys and values."""
    size = TEXT + IMAGE
    mask = torch.zeros(1, 1, size, size).masked_fill(torch.rand(size, size) < 0.3, -1e4) if masked else None
    keys = torch.randn(2, HEADS, 5, DIM // HEADS)
    return mask, {"ip_k": keys, "ip_v": keys.flip(2), "scale": 0.7} if adapted else None
