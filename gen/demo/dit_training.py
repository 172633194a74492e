"""Training the demo model's DiT with its text encoders by flow matching, then distilling guidance into it.

A picture's latents x0 and noise e give x = (1 - sigma) x0 + sigma e; the model learns the velocity e - x0 (Liu et al.,
"Flow Straight and Fast", 2022), at sigmas that are logit-normal and shifted (Esser et al., "Scaling Rectified Flow
Transformers", 2024), some of them even and near 1, where the schedule takes its first steps. Guidance distillation
(Meng et al., "On Distillation of Guided Diffusion Models", 2023): the student sees the guidance scale and matches in
one pass what the teacher does in two. Knows latents and token ids.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gen.demo import parallel
from gen.demo.checkpoint import load_checkpoint, save_checkpoint
from gen.demo.descent import Descent
from gen.demo.graphed import Figures, Graphed
from gen.demo.model import Model
from gen.demo.pace import Pace
from gen.demo.report import Log

Size = tuple[int, int]  # width, height
SMALL = 192 * 192  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Steps, batch and schedule of both stages."""

    minutes: float | None = 8.5
    steps: int = 14_000  # where there are no minutes
    distil_minutes: float | None = 0.75
    distil_steps: int = 2000
    tokens: int = 120_000  # picture and text tokens a batch, over all GPUs
    learning_rate: float = 1e-3
    text_share: float = 0.3  # of the learning rate, for the text encoders, which had a start of their own
    small_until: float = 0.4  # of the stage; before, small pictures come more often: layout is learnt cheaply there
    small_weight: float = 6.0
    distil_learning_rate: float = 2e-4
    warmup: int = 400
    caption_dropout: float = 0.1
    sigma_shift: float = 2.0
    early_share: float = 0.3  # of the pictures, at even sigmas above `early_from`: there number and place are decided
    early_from: float = 0.7
    ema: float = 0.9995
    checkpoint: int = 1500  # steps between checkpoints
    guidance_max: float = 10.0
    seed: int = 7
    compile: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Latents of one size with the token ids of their captions."""

    latents: Tensor  # (N, 16, H/8, W/8) float16
    clip_ids: Tensor  # (N, captions, 77) int16
    t5_ids: Tensor  # (N, captions, tokens) int16
    labels: Tensor  # (N, attributes) int64
    stated: Tensor  # (N, captions, attributes) bool


def train_dit(model: Model, examples: Mapping[Size, Examples], *, config: DiTConfig, folder: Path, log: Log) -> None:
    """Flow matching; leaves `model` with averaged weights. Goes on from the last checkpoint in `folder`."""
    named, rate = dict(model.named_parameters()), config.learning_rate
    dit = {name: p for name, p in named.items() if name.startswith("dit.")}
    text = {name: p for name, p in named.items() if name not in dit}
    groups = [(rate, dit), (rate * config.text_share, text)]
    descent = Descent(groups, betas=(0.9, 0.95), decay=0.01, ema=config.ema)
    first, spent = load_checkpoint(folder / "dit.safetensors", descent)
    step, device, chooser = first, _device(model), torch.Generator()

    def once(size: Size) -> Figures:
        descent.descend(flow_loss(model, *_batch(examples[size], config), config=config))
        return {}

    step_of, pace = (
        Graphed(once, stage="dit", device=device, log=log),
        Pace(config.steps, config.minutes, device=device, spent=spent),
    )
    while (progress := pace.progress(step)) < 1:
        if step % config.checkpoint == 0:
            torch.manual_seed((config.seed * 64 + parallel.rank()) * 1_000_003 + step)  # as if never interrupted
            chooser.manual_seed(config.seed + step)
            save_checkpoint(folder / "dit.safetensors", descent, step=step, seconds=pace.seconds())
        step += 1
        descent.aim(step, progress, warmup=config.warmup, first=first)
        step_of(_pick(examples, chooser, small=config.small_weight if progress < config.small_until else 1.0))
        if step % 100 == 0:
            log.add("dit", step=step, seconds=pace.seconds(), loss=float(descent.loss))
    log.add("dit", steps=step, seconds=pace.seconds(), graphs=step_of.captured)
    save_checkpoint(folder / "dit.safetensors", descent, step=step, seconds=pace.seconds())
    descent.finish()


def distil(model: Model, examples: Mapping[Size, Examples], *, config: DiTConfig, log: Log) -> None:
    """Teach the DiT what guidance does; the text encoders stay as they are."""
    teacher = copy.deepcopy(model)  # used without gradients; its parameters keep asking for them, as the graphs expect
    if config.compile:
        teacher.compile_parts()
    for encoder in (model.clip, model.t5):
        encoder.requires_grad_(False)
    groups = [(config.distil_learning_rate, dict(model.dit.named_parameters()))]
    descent, device = Descent(groups, betas=(0.9, 0.95), decay=0.0, ema=0.995), _device(model)

    def once(size: Size) -> Figures:
        batch = _batch(examples[size], config, share=0.5)
        descent.descend(distillation_loss(model, teacher, *batch, config=config))
        return {}

    torch.manual_seed(config.seed * 64 + parallel.rank())
    step, chooser = 0, torch.Generator().manual_seed(config.seed)
    step_of = Graphed(once, stage="distil", device=device, log=log)
    pace = Pace(config.distil_steps, config.distil_minutes, device=device)
    while (progress := pace.progress(step)) < 1:
        step += 1
        descent.aim(step, progress, warmup=50)
        step_of(_pick(examples, chooser))
        if step % 50 == 0:
            log.add("distil", step=step, seconds=pace.seconds(), loss=float(descent.loss))
    log.add("distil", steps=step, seconds=pace.seconds(), graphs=step_of.captured)
    descent.finish()


def flow_loss(model: Model, latents: Tensor, clip_ids: Tensor, t5_ids: Tensor, *, config: DiTConfig) -> Tensor:
    """Mean squared error of the velocity at one random sigma a picture."""
    x, noise, sigma = _noised(latents, config)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        text = model.encode(clip_ids, t5_ids)
        predicted = model(x, sigma, text, torch.ones_like(sigma))
    loss: Tensor = (predicted.float() - (noise - latents)).square().mean()
    return loss


def distillation_loss(
    model: Model, teacher: Model, latents: Tensor, clip_ids: Tensor, t5_ids: Tensor, *, config: DiTConfig
) -> Tensor:
    """Mean squared error against the teacher's guided velocity, at a log-uniform guidance scale a picture."""
    x, _, sigma = _noised(latents, config)
    guidance = torch.exp(torch.rand_like(sigma) * math.log(config.guidance_max))
    ones = torch.ones_like(guidance)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        with torch.no_grad():
            text = teacher.encode(clip_ids, t5_ids)
            empty = teacher.encode(*_empty(clip_ids, t5_ids))
            given, free = teacher(x, sigma, text, ones).float(), teacher(x, sigma, empty, ones).float()
            target = free + guidance[:, None, None, None] * (given - free)
        predicted = model(x, sigma, text, guidance)
    loss: Tensor = ((predicted.float() - target).square().mean((1, 2, 3)) / guidance).mean()
    return loss


