"""Training the demo model's VAE: pictures ↔ latents of 16 channels at an eighth of the size.

L1 at three scales, a light KL term, and a penalty that keeps halved latents decoding to halved pictures, which makes
them easier to learn for the DiT (Kouzelis et al., "EQ-VAE", 2025). Knows pixels only, no captions.
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

from gen.demo.report import Log

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Steps, batch and weights of the VAE's losses."""

    crop_steps: int = 2800  # on crops of `crop` pixels: most of what there is to learn is local
    full_steps: int = 700  # on whole pictures, so that the group norms see what they will see
    crop: int = 128  # pixels
    crop_batch: int = 48  # small: steps count for more than pictures
    full_batch: int = 16
    learning_rate: float = 1e-3
    kl_weight: float = 3e-4
    half_weight: float = 0.1
    ema: float = 0.998


def train_vae(encoder: Any, decoder: Any, pixels: Mapping[Size, Tensor], *, config: VAEConfig, log: Log) -> None:
    """Train both in place and leave them with averaged weights and latents of unit variance.

    `pixels` holds (N, H, W, 3) uint8 per size, on the device of the models.
    """
    losses_of = _Losses(encoder, decoder)
    parameters = list(losses_of.parameters())
    average = [p.detach().clone() for p in parameters]
    total = config.crop_steps + config.full_steps
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=parameters[0].is_cuda
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total, pct_start=0.05)
    started = time.perf_counter()
    for step in range(1, total + 1):
        batch = _batch(pixels, config, whole=step > config.crop_steps)
        losses = losses_of.in_half_the_bytes(batch, config) if batch.is_cuda else losses_of(batch, config)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(config.ema, step / (step + 10)))
        if step % 50 == 0 or step == total:
            values = {name: float(value.detach()) for name, value in losses.items()}
            log.add("vae", step=step, seconds=time.perf_counter() - started, **values)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
        _normalize(encoder, decoder, pixels)


class _Losses(nn.Module):
    """Weighted losses of one batch (B, 3, H, W) in [-1, 1], by name."""

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
        return {"error": error, "kl": config.kl_weight * kl, "half": config.half_weight * half_error}


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
    weights = torch.tensor([float(len(pixels[size])) for size in sizes])
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
