"""Pictures decoded in tiles are those that are decoded at once, and no edge shows, on the demo model's own latents."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from gen.flux import build_pipeline
from gen.vae import _blend, _fades, _spans, decode_tiled, seam
from gen.weights import DEMO_WEIGHTS, find_weights


@pytest.fixture(scope="module")
def decoder() -> Iterator[nn.Module]:
    with torch.inference_mode():
        pipe = build_pipeline(find_weights(DEMO_WEIGHTS), device=torch.device("cpu"), dtype=torch.float32)
        yield pipe.vae_decoder


@pytest.fixture(scope="module")
def latents() -> Tensor:
    """What the demo model denoises to in eight steps, 256x384."""
    pipe = build_pipeline(find_weights(DEMO_WEIGHTS), device=torch.device("cpu"), dtype=torch.float32)
    found: list[Tensor] = []
    pipe.vae_decoder.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].clone()))
    pipe(
        prompt="a red house at night",
        seed=1,
        width=384,
        height=256,
        num_inference_steps=8,
        t5_sequence_length=64,
        progress_bar_cmd=lambda timesteps: timesteps,
    )
    return found[0]


def _psnr(picture: Tensor, reference: Tensor) -> float:
    error = (picture.clip(-1, 1) - reference.clip(-1, 1)).square().mean() / 4
    return float(-10 * error.log10())


@torch.inference_mode()
def test_tiles_are_nearer_to_the_whole_than_tiles_with_norms_of_their_own(decoder: nn.Module, latents: Tensor) -> None:
    whole = decoder(latents)
    tiled, plain = decode_tiled(decoder, latents, tile=192), _blend(decoder, latents, 24)
    assert _psnr(tiled, whole) > 33
    assert _psnr(tiled, whole) > _psnr(plain, whole) + 1


@torch.inference_mode()
def test_no_edge_shows_where_bare_tiles_show_theirs(decoder: nn.Module, latents: Tensor) -> None:
    whole, bare = decoder(latents), torch.zeros(1, 3, 256, 384)
    for left in (0, 192):
        bare[..., left : left + 192] = decoder(latents[..., left // 8 : left // 8 + 24])
    jump = (bare - whole)[0, :, :, 191:193].diff(dim=-1).abs().mean() * 127.5
    assert seam(decode_tiled(decoder, latents, tile=192), whole, tile=192) < 1.5 < float(jump)


@torch.inference_mode()
def test_a_seam_is_seen_where_there_is_one() -> None:
    flat, stepped = torch.zeros(1, 3, 256, 384), torch.zeros(1, 3, 256, 384)
    (_, edge), *_ = _spans(48, 24)
    stepped[..., edge * 8 :] = 10 / 127.5
    assert seam(flat, flat, tile=192) == 0
    assert seam(stepped, flat, tile=192) == pytest.approx(10)


@torch.inference_mode()
def test_one_tile_that_holds_all_is_the_picture_bit_for_bit(decoder: nn.Module, latents: Tensor) -> None:
    part = latents[..., :16, :16]
    assert torch.equal(decode_tiled(decoder, part, tile=128), decoder(part))
    assert torch.equal(decode_tiled(decoder, part, tile=None), decoder(part))


@torch.inference_mode()
def test_the_decoder_is_as_before_afterwards(decoder: nn.Module, latents: Tensor) -> None:
    before = decoder(latents[..., :16, :16])
    decode_tiled(decoder, latents, tile=192)
    assert torch.equal(decoder(latents[..., :16, :16]), before)


class Upscaler(nn.Module):
    """A decoder without norms whose pixels depend on their latent alone."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)


@pytest.mark.parametrize(("height", "width"), [(9, 48), (48, 17), (33, 47), (64, 64), (16, 16), (128, 16)])
def test_blended_tiles_of_every_size_add_up_to_the_picture(height: int, width: int) -> None:
    latents = torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(1))
    for tile in (64, 128, 192):
        assert torch.allclose(decode_tiled(Upscaler(), latents, tile=tile), Upscaler()(latents), atol=1e-5)


@pytest.mark.parametrize(("length", "side"), [(24, 24), (25, 24), (48, 24), (127, 32), (1000, 64)])
def test_tiles_cover_all_overlap_by_a_quarter_and_fade_to_one(length: int, side: int) -> None:
    spans = list(_spans(length, side))
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - start == side for start, end in spans)
    assert all(one[1] - other[0] >= side // 4 - 1 for one, other in pairwise(spans))
    total = torch.zeros(length * 8)
    for (start, end), fade in zip(spans, _fades(spans, torch.device("cpu")), strict=True):
        total[start * 8 : end * 8] += fade
    assert torch.allclose(total, torch.ones_like(total))


def test_a_tile_too_small_to_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="64 pixels a side at least; it is 32"):
        decode_tiled(Upscaler(), torch.zeros(1, 16, 32, 32), tile=32)
