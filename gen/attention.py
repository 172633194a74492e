"""Attention: torch's, its fastest kernel first, or FlashAttention 4 where that is installed and is faster.

Knows no blocks, no weights and no streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import metadata

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend

from gen.streaming.cards import HOPPER

# Fastest first: on an H100 cuDNN's attention reached 663 TFLOP/s (2026-11). For the DiT, which needs no mask.
ORDER = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
FLASH = "flash-attn-4"
FLASH_SIZE = 128  # of a head, FLUX.1's: the one that was measured, 0.421 ms against cuDNN's 0.451 (H200, 2026-11)

log = logging.getLogger(__name__)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's: (B, N, heads, d), keys and values of any length → (B, N, heads d)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 4's: (B, N, heads, 128) bfloat16 each → (B, N, heads 128). Not for torch.compile."""
    from flash_attn.cute import flash_attn_func

    made = flash_attn_func(q, k, v)
    seen: Tensor = made[0] if isinstance(made, tuple) else made
    return seen.flatten(2)


def pick_flash(device: torch.device, *, size: int) -> Attention | None:
    """`flash` where it is installed, works and is faster than torch's attention for heads of `size`; else None.

    It is built for the card when it is first called, which takes seconds unless `gen.compiling` keeps it.
    """
    if size != FLASH_SIZE or device.type != "cuda" or torch.cuda.get_device_capability(device) != HOPPER:
        return None
    try:
        version = metadata.version(FLASH)
    except metadata.PackageNotFoundError:
        return None
    try:
        _try_flash(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - it is young, and brings a compiler of its own
        log.warning("%s %s cannot be used, so torch's attention is: %s", FLASH, version, str(error))
        return None
    log.info("attention is by %s %s", FLASH, version)
    return flash


def _try_flash(device: torch.device) -> None:
    """Raise whatever it raises, or ValueError if it says that something else than ones is the mean of ones."""
    seen = flash(*torch.ones(3, 1, 256, 1, FLASH_SIZE, device=device, dtype=torch.bfloat16))
    if not bool((seen == 1).all()):
        raise ValueError(f"the mean of ones is said to be between {float(seen.min())} and {float(seen.max())}")
