"""Training pictures and captions, rendered by many processes and kept as tensors on one device.

Every picture comes with its mirror image (left and right change places in its scene and captions). Deterministic by
seed, whatever the number of processes. Knows the scenes and the tokenizers, no model.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gen.demo import parallel
from gen.demo.captions import Caption, describe
from gen.demo.scenes import ATTRIBUTES, Scene, draw_scene, sample_scene
from gen.demo.tokenizers import encode_clip, encode_t5

LANGUAGES = ("en", "zh", "en", "zh", "en")  # a picture's captions, by language
MIRRORED = {"left": "right", "right": "left", "middle": "middle"}
_SHARD = 64  # scenes a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Pictures of one size with what is said of them."""

    pixels: Tensor  # (N, H, W, 3) uint8
    labels: Tensor  # (N, attributes) int64, indices into ATTRIBUTES
    clip_ids: Tensor  # (N, captions, 77) int16
    t5_ids: Tensor  # (N, captions, tokens) int16
    stated: Tensor  # (N, captions, attributes) bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One shard to render: `index` seeds it."""

    index: int
    width: int
    height: int
    held_out: bool
    tokenizers: Path  # the folder that holds tokenizer/ and tokenizer_2/
    t5_tokens: int


def plan_tasks(sizes: dict[tuple[int, int], int], *, held_out: bool, tokenizers: Path, t5_tokens: int) -> list[Task]:
    """Tasks that render `sizes` (width, height) → pictures, interleaved so that every stretch holds every size."""
    counts = [(size, -(-number // (2 * _SHARD))) for size, number in sizes.items()]
    spread = sorted((step / count, size) for size, count in counts for step in range(count))
    return [
        Task(index=i, width=w, height=h, held_out=held_out, tokenizers=tokenizers, t5_tokens=t5_tokens)
        for i, (_, (w, h)) in enumerate(spread)
    ]


def render(tasks: Sequence[Task]) -> Iterator[Shard]:
    """Render shards in the order of `tasks`, on all cores."""
    context = multiprocessing.get_context("spawn")
    cores = max(1, (os.cpu_count() or 1) // parallel.world())
    with context.Pool(cores, initializer=_be_quiet) as pool:
        for arrays in pool.imap(_render_shard, tasks):
            yield Shard(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def sample_captions(number: int, *, seed: int) -> list[str]:
    """Captions of random scenes in both languages, for training the tokenizers."""
    rng = random.Random(seed)
    return [describe(sample_scene(rng), rng=rng, language=LANGUAGES[i % 2]).text for i in range(number)]


def labels_of(scene: Scene) -> list[int]:
    """Each attribute's index into its values."""
    return [values.index(getattr(scene, name)) for name, values in ATTRIBUTES.items()]


def vary_case(text: str, rng: random.Random) -> str:
    """As people type: mostly as it is, at times Capitalised, Title Case or SHOUTED."""
    draw = rng.random()
    if draw < 0.1:
        return text[:1].upper() + text[1:]
    if draw < 0.14:
        return text.title()
    return text.upper() if draw < 0.16 else text


def _be_quiet() -> None:
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _render_shard(task: Task) -> dict[str, np.ndarray]:
    """The fields of one Shard as arrays."""
    rng = random.Random(f"{task.index} {task.held_out}")
    pictures: list[np.ndarray] = []
    labels: list[list[int]] = []
    captions: list[Caption] = []
    for number in range(_SHARD):
        scene = sample_scene(rng, held_out=task.held_out)
        seed = task.index * _SHARD + number + (1 << 31) * task.held_out
        picture = draw_scene(scene, width=task.width, height=task.height, seed=seed)
        for view, told in _both_ways(picture, scene):
            pictures.append(np.asarray(view))
            labels.append(labels_of(told))
            captions += [describe(told, rng=rng, language=word) for word in LANGUAGES]
    texts = [vary_case(caption.text, rng) for caption in captions]
    clip = encode_clip(task.tokenizers / "tokenizer", texts)
    t5 = encode_t5(task.tokenizers / "tokenizer_2", texts, tokens=task.t5_tokens)
    stated = [[name in caption.mentioned for name in ATTRIBUTES] for caption in captions]
    shape = (len(pictures), len(LANGUAGES), -1)
    return {
        "pixels": np.stack(pictures),
        "labels": np.array(labels),
        "clip_ids": np.array(clip, dtype=np.int16).reshape(shape),
        "t5_ids": np.array(t5, dtype=np.int16).reshape(shape),
        "stated": np.array(stated).reshape(shape),
    }


def _both_ways(picture: Image.Image, scene: Scene) -> Iterator[tuple[Image.Image, Scene]]:
    yield picture, scene
    yield ImageOps.mirror(picture), replace(scene, place=MIRRORED[scene.place])
