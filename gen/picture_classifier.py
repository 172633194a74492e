"""An image classifier of transformers that tells what is not safe for work, on the CPU; optional, weights not included.

Any `AutoModelForImageClassification` with a label for harmless pictures, such as Falconsai/nsfw_image_detection
(a ViT of 86 M parameters, Apache-2.0, 343 MB as safetensors). NudeNet was looked at and not taken: the wheel 3.4.2
names MIT but brings the text of the AGPL-3.0, its weights are a YOLOv8 of Ultralytics, AGPL-3.0 as well, and it comes
as ONNX, which this repository does not run. Knows no Discord. Loads torch when it is made, not before.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from gen.errors import WeightsMissing
from gen.message import msg

HARMLESS = frozenset({"normal", "neutral", "safe", "sfw", "drawing", "drawings"})
SURE = 0.5  # probability of all harmful labels together from which a picture counts


class TransformersClassifier:
    """One model, used from any thread."""

    def __init__(self, folder: Path) -> None:
        """Load it; raise WeightsMissing for a folder that holds none, or one that knows nothing harmless."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        if not (folder / "config.json").is_file():
            raise WeightsMissing(msg("{folder} holds no picture classifier: it has no config.json."), folder=folder)
        try:
            local: dict[str, Any] = {"local_files_only": True}
            self._processor = AutoImageProcessor.from_pretrained(folder, **local)  # type: ignore[no-untyped-call]
            model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, **local)
        except (OSError, ValueError, KeyError) as error:
            text = msg("The picture classifier in {folder} cannot be loaded: {error}")
            raise WeightsMissing(text, folder=folder, error=str(error).splitlines()[0]) from error
        self._model = model.eval()
        self._labels = {int(number): str(name).lower() for number, name in model.config.id2label.items()}
        if not HARMLESS & set(self._labels.values()):
            text = msg("The picture classifier in {folder} has no label for harmless pictures; it has {labels}.")
            raise WeightsMissing(text, folder=folder, labels=tuple(self._labels.values()))

    def found(self, png: bytes) -> str | None:
        """The harmful label that is most probable, if all of them together are more probable than not."""
        import torch

        with Image.open(io.BytesIO(png)) as picture, torch.inference_mode():
            pixels = self._processor(images=picture.convert("RGB"), return_tensors="pt")
            shares = self._model(**pixels).logits[0].softmax(-1).tolist()
        harmful = {name: shares[number] for number, name in self._labels.items() if name not in HARMLESS}
        if sum(harmful.values()) < SURE:
            return None
        return max(harmful, key=lambda name: harmful[name])
