"""The noise that a picture begins with: its seed's, with variations mixed in. Knows no model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen.request import Variation


def initial_noise(shape: tuple[int, ...], seed: int, variations: tuple[Variation, ...]) -> Tensor:
    """Normal noise in float32 on the CPU, so that it depends on no card; its variance is one.

    Each variation in turn makes of it sqrt(1 - share) noise + sqrt(share) its own: independent normals of variance
    one, weighted so that their variances add up to one.
    """
    noise = _normal(shape, seed)
    for one in variations:
        noise = math.sqrt(1 - one.share) * noise + math.sqrt(one.share) * _normal(shape, one.seed)
    return noise


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)
