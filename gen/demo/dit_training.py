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
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gen.demo import parallel
from gen.demo.checkpoint import load_checkpoint, save_checkpoint
from gen.demo.descent import Descent, rise_and_fall
from gen.demo.graphed import Graphed
from gen.demo.model import Model
from gen.demo.report import Log

Size = tuple[int, int]  # width, height
REFIT = 250  # steps between looks at the pace
SMALL = 192 * 192  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Steps, batch and schedule of both stages."""

    steps: int = 12_000
    minutes: float | None = None  # fit the steps into this much time instead; the log says how many
    distil_steps: int = 900
    tokens: int = 120_000  # picture and text tokens a batch, over all GPUs
    learning_rate: float = 1e-3
    text_share: float = 0.3  # of the learning rate, for the text encoders, which had a start of their own
    small_until: float = 0.4  # of the steps; before, small pictures come more often: layout is learnt cheaply there
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


class _Pace:
    """Seconds since the start, and how many steps fit into what is left at the pace of late."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._mark: tuple[int, float] | None = None

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def fit(self, step: int, steps: int, minutes: float) -> int:
        """The number of steps that `minutes` allow, by the pace since the last call; `steps` at the first."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        last, self._mark = self._mark, (step, self.seconds())
        if last is None:  # until then kernels were compiled and graphs captured
            return steps
        pace = (self._mark[1] - last[1]) / (step - last[0])
        return step + max(1, int((minutes * 60 - self._mark[1]) / pace))


def train_dit(model: Model, examples: Mapping[Size, Examples], *, config: DiTConfig, folder: Path, log: Log) -> None:
    """Flow matching; leaves `model` with averaged weights. Goes on from the last checkpoint in `folder`."""
    descent = Descent(
        dict(model.named_parameters()),
        betas=(0.9, 0.95),
        weight_decay=0.01,
        ema=config.ema,
        shares={"dit.": 1.0, "": config.text_share},
    )
    path, state = folder / "dit.safetensors", (descent.parameters, descent.average, descent.optimizer)
    first = step = load_checkpoint(path, *state)
    take = Graphed(_flow_step(model, descent, config), log=log)
    pace, steps, running = _Pace(), config.steps, torch.zeros(())
    batches = _batches(examples, config, start=step)
    while step < steps:
        if step % config.checkpoint == 0:
            torch.manual_seed((config.seed * 64 + parallel.rank()) * 1_000_003 + step)  # as if never interrupted
            small = config.small_weight if step < config.small_until * steps else 1.0
            batches = _batches(examples, config, start=step, small=small)
            save_checkpoint(path, *state, step)
        if config.minutes and step > first and (step - first) % REFIT == 0:
            steps = parallel.agree(pace.fit(step, steps, config.minutes), _device(model))
        step += 1
        descent.prepare(config.learning_rate * rise_and_fall(step, warmup=config.warmup, of=steps), step)
        loss = take(*next(batches))
        running = running.to(loss) * 0.98 + 0.02 * loss if step - first > 1 else loss
        if step % 100 == 0 or step == steps:
            log.add("dit", step=step, seconds=pace.seconds(), loss=float(running), of=steps)
    save_checkpoint(path, *state, step)
    descent.keep_average()


def distil(model: Model, examples: Mapping[Size, Examples], *, config: DiTConfig, log: Log) -> None:
    """Teach the DiT what guidance does; the text encoders stay as they are."""
    teacher = copy.deepcopy(model)  # used without gradients; its parameters keep asking for them, as the graphs expect
    if config.compile:
        teacher.compile_parts()
    for encoder in (model.clip, model.t5):
        encoder.requires_grad_(False)
    parameters = dict(model.dit.named_parameters())
    descent = Descent(parameters, betas=(0.9, 0.95), weight_decay=0.0, ema=0.995)
    torch.manual_seed(config.seed * 64 + parallel.rank())
    batches, started = _batches(examples, config, start=0, share=0.5), time.perf_counter()
    take = Graphed(_distil_step(model, teacher, descent, config), log=log)
    for step in range(1, config.distil_steps + 1):
        rate = rise_and_fall(step, warmup=50, of=config.distil_steps)
        descent.prepare(config.distil_learning_rate * rate, step)
        loss = take(*next(batches))
        if step % 50 == 0 or step == config.distil_steps:
            log.add("distil", step=step, seconds=time.perf_counter() - started, loss=float(loss))
    descent.keep_average()


def _flow_step(model: Model, descent: Descent, config: DiTConfig) -> Callable[..., Tensor]:
    def step(*batch: Tensor) -> Tensor:
        loss = flow_loss(model, *batch, config=config)
        descent(loss)
        return loss.detach()

    return step


def _distil_step(model: Model, teacher: Model, descent: Descent, config: DiTConfig) -> Callable[..., Tensor]:
    def step(*batch: Tensor) -> Tensor:
        loss = distillation_loss(model, teacher, *batch, config=config)
        descent(loss)
        return loss.detach()

    return step


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
    t5[:, 0].fill_(1)  # `= 1` might bring the number from the host, which a captured step must not
    return clip, t5


def _batches(
    examples: Mapping[Size, Examples], config: DiTConfig, *, start: int, share: float = 1.0, small: float = 1.0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random batches of one size each: latents, CLIP ids, T5 ids; some captions are dropped.

    Sizes come as often as the pictures of each, small ones (up to SMALL pixels) `small` times as often.
    """
    sizes = list(examples)
    counts = [(small if w * h <= SMALL else 1.0) * len(examples[w, h].latents) for w, h in sizes]
    weights = torch.tensor(counts)
    chooser = torch.Generator().manual_seed(config.seed + start)
    while True:
        source = examples[sizes[int(torch.multinomial(weights, 1, generator=chooser))]]
        number, device = len(source.latents), source.latents.device
        tokens = source.latents[0, 0].numel() // 4 + source.t5_ids.shape[-1]
        batch = min(number, max(1, int(config.tokens * share / tokens / parallel.world())))
        row = torch.randint(number, (batch,), device=device)
        caption = torch.randint(source.clip_ids.shape[1], (batch,), device=device)
        clip_ids, t5_ids = source.clip_ids[row, caption].long(), source.t5_ids[row, caption].long()
        dropped = (torch.rand(batch, device=device) < config.caption_dropout)[:, None]
        empty_clip, empty_t5 = _empty(clip_ids, t5_ids)
        yield (
            source.latents[row].float(),
            torch.where(dropped, empty_clip, clip_ids),
            torch.where(dropped, empty_t5, t5_ids),
        )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
