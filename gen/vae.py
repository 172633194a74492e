"""Decoding latents in tiles that blend, for cards that cannot hold a whole picture's activations.

Tiles overlap by a quarter and fade into each other linearly. A decoder's group norms see one tile where they should
see the picture, which shifts a tile's brightness a little; overlap and fading spread that out, and `seam` measures
what is left. Knows no decoder of its own, no plan and no card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

SCALE = 8  # pixels a latent
OVERLAP = 4  # a tile's side over its overlap
Decode = Callable[[Tensor], Tensor]


def decode_tiled(decode: Decode, latents: Tensor, *, tile: int | None) -> Tensor:
    """Latents (1, C, h, w) → pixels (1, 3, 8 h, 8 w), in float32 if tiled; `tile` is in pixels, None decodes at once.

    Every tile has one size, so that kernels are chosen once; where a picture is no multiple of it, overlaps are wider.
    """
    height, width = latents.shape[-2:]
    if tile is None or max(height, width) * SCALE <= tile:
        return decode(latents)
    side = tile // SCALE
    if side < 2 * OVERLAP:
        raise ValueError(f"a tile has {2 * OVERLAP * SCALE} pixels a side at least; it is {tile}")
    down, across = list(_spans(height, side)), list(_spans(width, side))
    picture = torch.zeros(1, 3, height * SCALE, width * SCALE, device=latents.device)
    fades_down, fades_across = (_fades(spans, latents.device) for spans in (down, across))
    for (top, bottom), fade_down in zip(down, fades_down, strict=True):
        for (left, right), fade_across in zip(across, fades_across, strict=True):
            part = decode(latents[..., top:bottom, left:right]).float()
            part *= fade_down[:, None] * fade_across
            picture[..., top * SCALE : bottom * SCALE, left * SCALE : right * SCALE] += part
    return picture


def seam(picture: Tensor, reference: Tensor, *, tile: int) -> float:
    """How much more two pictures (1, 3, H, W) differ from column to column at tiles' edges than elsewhere.

    The largest mean change of their difference across one column or row at an edge, over its mean elsewhere: about 1
    without seams.
    """
    difference = (picture.float() - reference.float())[0]
    found = []
    for axis in (-2, -1):
        steps = difference.diff(dim=axis).abs()
        across = steps.mean(dim=(0, -1 if axis == -2 else -2))
        spans = list(_spans(difference.shape[axis] // SCALE, tile // SCALE))
        edges = sorted(
            {edge * SCALE - 1 for span in spans for edge in span if 0 < edge * SCALE < difference.shape[axis]}
        )
        if edges:
            inside = torch.ones_like(across, dtype=torch.bool)
            inside[edges] = False
            found.append(float(across[edges].max() / across[inside].mean().clamp(min=1e-12)))
    return max(found, default=1.0)


def _spans(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Tiles over `length` latents: equally long, evenly placed, overlapping by a quarter at least."""
    if length <= side:
        yield 0, length
        return
    overlap = side // OVERLAP
    count = math.ceil((length - overlap) / (side - overlap))
    for index in range(count):
        start = round(index * (length - side) / (count - 1))
        yield start, start + side


def _fades(spans: list[tuple[int, int]], device: torch.device) -> list[Tensor]:
    """Each tile's weights along one axis, in pixels: ramps over overlaps, summing to one everywhere."""
    length = spans[-1][1] * SCALE
    weights = torch.zeros(len(spans), length, device=device)
    for index, (start, end) in enumerate(spans):
        place = torch.arange(start * SCALE, end * SCALE, device=device) + 0.5
        weight = torch.ones_like(place)
        if index > 0:
            weight = torch.minimum(weight, (place - start * SCALE) / ((spans[index - 1][1] - start) * SCALE))
        if index + 1 < len(spans):
            weight = torch.minimum(weight, (end * SCALE - place) / ((end - spans[index + 1][0]) * SCALE))
        weights[index, start * SCALE : end * SCALE] = weight
    weights /= weights.sum(0)
    return [weights[index, start * SCALE : end * SCALE] for index, (start, end) in enumerate(spans)]
