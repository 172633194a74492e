"""`python -m gen.demo.evaluate --json`: does the demo model draw what captions ask for?

Held-out captions, whose combinations of thing, colour, ground and time never occur in training, are drawn; a
classifier that saw real renders only reads the pictures back. English against Chinese, float32 against bfloat16
against float8 weights, and the variety of pictures beside that of real renders. Knows nothing of training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gen.demo.captions import Caption, describe
from gen.demo.classifier import Classifier, load_classifier, to_square
from gen.demo.classifier_training import accuracy
from gen.demo.dataset import labels_of
from gen.demo.report import contact_sheet
from gen.demo.scenes import ATTRIBUTES, Scene, draw_scene, sample_scene
from gen.device import best_device
from gen.engine import Options
from gen.flux import build_engine, build_pipeline
from gen.streaming.sizes import Precision
from gen.weights import DEMO_WEIGHTS, Weights, find_weights

CAPTIONS = 640  # by default, in each language
DIVERSITY_CAPTIONS, DIVERSITY_SEEDS = 24, 8
HELD_OUT_WORDS = {"thing", "colour", "ground", "time"}  # what scenes.is_held_out goes by
GUIDANCES = (1.0, 2.0, 5.0, 8.0)  # measured beside the default, on half of the captions
SHEET_COLUMNS, SHEET_TILE = 6, 176  # pixels
SHEET_PROMPTS = (
    "a red house at night",
    "three small white boats on the sea at sunset",
    "a large purple castle in a desert at dawn, under the moon",
    "two orange cats in the city, on the left",
    "a yellow hot-air balloon over a meadow at noon, cloudy sky",
    "a green tree in a snow field while it snows",
    "two blue mountains under a starry sky",
    "a white lighthouse by the sea in the rain",
    "three brown houses on the right, in a meadow",
    "a large orange balloon at dawn, in the middle",
    "a small blue lighthouse in the desert on the left, at noon",
    "a cat",
    "夜晚的一座红色房子",
    "日落时海上的三艘白色小船",
    "沙漠里的一座紫色大城堡，黎明，月光下",
    "城市里左边有两只橙色的猫",
    "中午草地上空的黄色热气球，多云",
    "雪地里的一棵绿树，下雪",
    "星空下的两座蓝色的山",
    "雨中海边的一座白色灯塔",
    "右边有三座棕色的房子，草地上",
    "清晨，中间有一个橙色的大热气球",
    "左边，沙漠里的一座蓝色小灯塔，中午",
    "一只猫",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One held-out caption and the scene it tells of."""

    caption: Caption
    scene: Scene


