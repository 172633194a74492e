"""Giving the demo model's text encoders a start: they learn to tell what a caption states, before any picture.

FLUX builds on encoders that already understand language; the small ones learn their small language here, in both
tongues, from captions and their scenes alone. The readers that are trained beside them are thrown away. Knows token
ids and labels, no pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gen.demo import parallel
from gen.demo.descent import Descent
from gen.demo.graphed import Figures, Graphed
from gen.demo.model import pooled
from gen.demo.report import Log
from gen.demo.scenes import ATTRIBUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Steps and batch."""

    steps: int = 2000
    batch: int = 1024  # captions, over all GPUs
    learning_rate: float = 1e-3
    warmup: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Token ids with what each caption states."""

    clip_ids: Tensor  # (N, captions, 77) int16
    t5_ids: Tensor  # (N, captions, tokens) int16
    labels: Tensor  # (N, attributes) int64, indices into ATTRIBUTES
    stated: Tensor  # (N, captions, attributes) bool


class Readers(nn.Module):
    """A linear reader an attribute and encoder; the last answer of each is "not stated"."""

    def __init__(self, clip_dim: int, t5_dim: int) -> None:
        super().__init__()
        self.clip = nn.ModuleList(nn.Linear(clip_dim, len(values) + 1) for values in ATTRIBUTES.values())
        self.t5 = nn.ModuleList(nn.Linear(t5_dim, len(values) + 1) for values in ATTRIBUTES.values())

    def forward(self, pooled: Tensor, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits of every attribute, read from CLIP's pooled vector and from the mean of T5's tokens."""
        mean = tokens.mean(1)
        return [(clip(pooled), t5(mean)) for clip, t5 in zip(self.clip, self.t5, strict=True)]


def train_text(clip: Any, t5: Any, captions: Sequence[Captions], *, config: TextConfig, log: Log) -> None:
    """Train both encoders in place."""
    device = next(t5.parameters()).device
    readers = Readers(clip.final_layer_norm.weight.numel(), t5.config.d_model).to(device)
    parallel.copy_first([readers])
    named = dict(nn.ModuleList([clip, t5, readers]).named_parameters())
    descent = Descent([(config.learning_rate, named)], betas=(0.9, 0.95), decay=0.01, ema=0.0)
    unstated = torch.tensor([len(values) for values in ATTRIBUTES.values()], device=device)
    number = max(1, config.batch // parallel.world())

    def once(index: int) -> Figures:
        loss, right = _loss(clip, t5, readers, _batch(captions[index], number, unstated))
        descent.descend(loss)
        return {"loss": loss.detach(), "read_right": right}

    step_of = Graphed(once, stage="text", device=device, log=log)
    weights, started = torch.tensor([float(len(part.labels)) for part in captions]), time.perf_counter()
    for step in range(1, config.steps + 1):
        descent.aim(step, step / config.steps, warmup=config.warmup)
        figures = step_of(int(torch.multinomial(weights, 1)))
        if step % 100 == 0 or step == config.steps:
            told = {name: float(figure) for name, figure in figures.items()}
            log.add("text", step=step, seconds=time.perf_counter() - started, **told)
    descent.finish()


def _batch(part: Captions, number: int, unstated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CLIP ids, T5 ids and answers (B, attributes), where "not stated" is each attribute's last answer."""
    row = torch.randint(len(part.labels), (number,), device=part.labels.device)
    caption = torch.randint(part.clip_ids.shape[1], (number,), device=part.labels.device)
    answers = torch.where(part.stated[row, caption], part.labels[row], unstated)
    return part.clip_ids[row, caption].long(), part.t5_ids[row, caption].long(), answers


def _loss(clip: Any, t5: Any, readers: Readers, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of all readers, and the share of right answers."""
    clip_ids, t5_ids, answers = batch
    with torch.autocast(answers.device.type, torch.bfloat16, enabled=answers.is_cuda):
        logits = readers(pooled(clip, clip_ids), t5(t5_ids))
    pairs = [(one.float(), answers[:, i]) for i, both in enumerate(logits) for one in both]
    loss = torch.stack([cross_entropy(one, truth) for one, truth in pairs]).mean()
    right = torch.stack([(one.argmax(1) == truth).float().mean() for one, truth in pairs]).mean()
    return loss, right
