"""Training the demo model's VAE: pictures ↔ latents of 16 channels at an eighth of the size.

L1 at three scales, squares and the worst patch against specks, a light KL term, and a penalty that keeps halved
latents decoding to halved pictures, which makes them easier to learn for the DiT (Kouzelis et al., "EQ-VAE", 2025).
Knows pixels only, no captions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d

from gen.demo.descent import Descent, one_cycle
from gen.demo.graphed import Graphed
from gen.demo.report import Log

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Steps, batch and weights of the VAE's losses."""

    steps: int = 4000  # every other one on whole pictures, so that the group norms see what they will see
    minutes: float | None = None  # train for this long instead
    crop: int = 128  # pixels
    crop_batch: int = 48  # small: steps count for more than pictures
    full_batch: int = 16
    learning_rate: float = 1e-3
    kl_weight: float = 3e-4
    half_weight: float = 0.1
    square_weight: float = 1.0
    worst_weight: float = 0.03  # of the worst patch: means forgive a speck in which group norms hide what they count
    large_share: float = 0.25  # how often whole pictures above 256x256 come, by their number
    ema: float = 0.998


def train_vae(encoder: Any, decoder: Any, pixels: Mapping[Size, Tensor], *, config: VAEConfig, log: Log) -> None:
    """Train both in place and leave them with averaged weights and latents of unit variance.

    `pixels` holds (N, H, W, 3) uint8 per size, on the device of the models.
    """
    losses_of = _Losses(encoder, decoder)
    parameters = dict(losses_of.named_parameters())
    descent = Descent(parameters, ema=config.ema, together=False, betas=(0.9, 0.99), weight_decay=1e-3)

    def learn(batch: Tensor) -> Tensor:
        losses = losses_of.in_half_the_bytes(batch, config) if batch.is_cuda else losses_of(batch, config)
        weighted = torch.stack(list(losses.values()))
        descent(weighted.sum())
        return weighted.detach()

    take, started = Graphed(learn, log=log), time.perf_counter()
    step, progress = 0, 0.0
    while progress < 1:
        step += 1
        descent.prepare(config.learning_rate * one_cycle(progress, rise=0.05), step)
        figures = take(_batch(pixels, config, whole=step % 2 == 0))
        seconds = time.perf_counter() - started
        progress = seconds / 60 / config.minutes if config.minutes else step / config.steps
        if step % 50 == 0 or progress >= 1:
            told = dict(zip(_Losses.NAMES, figures.tolist(), strict=True))
            log.add("vae", step=step, seconds=seconds, **told)
    descent.keep_average()
    with torch.no_grad():
        _normalize(encoder, decoder, pixels)


class _Losses(nn.Module):
    """Weighted losses of one batch (B, 3, H, W) in [-1, 1], by name."""

    NAMES = ("error", "square", "worst", "kl", "half")

    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def in_half_the_bytes(self, batch: Tensor, config: VAEConfig) -> dict[str, Tensor]:
        """Compute in bfloat16 throughout, norms too, which autocast would not; gradients reach the float32 weights."""
        light = {name: parameter.to(torch.bfloat16) for name, parameter in self.named_parameters()}
        losses: dict[str, Tensor] = functional_call(self, light, (batch.to(torch.bfloat16), config))
        return losses

    def forward(self, batch: Tensor, config: VAEConfig) -> dict[str, Tensor]:
        mean, log_variance = moments(self.encoder, batch)
        raw = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        latents = (raw - self.encoder.shift_factor) * self.encoder.scaling_factor
        picture, half = self.decoder(latents).float(), self.decoder(avg_pool2d(latents, 2)).float()
        error = sum((_pool(picture, n) - _pool(batch.float(), n)).abs().mean() for n in (1, 2, 4)) / 2
        kl = 0.5 * (mean.float() ** 2 + log_variance.float().exp() - 1 - log_variance.float()).mean()
        half_error = (half - avg_pool2d(batch.float(), 2)).abs().mean()
        off = picture - batch.float()
        worst = avg_pool2d(off.abs().mean(1, keepdim=True), 8).amax((1, 2, 3)).mean()
        values = (
            error,
            config.square_weight * off.square().mean(),
            config.worst_weight * worst,
            config.kl_weight * kl,
            config.half_weight * half_error,
        )
        return dict(zip(self.NAMES, values, strict=True))


def moments(encoder: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance (B, 16, H/8, W/8) of the raw latents; the encoder's own forward keeps the mean only."""
    hidden = encoder.conv_in(pictures)
    for block in encoder.blocks:
        hidden = block(hidden, None, None, None)[0]
    both = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden)))
    mean, log_variance = both.chunk(2, dim=1)
    return mean, log_variance.clamp(-20, 5)


def to_pictures(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def psnr(encoder: Any, decoder: Any, pixels: Tensor) -> float:
    """Mean peak signal to noise ratio, in dB, of pictures (N, H, W, 3) uint8 after encoding and decoding."""
    pictures = to_pictures(pixels)
    error = ((decoder(encoder(pictures)).clamp(-1, 1) - pictures) / 2).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def _batch(pixels: Mapping[Size, Tensor], config: VAEConfig, *, whole: bool) -> Tensor:
    sizes = list(pixels)
    shares = [config.large_share if whole and w * h > 65536 else 1.0 for w, h in sizes]
    weights = torch.tensor([share * len(pixels[size]) for share, size in zip(shares, sizes, strict=True)])
    source = pixels[sizes[int(torch.multinomial(weights, 1))]]
    _, height, width, _ = source.shape
    if whole:
        number = max(1, config.full_batch * 65536 // (height * width))
        return to_pictures(source[torch.randint(len(source), (number,), device=source.device)])
    picked = source[torch.randint(len(source), (config.crop_batch,), device=source.device)]
    top = int(torch.randint((height - config.crop) // 8 + 1, ())) * 8
    left = int(torch.randint((width - config.crop) // 8 + 1, ())) * 8
    return to_pictures(picked[:, top : top + config.crop, left : left + config.crop])


def _pool(pictures: Tensor, factor: int) -> Tensor:
    return pictures if factor == 1 else avg_pool2d(pictures, factor)


def _normalize(encoder: Any, decoder: Any, pixels: Mapping[Size, Tensor]) -> None:
    """Scale the latents to unit variance, the decoder's first layer undoing it, so that nothing else changes."""
    largest = max(pixels.values(), key=len)
    latents = torch.cat([encoder(to_pictures(part)) for part in torch.split(largest[:1024], 64)])
    scale = float(1 / latents.std())
    encoder.conv_out.weight[:16] *= scale
    encoder.conv_out.bias[:16] *= scale
    decoder.conv_in.weight /= scale
