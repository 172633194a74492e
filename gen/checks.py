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

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_FLAT = 1.0  # standard deviation in 255ths below which there is nothing to see
_BLACK = 4.0  # mean in 255ths
_COHERENT = 0.98  # share of all change down (or across) the picture that whole rows (or columns) make together
_ENOUGH = 256  # rows and columns
_JUMP = 6.0  # mean change from one row to the next in 255ths; bands have 10 and more, one-step gradients up to 4.3


def check_latents(latents: Tensor) -> None:
    """Raise BadPicture for NaN or infinity anywhere in latents (B, C, h, w). Waits for the card."""
    if not bool(torch.isfinite(latents).all()):
        raise BadPicture(msg("The model's numbers overflowed, and there is no picture."))


def check_picture(picture: Image.Image) -> None:
    """Raise BadPicture for a picture that is black, one flat colour, or nothing but bands.

    Some rows and columns of a large picture are looked at first, and all of it only if they look broken: the card
    waits for this.
    """
    whole = np.asarray(picture.convert("RGB"))
    every = max(1, max(picture.size) // _ENOUGH)
    if _fault(whole[:, ::every], whole[::every].swapaxes(0, 1)) and (fault := _fault(whole, whole.swapaxes(0, 1))):
        raise BadPicture(fault)


def _fault(down: Pixels, across: Pixels) -> str | None:
    """What is wrong with a picture of which these columns and these rows are looked at."""
    if down.std(axis=(0, 1), dtype=np.float32).max() < _FLAT:
        if down.mean() < _BLACK:
            return msg("The model drew a black picture: its weights are damaged, or its numbers overflowed.")
        return msg("The model drew nothing but one flat colour; another seed may do better.")
    if _is_banded(down) or _is_banded(across):
        return msg("The model drew nothing but bands: its weights are damaged, or its numbers lost precision.")
    return None


def _is_banded(pixels: Pixels) -> bool:
    """Whether the change from row to row is whole rows changing together, and often."""
    change = np.diff(pixels.astype(np.float32), axis=0)
    together = np.abs(change.mean(axis=1)).mean()
    return bool(together > _JUMP and together > _COHERENT * np.abs(change).mean())
