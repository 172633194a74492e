"""Training the demo model's VAE: pictures ↔ latents of 16 channels at an eighth of the size.

L1 at three scales, squares and edges for crisp outlines, each picture's worst spot, a light KL term, and a penalty that
keeps halved latents decoding to halved pictures, which makes them easier to learn for the DiT (Kouzelis et al.,
"EQ-VAE", 2025). The worst spot counts because group norms over few channels lead a decoder to hide their scale in one
bright speck (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020). Knows pixels only, no
captions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d

from gen.demo.descent import Descent
from gen.demo.graphed import Figures, Graphed
from gen.demo.pace import Pace
from gen.demo.report import Log

Size = tuple[int, int]  # width, height
SPOT = 8  # pixels a side


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Time or steps, batch and weights of the VAE's losses."""

    minutes: float | None = 4.5
    steps: int = 8000  # where there are no minutes
    crop_share: float = 0.3  # of the stage on crops: most of what there is to learn is local
    crop: int = 128  # pixels
    crop_batch: int = 48  # small: steps count for more than pictures
    full_batch: int = 16  # of 256x256: whole pictures, so that the group norms see what they will see
    learning_rate: float = 1e-3
    warmup: int = 200
    square_weight: float = 1.0
    edge_weight: float = 0.5
    spot_weight: float = 0.03
    kl_weight: float = 3e-4
    half_weight: float = 0.1
    ema: float = 0.998


def train_vae(
    vae: tuple[Any, Any],
    pixels: Mapping[Size, Tensor],
    *,
    config: VAEConfig,
    log: Log,
    ready: Callable[[], bool] = lambda: True,
) -> None:
    """Train encoder and decoder in place and leave them with averaged weights and latents of unit variance.

    `pixels` holds (N, H, W, 3) uint8 per size, on the device of the models. Until `ready`, other threads may use it.
    """
    losses_of = _Losses(*vae)
    groups = [(config.learning_rate, dict(losses_of.named_parameters()))]
    descent = Descent(groups, betas=(0.9, 0.99), decay=1e-3, ema=config.ema, alone=True)

    def once(kind: tuple[Size, bool]) -> Figures:
        size, whole = kind
        batch = _whole(pixels[size], config.full_batch) if whole else _crops(pixels[size], config)
        losses = losses_of.in_half_the_bytes(batch, config) if batch.is_cuda else losses_of(batch, config)
        descent.descend(torch.stack(list(losses.values())).sum())
        return {name: loss.detach() for name, loss in losses.items()}

    device, step, sizes = next(iter(pixels.values())).device, 0, list(pixels)
    step_of = Graphed(once, stage="vae", device=device, log=log, ready=ready)
    pace = Pace(config.steps, config.minutes, device=device, alone=True)
    weights = torch.tensor([float(len(pixels[size])) for size in sizes])
    while (progress := pace.progress(step)) < 1:
        step += 1
        descent.aim(step, progress, warmup=config.warmup)
        figures = step_of((sizes[int(torch.multinomial(weights, 1))], progress >= config.crop_share))
        if step % 50 == 0:
            told = {name: float(figure) for name, figure in figures.items()}
            log.add("vae", step=step, seconds=pace.seconds(), **told)
    log.add("vae", steps=step, seconds=pace.seconds(), graphs=step_of.captured)
    descent.finish()
    _normalize(*vae, pixels)


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
        wanted = batch.float()
        scales = sum((_pool(picture, n) - _pool(wanted, n)).abs().mean() for n in (1, 2, 4)) / 2
        kl = 0.5 * (mean.float() ** 2 + log_variance.float().exp() - 1 - log_variance.float()).mean()
        return {
            "error": scales,
            "square": config.square_weight * (picture - wanted).square().mean(),
            "edges": config.edge_weight * _edge_error(picture - wanted),
            "spot": config.spot_weight * avg_pool2d((picture - wanted).abs().mean(1), SPOT).amax((1, 2)).mean(),
            "kl": config.kl_weight * kl,
            "half": config.half_weight * (half - avg_pool2d(wanted, 2)).abs().mean(),
        }


def _edge_error(error: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours: a blurred or shifted edge costs twice."""
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


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


def _whole(source: Tensor, number: int) -> Tensor:
    """Random pictures, as many as have the pixels of `number` of 256x256."""
    number = max(1, number * 65536 // (source.shape[1] * source.shape[2]))
    return to_pictures(source[torch.randint(len(source), (number,), device=source.device)])


def _crops(source: Tensor, config: VAEConfig) -> Tensor:
    """Random squares of random pictures, at multiples of 8 pixels."""
    (number, height, width, _), side, device = source.shape, config.crop, source.device
    row = torch.randint(number, (config.crop_batch, 1, 1), device=device)
    top, left = (
        torch.randint((room - side) // 8 + 1, (config.crop_batch, 1), device=device) * 8 for room in (height, width)
    )
    along = torch.arange(side, device=device)
    return to_pictures(source[row, (top + along)[:, :, None], (left + along)[:, None, :]])


def _pool(pictures: Tensor, factor: int) -> Tensor:
    return pictures if factor == 1 else avg_pool2d(pictures, factor)


@torch.no_grad()
def _normalize(encoder: Any, decoder: Any, pixels: Mapping[Size, Tensor]) -> None:
    """Scale the latents to unit variance, the decoder's first layer undoing it, so that nothing else changes."""
    largest = max(pixels.values(), key=len)
    latents = torch.cat([encoder(to_pictures(part)) for part in torch.split(largest[:1024], 64)])
    scale = float(1 / latents.std())
    encoder.conv_out.weight[:16] *= scale
    encoder.conv_out.bias[:16] *= scale
    decoder.conv_in.weight /= scale
