"""The picture classifier: a real small ViT in a folder, and folders that hold none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gen.errors import WeightsMissing
from gen.picture_classifier import TransformersClassifier


def folder(path: Path, labels: tuple[str, ...], *, sure_of: int = 0) -> Path:
    """A ViT of random weights that always answers with the label of that number."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        last: Any = model.classifier
        last.weight.zero_()
        last.bias.copy_(torch.tensor([4.0 if number == sure_of else 0.0 for number in range(len(labels))]))
    model.save_pretrained(path, safe_serialization=True)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (40, 20), "red").save(file, format="PNG")
    return file.getvalue()


def test_it_names_what_it_finds_and_nothing_where_it_is_harmless(tmp_path: Path) -> None:
    assert TransformersClassifier(folder(tmp_path / "a", ("normal", "nsfw"), sure_of=1)).found(png()) == "nsfw"
    assert TransformersClassifier(folder(tmp_path / "b", ("normal", "nsfw"), sure_of=0)).found(png()) is None


def test_harmful_labels_count_together(tmp_path: Path) -> None:
    labels = ("neutral", *(f"harm{number}" for number in range(60)))  # the neutral one is the single most probable
    classifier = TransformersClassifier(folder(tmp_path / "a", labels, sure_of=0))
    assert classifier.found(png()) == "harm0"


def test_a_folder_that_holds_none_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"has no config\.json"):
        TransformersClassifier(tmp_path)
    broken = folder(tmp_path / "a", ("normal", "nsfw"))
    (broken / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="cannot be loaded"):
        TransformersClassifier(broken)


def test_a_model_without_a_harmless_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="no label for harmless pictures; it has cat, dog"):
        TransformersClassifier(folder(tmp_path / "a", ("cat", "dog")))
