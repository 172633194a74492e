"""Training the classifier that measures the demo model, on real renders only. Knows pixels and labels, no captions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from gen.demo.classifier import Classifier, to_square
from gen.demo.report import Log
from gen.demo.scenes import ATTRIBUTES
from gen.demo.vae_training import to_pictures

Labelled = tuple[Tensor, Tensor]  # (N, H, W, 3) uint8 and (N, attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """Steps and batch."""

    steps: int = 4000
    batch: int = 256
    learning_rate: float = 3e-3


def train_classifier(
    classifier: Classifier, examples: Mapping[tuple[int, int], Labelled], *, config: ClassifierConfig, log: Log
) -> None:
    """Train in place; blur and noise keep it from leaning on pixel-exact edges, which drawn pictures lack."""
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=config.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps, pct_start=0.1)
    sources, started = list(examples.values()), time.perf_counter()
    weights = torch.tensor([float(len(pixels)) for pixels, _ in sources])
    for step in range(1, config.steps + 1):
        pixels, labels = sources[int(torch.multinomial(weights, 1))]
        row = torch.randint(len(pixels), (config.batch,), device=pixels.device)
        pictures = _roughen(to_square(to_pictures(pixels[row])))
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
            logits = classifier(pictures)
        columns = enumerate(ATTRIBUTES)
        losses = [cross_entropy(logits[name].float(), labels[row, i], label_smoothing=0.02) for i, name in columns]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(losses).sum())
        nn.utils.clip_grad_norm_(classifier.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == config.steps:
            loss = float(torch.stack(losses).detach().mean())
            log.add("classifier", step=step, seconds=time.perf_counter() - started, loss=loss)


@torch.no_grad()
def accuracy(classifier: Classifier, examples: Sequence[Labelled]) -> dict[str, float]:
    """Share of pictures read right, per attribute and overall."""
    right = torch.zeros(len(ATTRIBUTES))
    total = 0
    for pixels, labels in examples:
        for part, truth in zip(torch.split(pixels, 256), torch.split(labels, 256), strict=True):
            logits = classifier(to_square(to_pictures(part)))
            read = torch.stack([logits[name].argmax(1) for name in ATTRIBUTES], dim=1)
            right += (read == truth).sum(0).cpu()
            total += len(part)
    shares = {name: float(right[i]) / total for i, name in enumerate(ATTRIBUTES)}
    return {**shares, "overall": float(right.sum()) / total / len(ATTRIBUTES)}


def _roughen(pictures: Tensor) -> Tensor:
    draw = float(torch.rand(()))
    if draw < 0.3:
        small = avg_pool2d(pictures, 2)
        pictures = interpolate(small, pictures.shape[-2:], mode="bilinear", align_corners=False)
    if draw > 0.15:
        strength = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * 0.08
        pictures = pictures + torch.randn_like(pictures) * strength
    return pictures
