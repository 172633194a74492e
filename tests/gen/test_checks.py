"""Every injected fault is found, and no picture of the demo model is taken for one. Previews look like the picture."""

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen.checks import check_latents, check_picture
from gen.errors import BadPicture
from gen.flux import build_pipeline, load_generator
from gen.preview import fit, jpeg, pixels
from gen.weights import DEMO_WEIGHTS, find_weights

PROMPTS = (
    "a red house at night",
    "two blue cars on a road",
    "a green tree on a hill",
    "a yellow sun over the sea",
    "a cat in snow",
    "three balls on a table",
)
SIZES = ("128x128", "192x128", "128x192")
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def pictures() -> Iterator[list[Image.Image]]:
    generator = load_generator(DEMO_WEIGHTS, device="cpu")
    made = []
    for seed in range(36):
        request = generator.profile.request(
            PROMPTS[seed % 6], seed=seed, size=SIZES[seed % 3], steps=4 + seed % 5, guidance=1.0 + seed % 8
        )
        made.append(Image.open(io.BytesIO(generator.draw(request, on_step=lambda _: None).png)).convert("RGB"))
    yield made
    generator.close()


@pytest.mark.slow
def test_no_picture_of_the_demo_model_is_taken_for_a_fault(pictures: list[Image.Image]) -> None:
    assert len(pictures) == 36
    for picture in pictures:
        check_picture(picture)


def _rows(random: np.random.Generator, size: tuple[int, int]) -> Pixels:
    colours = random.integers(0, 256, (size[0], 1, 3))
    return np.broadcast_to(colours, (*size, 3)).astype(np.uint8)


def _alternating(random: np.random.Generator, size: tuple[int, int]) -> Pixels:
    period = int(random.integers(2, 9))
    light = (np.arange(size[0]) // period % 2 * int(random.integers(60, 256)))[:, None, None]
    return np.broadcast_to(light, (*size, 3)).astype(np.uint8)


def _noisy(random: np.random.Generator, size: tuple[int, int]) -> Pixels:
    return np.clip(_rows(random, size) + random.normal(0, 3, (*size, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fault", [_rows, _alternating, _noisy])
@pytest.mark.parametrize("turned", [False, True])
def test_bands_are_found(fault: Callable[[np.random.Generator, tuple[int, int]], Pixels], turned: bool) -> None:
    for seed in range(15):
        pixels = fault(np.random.default_rng(seed), (128, 192))
        with pytest.raises(BadPicture, match="nothing but bands"):
            check_picture(Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1) if turned else pixels)))


@pytest.mark.parametrize("level", range(5, 256, 25))
def test_a_flat_colour_is_found_also_with_the_last_bits_noise(level: int) -> None:
    noise = np.random.default_rng(level).integers(0, 2, (64, 64, 3))
    with pytest.raises(BadPicture, match="one flat colour"):
        check_picture(Image.fromarray((np.minimum(level, 254) + noise).astype(np.uint8)))


@pytest.mark.parametrize("seed", range(10))
def test_black_is_found_also_with_the_last_bits_noise(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 2, (64, 64, 3)).astype(np.uint8)
    with pytest.raises(BadPicture, match="black picture"):
        check_picture(Image.fromarray(noise))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("seed", range(3))
def test_one_number_that_is_none_is_found_in_latents(value: float, seed: int) -> None:
    latents = torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(seed)).bfloat16()
    check_latents(latents)
    latents.view(-1)[seed * 5000] = value
    with pytest.raises(BadPicture, match="overflowed"):
        check_latents(latents)


def _sky() -> Pixels:
    return np.broadcast_to(np.linspace(40, 220, 128)[:, None, None], (128, 192, 3)).astype(np.uint8)


def _horizon() -> Pixels:
    return np.broadcast_to(np.where(np.arange(128) < 70, 200, 60)[:, None, None], (128, 192, 3)).astype(np.uint8)


def _dark_with_a_star() -> Pixels:
    pixels = np.zeros((128, 192, 3), dtype=np.uint8)
    pixels[20:24, 50:54] = 255
    return pixels


@pytest.mark.parametrize("plain", [_sky, _horizon, _dark_with_a_star])
def test_plain_pictures_are_pictures(plain: Callable[[], Pixels]) -> None:
    check_picture(Image.fromarray(plain()))


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Latents that the demo model drew, their pixels, and the preview's coefficients."""
    pipe = build_pipeline(find_weights(DEMO_WEIGHTS), device=torch.device("cpu"), dtype=torch.float32)
    found: list[Tensor] = []
    pipe.vae_decoder.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].clone()))
    pipe(
        prompt="a red house at night",
        seed=3,
        width=256,
        height=192,
        num_inference_steps=8,
        t5_sequence_length=64,
        progress_bar_cmd=lambda timesteps: timesteps,
    )
    latents = found[0]
    with torch.inference_mode():
        coefficients = fit(pipe.vae_decoder, device=torch.device("cpu"), dtype=torch.float32)
        return latents, pipe.vae_decoder(latents), coefficients


def test_a_preview_looks_like_the_picture(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    latents, picture, coefficients = drawn
    with Image.open(io.BytesIO(jpeg(pixels(latents, coefficients)))) as opened:
        shown = np.asarray(opened, dtype=np.float32)
    small = torch.nn.functional.avg_pool2d(picture.clip(-1, 1), 8)[0].permute(1, 2, 0).numpy()
    assert shown.shape == small.shape == (24, 32, 3)
    assert np.corrcoef(shown.ravel(), small.ravel())[0, 1] > 0.6


def test_a_preview_is_small_whatever_the_size(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    latents = torch.randn(1, 16, 192, 256)
    file = jpeg(pixels(latents, drawn[2]))
    with Image.open(io.BytesIO(file)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (160, 120))
    assert len(file) < 24_000


def test_the_fit_is_the_same_each_time_and_finds_a_linear_decoder() -> None:
    def decode(latents: Tensor) -> Tensor:
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2) * 0.1 + 0.05

    one, other = (fit(decode, device=torch.device("cpu"), dtype=torch.float32) for _ in range(2))
    assert torch.allclose(one, other, atol=1e-5)
    wanted = torch.zeros(17, 3)
    wanted[:3], wanted[16] = 0.1 * torch.eye(3), 0.05
    assert torch.allclose(one, wanted, atol=0.01)
