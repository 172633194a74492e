"""The demo model's text encoders and DiT as one module, as it is trained: latents, sigmas, token ids → velocity.

What is compiled and when is decided here. Knows no loss, no data and no optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Velocity = Callable[..., Tensor]  # DiffSynth's model function


class Model(nn.Module):
    """The DiT and its text encoders as one: latents, sigmas and token ids → velocity."""

    dit: Any
    clip: Any
    t5: Any

    def __init__(self, *, dit: nn.Module, clip: nn.Module, t5: nn.Module, velocity: Velocity) -> None:
        super().__init__()
        self.dit, self.clip, self.t5 = dit, clip, t5
        self._velocity = velocity

    def encode(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled (B, clip_dim) and per-token (B, N, t5_dim) embeddings."""
        return pooled(self.clip, clip_ids), self.t5(t5_ids)

    def forward(self, x: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], guidance: Tensor) -> Tensor:
        """Velocity (B, 16, h, w) at `sigma` (B,) with the scale `guidance` (B,)."""
        whole, tokens = text
        return self._velocity(
            dit=self.dit,
            latents=x,
            timestep=sigma * 1000,
            prompt_emb=tokens,
            pooled_prompt_emb=whole,
            guidance=guidance,
            text_ids=torch.zeros(1, tokens.shape[1], 3, device=x.device),
            image_ids=_image_ids(x),
        )

    def compile_parts(self, *, shapes: Sequence[tuple[int, int, int]] = (), t5_tokens: int = 0) -> None:
        """Compile what costs most: one graph for each kind of block.

        `shapes`, batches of latents (B, h, w), are tried at once, with and without gradients, so that it can be done
        beside something else. Draws no random numbers.
        """
        for part in (*self.dit.blocks, *self.dit.single_blocks):
            part.compile(dynamic=True)
        for shape in shapes:
            torch.autograd.backward(self._try(shape, t5_tokens).square().mean())
            self.zero_grad(set_to_none=True)
            with torch.no_grad():
                self._try(shape, t5_tokens)

    def _try(self, shape: tuple[int, int, int], t5_tokens: int) -> Tensor:
        """One pass over blank pictures."""
        batch, height, width = shape
        device = next(self.parameters()).device
        clip_ids, t5_ids = (torch.zeros(batch, n, dtype=torch.long, device=device) for n in (77, t5_tokens))
        x, ones = torch.zeros(batch, 16, height, width, device=device), torch.ones(batch, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity: Tensor = self(x, ones, self.encode(clip_ids, t5_ids), ones)
        return velocity.float()


def pooled(clip: Any, ids: Tensor) -> Tensor:
    """CLIP's pooled vectors (B, clip_dim) for ids (B, 77)."""
    with ids.device:  # DiffSynth makes an index on the default device: copied from the CPU, no graph could hold it
        vectors: Tensor = clip(ids)[0]
    return vectors


def _image_ids(x: Tensor) -> Tensor:
    """Positions (1, (h/2)(w/2), 3) as DiffSynth's `prepare_image_ids`, but made on the device, once for the batch."""
    rows = torch.arange(x.shape[2] // 2, device=x.device, dtype=torch.float32)
    columns = torch.arange(x.shape[3] // 2, device=x.device, dtype=torch.float32)
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).reshape(1, -1, 3)
