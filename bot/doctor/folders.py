"""`kiln doctor` about folders that an operator may bring: LoRAs, and a picture classifier.

Each check is a function of the settings. Reads headers, and loads no torch.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from bot.doctor.finding import Finding, fail, ok, warn
from bot.settings import Settings
from gen.errors import WeightsMissing
from gen.lora_index import list_loras
from gen.picture_classifier import HARMLESS
from gen.weight_file import read_shapes

_NAMED = 5  # files at most; the others are counted
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def loras(settings: Settings) -> Finding:
    """Whether the folder of LoRAs can be read, and each file in it is whole and can be asked for by its name."""
    folder = settings.lora_folder
    cure = "Give this user the right to read it, or set KILN_LORAS to another folder."
    try:
        if not folder.exists():
            if settings.loras is None:
                return ok("loras", f"none: {folder} is where they go")
            return warn(
                "loras", f"KILN_LORAS is {folder}, and there is no such folder", "Make it, or correct the name."
            )
        files = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors" and path.is_file())
    except OSError as error:
        return warn("loras", f"{folder} cannot be read: {error.strerror}", cure)
    named = set(list_loras(folder))
    wrong = [words for path in files if (words := _wrong(path, named))]
    detail = f"{len(files) - len(wrong)} in {folder}"
    if not wrong:
        return ok("loras", detail)
    more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return warn(
        "loras", f"{detail}; {'; '.join(wrong[:_NAMED])}{more}", "Fetch these files again, rename or remove them."
    )


def _wrong(path: Path, named: set[str]) -> str:
    if path.stem not in named:
        return f"{path.name!r} has a name that nobody can ask for"
    try:
        read_shapes(path)
    except WeightsMissing as error:
        return str(error).replace(str(path), path.name).rstrip(".")
    return ""


def classifier(settings: Settings) -> Finding:
    """Whether the picture classifier of KILN_CLASSIFIER could be loaded; a start fails where it cannot."""
    folder = settings.classifier
    if folder is None:
        return ok("classifier", "none: pictures are posted without a look")
    if importlib.util.find_spec("transformers") is None:
        cure = "Install Kiln's dependencies again: make demo, or pip install -e ."
        return fail("classifier", "the package transformers, which reads it, is not installed", cure)
    try:
        wrong, labels = _classifier(folder)
    except OSError as error:
        wrong, labels = f"{error.filename} cannot be read: {error.strerror}", ()
    except WeightsMissing as error:
        wrong, labels = str(error).rstrip("."), ()
    if wrong:
        cure = (
            "Set KILN_CLASSIFIER to the whole folder of a classifier in safetensors, such as "
            "Falconsai/nsfw_image_detection, or leave it out."
        )
        return fail("classifier", wrong, cure)
    return ok("classifier", f"{folder}: {', '.join(labels)}")


def _classifier(folder: Path) -> tuple[str, tuple[str, ...]]:
    """What is wrong with its files, and its labels."""
    if not folder.is_dir():
        return f"KILN_CLASSIFIER is {folder}, and there is no such folder", ()
    if not (folder / "config.json").is_file():
        return f"{folder} holds no picture classifier: it has no config.json", ()
    if not any((folder / name).is_file() for name in _PROCESSORS):
        return f"{folder} has no {_PROCESSORS[0]}, which says how pictures are made ready for it", ()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return f"{folder} has no *.safetensors file; other forms of weights are not read", ()
    for path in files:
        read_shapes(path)
    labels = _labels(folder / "config.json")
    if not HARMLESS & {name.lower() for name in labels}:
        return f"{folder} has no label for harmless pictures; it has {', '.join(labels) or 'none'}", ()
    return "", labels


def _labels(config: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(config.read_text("utf-8")).get("id2label", {}).values()))
    except (ValueError, AttributeError) as error:
        raise WeightsMissing(f"{config} is no JSON object with labels: {error}") from error