def _noised(latents: Tensor, config: DiTConfig) -> tuple[Tensor, Tensor, Tensor]:
    normal, even, pick = (draw(len(latents), device=latents.device) for draw in (torch.randn, torch.rand, torch.rand))
    sigma = torch.sigmoid(normal * 1.1)
    sigma = config.sigma_shift * sigma / (1 + (config.sigma_shift - 1) * sigma)
    sigma = torch.where(pick < config.early_share, config.early_from + (1 - config.early_from) * even, sigma)
    noise = torch.randn_like(latents)
    wide = sigma[:, None, None, None]
    return (1 - wide) * latents + wide * noise, noise, sigma


def _empty(clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids of the empty prompt: CLIP's start and end marks, T5's end mark and padding."""
    clip = clip_ids[:, -1:].expand_as(clip_ids).clone()  # the end mark, which also pads; captions never fill all 77
    clip[:, 0] = clip_ids[:, 0]
    t5 = torch.zeros_like(t5_ids)
    t5[:, 0] = 1
    return clip, t5


def _pick(examples: Mapping[Size, Examples], chooser: torch.Generator, *, small: float = 1.0) -> Size:
    """A size, as often as there are pictures of it; small ones (up to SMALL pixels) `small` times as often."""
    sizes = list(examples)
    counts = [(small if w * h <= SMALL else 1.0) * len(examples[w, h].latents) for w, h in sizes]
    return sizes[int(torch.multinomial(torch.tensor(counts), 1, generator=chooser))]


def batch_of(tokens: float, latents: Tensor, t5_tokens: int) -> int:
    """How many pictures of (N, 16, h, w) make a batch of `tokens` over all GPUs, for this one."""
    each = latents.shape[2] * latents.shape[3] // 4 + t5_tokens
    return min(len(latents), max(1, int(tokens / each / parallel.world())))


def _batch(source: Examples, config: DiTConfig, *, share: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A random batch: latents, CLIP ids, T5 ids; some captions are dropped."""
    number, device = len(source.latents), source.latents.device
    batch = batch_of(config.tokens * share, source.latents, source.t5_ids.shape[-1])
    row = torch.randint(number, (batch,), device=device)
    caption = torch.randint(source.clip_ids.shape[1], (batch,), device=device)
    clip_ids, t5_ids = source.clip_ids[row, caption].long(), source.t5_ids[row, caption].long()
    dropped = (torch.rand(batch, device=device) < config.caption_dropout)[:, None]
    empty_clip, empty_t5 = _empty(clip_ids, t5_ids)
    return (
        source.latents[row].float(),
        torch.where(dropped, empty_clip, clip_ids),
        torch.where(dropped, empty_t5, t5_ids),
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
