"""A small network that reads a scene's attributes back from a picture: the measure of the demo model.

Trained on real renders only, so that what it says of drawn pictures is not learnt from them. Knows no diffusion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from gen.demo.scenes import ATTRIBUTES

SIDE = 192  # pixels; pictures of any shape are stretched to a square
_WIDTHS = (24, 48, 72, 96, 96)


class Classifier(nn.Module):
    """Pictures (B, 3, 192, 192) in [-1, 1] → logits of every attribute, name → (B, values)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [_conv(inner, outer, stride=2), _Residual(outer)]
        self.body = nn.Sequential(*layers)  # 192 → 6
        self.squeeze = _conv(_WIDTHS[-1], 32, stride=1)  # keeps where things are: place and number need it
        self.heads = nn.ModuleDict(
            {name: nn.Linear(32 * 36 + _WIDTHS[-1], len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute."""
        features = self.body(pictures)
        flat = torch.cat([self.squeeze(features).flatten(1), features.amax((2, 3))], dim=1)
        return {name: head(flat) for name, head in self.heads.items()}


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels, stride=1), _conv(channels, channels, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.second(self.first(x))
        return result


def _conv(inner: int, outer: int, *, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=stride, padding=1), nn.GroupNorm(8, outer), nn.SiLU())


def to_square(pictures: Tensor) -> Tensor:
    """Stretch pictures (B, 3, H, W) in [-1, 1] to the classifier's side."""
    if pictures.shape[-2:] == (SIDE, SIDE):
        return pictures
    return nn.functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def load_classifier(path: Path) -> Classifier:
    """The trained classifier, float32 on the CPU, ready to read."""
    classifier = Classifier()
    classifier.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return classifier.eval().requires_grad_(False)


def read_attributes(classifier: Classifier, picture: Image.Image) -> dict[str, str | int]:
    """The most likely value of every attribute of an RGB picture."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)[None]
    logits = classifier(to_square(pixels.float() / 127.5 - 1))
    return {name: ATTRIBUTES[name][int(logits[name].argmax())] for name in ATTRIBUTES}
