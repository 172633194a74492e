"""A small picture of half-denoised latents: one matrix from 16 channels to red, green and blue.

The matrix is fitted to the model's own VAE when it is loaded, by least squares over a few small random latents and
what they decode to, so that it fits every model. A preview is one product of (h w, 17) with (17, 3) and a JPEG of some
kilobytes. Knows no steps, no card, no Discord.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SIDE_MAX = 160  # pixels
_SAMPLES, _SIDE = 8, 16  # latents that are decoded for the fit, and their size
_QUALITY = 75


def fit(decode: Callable[[Tensor], Tensor], *, channels: int = 16, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Coefficients (channels + 1, 3) in float32 on `device`: latents and a one → red, green, blue in [-1, 1].

    Decodes eight latents of 16x16, smooth over a few of them as pictures are; the same ones always.
    """
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(_SAMPLES, channels, 4, 4, generator=random)
    fine = torch.randn(_SAMPLES, channels, _SIDE, _SIDE, generator=random)
    latents = F.interpolate(coarse, size=_SIDE, mode="bicubic") + 0.3 * fine
    colours = [decode(one[None].to(device, dtype)).float().clip(-1, 1).cpu() for one in latents]
    wanted = F.avg_pool2d(torch.cat(colours), 8).permute(0, 2, 3, 1).reshape(-1, 3)
    wanted = wanted.nan_to_num()  # a broken decoder is told by its pictures
    coefficients: Tensor = torch.linalg.lstsq(_with_one(latents), wanted).solution
    return coefficients.to(device)


def pixels(latents: Tensor, coefficients: Tensor) -> Tensor:
    """Latents (1, 16, h, w) → (h, w, 3) uint8 on the same device; waits for nothing."""
    height, width = latents.shape[-2:]
    colours = _with_one(latents.float()) @ coefficients
    return ((colours.clip(-1, 1) + 1) * 127.5).round().to(torch.uint8).reshape(height, width, 3)


def jpeg(shown: Tensor) -> bytes:
    """Pixels (h, w, 3) uint8 on the CPU → a JPEG, 160 pixels a side at most."""
    picture = Image.fromarray(shown.numpy())
    picture.thumbnail((SIDE_MAX, SIDE_MAX))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()


def _with_one(latents: Tensor) -> Tensor:
    """(B, C, h, w) → (B h w, C + 1), the last column ones."""
    flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    return torch.cat((flat, flat.new_ones(len(flat), 1)), dim=1)