class Drawer:
    """Draws batches of captions exactly as the pipeline draws one: its noise, schedule, model function and VAE."""

    def __init__(self, weights: Weights, *, device: str, precision: str) -> None:
        dtype = (
            torch.bfloat16 if precision == "bfloat16" or (device != "cpu" and precision == "float8") else torch.float32
        )
        self._weights, self._device = weights, torch.device(device)
        if precision == "float8":  # through the streamed engine, as an operator's KILN_PRECISION has it
            options = Options(device=self._device, dtype=dtype, precision=Precision.FLOAT8, compiled=False)
            self._pipe, self._engine = build_engine(weights, options)
        else:
            self._pipe = build_pipeline(weights, device=self._device, dtype=dtype)

    @torch.inference_mode()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, guidance: float | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] at the model's default size and steps."""
        pipe, profile = self._pipe, self._weights.profile
        pipe.scheduler.set_timesteps(profile.steps)
        shape = (1, 16, profile.height // 8, profile.width // 8)
        x = torch.cat([pipe.generate_noise(shape, seed=seed) for seed in seeds])
        text = self._encode(prompts, x)
        scale = torch.full((len(x),), profile.guidance if guidance is None else guidance).to(x)
        for index, timestep in enumerate(pipe.scheduler.timesteps):
            now = timestep.expand(len(x)).to(x)
            asked = {"dit": pipe.dit, "latents": x, "timestep": now, "guidance": scale, "progress_id": index}
            velocity = pipe.model_fn(**asked, **text)
            x = pipe.step(pipe.scheduler, latents=x, progress_id=index, noise_pred=velocity)
        pictures: Tensor = pipe.vae_decoder(x).float().clamp(-1, 1)
        return pictures

    def _encode(self, prompts: Sequence[str], like: Tensor) -> dict[str, Tensor]:
        pipe, length = self._pipe, self._weights.shape.t5_tokens
        options = {"return_tensors": "pt", "padding": "max_length", "truncation": True}
        clip = pipe.tokenizer_1(list(prompts), max_length=77, **options).input_ids.to(self._device)
        t5 = pipe.tokenizer_2(list(prompts), max_length=length, **options).input_ids.to(self._device)
        places = torch.zeros(len(prompts), length, 3).to(like)
        pooled = pipe.text_encoder_1(clip)[0]
        return {"prompt_emb": pipe.text_encoder_2(t5), "pooled_prompt_emb": pooled, "text_ids": places}


def held_out_captions(number: int, *, language: str, seed: int) -> list[Asked]:
    """Captions of held-out scenes, worded freely by the grammar."""
    rng = random.Random(f"{language} {seed}")
    scenes = [sample_scene(rng, held_out=True) for _ in range(number)]
    return [Asked(caption=describe(scene, rng=rng, language=language), scene=scene) for scene in scenes]


def measure(
    drawer: Drawer, classifier: Classifier, asked: Sequence[Asked], *, batch: int, guidance: float | None = None
) -> dict[str, float]:
    """Share of stated attributes that the pictures show, per attribute and overall.

    "fully_stated" is the share of all attributes stated in the captions that name every word of their held-out
    combination, "fully_stated_captions" how many these are.
    """
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    fully: list[bool] = []
    captions = 0
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        seeds = range(start, start + len(part))
        pictures = drawer.draw([one.caption.text for one in part], seeds, guidance=guidance)
        for one, read in zip(part, read_batch(classifier, pictures), strict=True):
            hits = {name: read[name] == getattr(one.scene, name) for name in one.caption.mentioned}
            for name, hit in hits.items():
                right[name].append(hit)
            if one.caption.mentioned >= HELD_OUT_WORDS:
                fully += hits.values()
                captions += 1
    every = list(itertools.chain.from_iterable(right.values()))
    shares = {name: sum(hits) / len(hits) for name, hits in right.items() if hits}
    if fully:
        shares |= {"fully_stated": sum(fully) / len(fully), "fully_stated_captions": float(captions)}
    return {**shares, "overall": sum(every) / len(every), "stated": float(len(every))}


@torch.inference_mode()
def read_batch(classifier: Classifier, pictures: Tensor) -> Iterator[dict[str, str | int]]:
    """The attributes of each picture (B, 3, H, W) in [-1, 1]."""
    logits = classifier(to_square(pictures))
    found = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
    for index in range(len(pictures)):
        yield {name: ATTRIBUTES[name][found[name][index]] for name in ATTRIBUTES}


def diversity(drawer: Drawer, classifier: Classifier, asked: Sequence[Asked], *, device: str) -> dict[str, float]:
    """Mean distance between pictures of one caption, drawn and really rendered, in pixels and in features.

    Real renders vary what the caption leaves open, as training pictures do. Pixels: root mean square at 64x64, in
    [-1, 1]. Features: distance of the classifier's normalized last feature maps, in the manner of LPIPS.
    """
    sums = {"drawn_pixels": 0.0, "real_pixels": 0.0, "drawn_features": 0.0, "real_features": 0.0}
    for index, one in enumerate(asked):
        seeds = [10_000 + index * DIVERSITY_SEEDS + k for k in range(DIVERSITY_SEEDS)]
        drawn = drawer.draw([one.caption.text] * DIVERSITY_SEEDS, seeds)
        real = torch.stack([_real(one, seed) for seed in seeds]).to(device)
        for name, pictures in (("drawn", drawn), ("real", real)):
            pixels, features = _distances(classifier, pictures)
            sums[f"{name}_pixels"] += pixels / len(asked)
            sums[f"{name}_features"] += features / len(asked)
    ratios = {f"{kind}_ratio": sums[f"drawn_{kind}"] / sums[f"real_{kind}"] for kind in ("pixels", "features")}
    return {**sums, **ratios}


def _real(one: Asked, seed: int) -> Tensor:
    """A render of a scene that agrees with the caption where it says something."""
    rng = random.Random(seed)
    stated = one.caption.mentioned
    while True:
        scene = sample_scene(rng, held_out=rng.random() < 0.125)
        if all(getattr(scene, name) == getattr(one.scene, name) for name in stated - {"thing", "colour"}):
            break
    fixed: dict[str, Any] = {name: getattr(one.scene, name) for name in ("thing", "colour") if name in stated}
    scene = Scene(**{name: fixed.get(name, getattr(scene, name)) for name in ATTRIBUTES})
    picture = np.asarray(draw_scene(scene, width=256, height=256, seed=seed))
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1


@torch.inference_mode()
def _distances(classifier: Classifier, pictures: Tensor) -> tuple[float, float]:
    small = nn.functional.interpolate(pictures, (64, 64), mode="bilinear", antialias=True).flatten(1)
    features = nn.functional.normalize(classifier.body(to_square(pictures)), dim=1).flatten(1)
    pixels = torch.pdist(small).mean() / small.shape[1] ** 0.5
    return float(pixels), float(torch.pdist(features).mean() / 6)  # 6x6 places


def read_renders(classifier: Classifier, number: int, *, device: str) -> dict[str, float]:
    """Share of attributes that the classifier reads right from held-out renders that it never saw."""
    rng = random.Random("unseen")
    scenes = [sample_scene(rng, held_out=True) for _ in range(number)]
    pixels = [
        np.asarray(draw_scene(scene, width=256, height=256, seed=50_000_000 + i)) for i, scene in enumerate(scenes)
    ]
    pictures = torch.from_numpy(np.stack(pixels)).to(device)
    return accuracy(classifier, [(pictures, torch.tensor([labels_of(scene) for scene in scenes], device=device))])


def draw_sheet(drawer: Drawer, *, batch: int) -> Image.Image:
    """The fixed prompts, English above Chinese, each with its number as seed."""
    pictures: list[Image.Image] = []
    for start in range(0, len(SHEET_PROMPTS), batch):
        prompts = SHEET_PROMPTS[start : start + batch]
        drawn = drawer.draw(prompts, range(start, start + len(prompts)))
        pixels = ((drawn + 1) * 127.5).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        pictures += [Image.fromarray(picture) for picture in pixels]
    return contact_sheet(pictures, columns=SHEET_COLUMNS, tile=SHEET_TILE)


def _overall(
    drawer: Drawer, classifier: Classifier, asked: dict[str, list[Asked]], batch: int, guidance: float
) -> dict[str, float]:
    return {
        word: measure(drawer, classifier, some, batch=batch, guidance=guidance)["overall"]
        for word, some in asked.items()
    }


def evaluate(folder: Path, *, captions: int, precisions: Sequence[str], device: str, batch: int) -> dict[str, Any]:
    """All figures of the model in `folder`."""
    weights, classifier = find_weights(folder), load_classifier(folder / "classifier.safetensors").to(device)
    asked = {word: held_out_captions(captions, language=word, seed=11) for word in ("en", "zh")}
    result: dict[str, Any] = {"captions": captions, "device": device, "steps": weights.profile.steps}
    result["classifier"] = {"renders": 2 * captions, **read_renders(classifier, 2 * captions, device=device)}
    for precision in precisions:
        drawer = Drawer(weights, device=device, precision=precision)
        result[precision] = {word: measure(drawer, classifier, some, batch=batch) for word, some in asked.items()}
        if precision == precisions[0]:
            spread = asked["en"][:DIVERSITY_CAPTIONS]
            result["diversity"] = diversity(drawer, classifier, spread, device=device)
            few = {word: some[: max(1, captions // 2)] for word, some in asked.items()}
            result["guidance"] = {str(scale): _overall(drawer, classifier, few, batch, scale) for scale in GUIDANCES}
    return result


def main() -> int:
    """Parse the command line, evaluate, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEMO_WEIGHTS)
    parser.add_argument("--captions", type=int, default=CAPTIONS, help="held-out captions in each language")
    parser.add_argument("--precisions", default="float32,bfloat16,float8")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--sheet", type=Path, help="also draw the contact sheet of fixed prompts into this file")
    arguments = parser.parse_args()
    if arguments.sheet:
        drawer = Drawer(find_weights(arguments.weights), device=best_device(), precision="float32")
        draw_sheet(drawer, batch=arguments.batch).save(arguments.sheet, quality=88)
    result = evaluate(
        arguments.weights,
        captions=arguments.captions,
        precisions=arguments.precisions.split(","),
        device=best_device(),
        batch=arguments.batch,
    )
    sys.stdout.write(json.dumps(result, indent=1) + "\n" if arguments.json else _table(result))
    return 0


def _table(result: dict[str, Any]) -> str:
    columns = [(p, w) for p in ("float32", "bfloat16", "float8") if p in result for w in ("en", "zh")]
    lines = ["".join(f"{text:>14}" for text in ("", *(f"{p} {w}" for p, w in columns)))]
    for name in (*ATTRIBUTES, "overall"):
        cells = (f"{result[p][w].get(name, float('nan')):.1%}" for p, w in columns)
        lines.append("".join(f"{text:>14}" for text in (name, *cells)))
    spread = ", ".join(f"{name} {value:.3f}" for name, value in result["diversity"].items())
    return "\n".join([*lines, f"diversity: {spread}", ""])


if __name__ == "__main__":
    sys.exit(main())
