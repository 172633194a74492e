"""Is it a picture? Broken numbers on the way, black, one flat colour, bands: what float8 or a bad card can do.

Of 36 pictures of the demo model none is taken for a fault, of 120 injected faults none for a picture (2026-11,
`tests/gen/test_checks.py`). Bands that are faint beside a picture under them are not found. Knows no model, no retry.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen.errors import BadPicture
from gen.message import msg

_FLAT = 1.0  # standard deviation in 255ths below which there is nothing to see
_BLACK = 4.0  # mean in 255ths
_COHERENT = 0.98  # share of all change down (or across) the picture that whole rows (or columns) make together
_JUMP = 6.0  # mean change from one row to the next in 255ths; bands have 10 and more, one-step gradients up to 4.3


def check_latents(latents: Tensor) -> None:
    """Raise BadPicture for NaN or infinity anywhere in latents (B, C, h, w). Waits for the card."""
    if not bool(torch.isfinite(latents).all()):
        raise BadPicture(msg("The model's numbers overflowed, and there is no picture."))


def check_picture(picture: Image.Image) -> None:
    """Raise BadPicture for a picture that is black, one flat colour, or nothing but bands."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    if pixels.std(axis=(0, 1)).max() < _FLAT:
        if pixels.mean() < _BLACK:
            raise BadPicture(msg("The model drew a black picture: its weights are damaged, or its numbers overflowed."))
        raise BadPicture(msg("The model drew nothing but one flat colour; another seed may do better."))
    if _is_banded(pixels) or _is_banded(pixels.swapaxes(0, 1)):
        raise BadPicture(
            msg("The model drew nothing but bands: its weights are damaged, or its numbers lost precision.")
        )


def _is_banded(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    """Whether the change from row to row is whole rows changing together, and often."""
    change = np.diff(pixels, axis=0)
    together = np.abs(change.mean(axis=1)).mean()
    return bool(together > _JUMP and together > _COHERENT * np.abs(change).mean())
