"""Training the classifier that measures the demo model, on real renders only. Knows pixels and labels, no captions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from gen.demo.classifier import Classifier, to_square
from gen.demo.descent import Descent
from gen.demo.graphed import Figures, Graphed
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
    warmup: int = 400


def train_classifier(
    classifier: Classifier, examples: Mapping[tuple[int, int], Labelled], *, config: ClassifierConfig, log: Log
) -> None:
    """Train in place; blur and noise keep it from leaning on pixel-exact edges, which drawn pictures lack."""
    descent = Descent(
        [(config.learning_rate, dict(classifier.named_parameters()))],
        betas=(0.9, 0.999),
        decay=0.02,
        ema=0.0,
        clip=2.0,
        alone=True,
    )

    def once(size: tuple[int, int]) -> Figures:
        pixels, labels = examples[size]
        row = torch.randint(len(pixels), (config.batch,), device=pixels.device)
        pictures = _roughen(to_square(to_pictures(pixels[row])))
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
            logits = classifier(pictures)
        columns = enumerate(ATTRIBUTES)
        losses = [cross_entropy(logits[name].float(), labels[row, i], label_smoothing=0.02) for i, name in columns]
        descent.descend(torch.stack(losses).sum())
        return {"loss": torch.stack(losses).detach().mean()}

    sizes, started = list(examples), time.perf_counter()
    step_of = Graphed(once, stage="classifier", device=examples[sizes[0]][0].device, log=log)
    weights = torch.tensor([float(len(examples[size][0])) for size in sizes])
    for step in range(1, config.steps + 1):
        descent.aim(step, step / config.steps, warmup=config.warmup)
        figures = step_of(sizes[int(torch.multinomial(weights, 1))])
        if step % 100 == 0 or step == config.steps:
            log.add("classifier", step=step, seconds=time.perf_counter() - started, loss=float(figures["loss"]))
    descent.finish()


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
    """Blur three pictures in ten, half of these with noise as well, as all others."""
    draw, strength = torch.rand(2, len(pictures), 1, 1, 1, device=pictures.device)
    blurred = interpolate(avg_pool2d(pictures, 2), pictures.shape[-2:], mode="bilinear", align_corners=False)
    pictures = torch.where(draw < 0.3, blurred, pictures)
    noise: Tensor = torch.randn_like(pictures) * strength * 0.08 * (draw > 0.15)
    return pictures + noise
