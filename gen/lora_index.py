"""The folder of LoRA files as a list: names, and the words that call them up, read from the files' metadata.

Reads headers, never tensors, so it needs no torch; a header is read once for each state of a file. Names come from
files, and nobody's text becomes a path. Knows no model: whether a file fits is `gen.lora`'s business.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from gen.request import LORA_NAME_MAX_CHARACTERS, is_lora_name

TRIGGERS_MAX, TRIGGER_CHARACTERS = 5, 60
TAGS_MAX_CHARACTERS = 2**20  # of kohya's table of tags
# As written by ModelSpec (kohya, ai-toolkit), by trainers of their own, and by diffusers' DreamBooth.
_TRIGGER_KEYS = ("modelspec.trigger_phrase", "trigger_words", "trigger_word", "instance_prompt")
_TAGS = "ss_tag_frequency"  # kohya: {"folder": {"tag": count}} as JSON

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """One file of the folder."""

    name: str
    triggers: tuple[str, ...] = ()  # words that call it up, where its metadata has any


class LoraIndex:
    """All files of one folder. Blocking; one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: set[str] = set()  # names of files that cannot be asked for
        self._known: dict[str, tuple[tuple[int, int], LoraInfo]] = {}  # name → the file's state and what it says

    def look(self) -> tuple[LoraInfo, ...]:
        """What lies there now, by name; nothing where there is no such folder."""
        found = {}
        for name in list_loras(self.folder):
            try:
                status = (self.folder / f"{name}.safetensors").stat()
            except OSError:
                continue  # it has just gone
            state, known = (status.st_mtime_ns, status.st_size), self._known.get(name)
            found[name] = known if known is not None and known[0] == state else (state, self._read(name))
        self._known = found
        self._tell_of_others()
        return tuple(info for _, info in found.values())

    def _tell_of_others(self) -> None:
        """Say once in the log which files cannot be asked for, by their names."""
        for path in self.folder.glob("*.safetensors"):
            if path.stem not in self._told and not is_lora_name(path.stem):
                self._told.add(path.stem)
                text = (
                    "the LoRA file %r is not offered: rename it to at most %d letters, digits, inner spaces, and . _ -"
                )
                _log.warning(text, path.name, LORA_NAME_MAX_CHARACTERS)

    def _read(self, name: str) -> LoraInfo:
        try:
            with safe_open(self.folder / f"{name}.safetensors", framework="numpy") as file:
                return LoraInfo(name=name, triggers=triggers_of(file.metadata() or {}))
        except (OSError, SafetensorError):
            return LoraInfo(name=name)  # drawing with it says what is wrong


def list_loras(folder: Path) -> list[str]:
    """Names of the LoRA files in a folder, sorted; none where there is no such folder."""
    found = (path.stem for path in folder.glob("*.safetensors") if path.is_file())
    return sorted(filter(is_lora_name, found))


def triggers_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that a file's metadata names; else the most frequent of the tags that it was trained on."""
    for key in _TRIGGER_KEYS:
        words = _clean(metadata.get(key, "").split(","))
        if words:
            return words
    return _clean(_frequent_tags(metadata.get(_TAGS, "")))


def _frequent_tags(table: str) -> list[str]:
    if len(table) > TAGS_MAX_CHARACTERS:
        return []
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(table or "{}").values():
            counts.update({str(tag): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    return [tag for tag, _ in counts.most_common(TRIGGERS_MAX)]


def _clean(words: list[str]) -> tuple[str, ...]:
    """A few short words without anything that does not show."""
    shown = ("".join(c for c in word if unicodedata.category(c)[0] not in "CZ" or c == " ").strip() for word in words)
    return tuple(dict.fromkeys(word[:TRIGGER_CHARACTERS] for word in shown if word))[:TRIGGERS_MAX]
