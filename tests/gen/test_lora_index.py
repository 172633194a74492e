"""The folder of LoRAs as a list: names, trigger words from metadata, and only what changed is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gen.lora_index import LoraIndex, LoraInfo, triggers_of


def save(folder: Path, name: str, **metadata: str) -> None:
    save_file({"x": np.zeros(1, dtype=np.float32)}, folder / f"{name}.safetensors", metadata=metadata)


def test_a_file_that_cannot_be_asked_for_by_its_name_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "ink")
    (tmp_path / "ink.safetensors").rename(tmp_path / f"{'i' * 81}.safetensors")
    index = LoraIndex(tmp_path)
    assert index.look() == index.look() == ()
    (told,) = caplog.messages
    assert "i" * 81 in told
    assert "at most 80 letters" in told


def test_a_name_that_ends_in_a_space_is_told_and_not_offered_since_nobody_could_type_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "ink ")
    assert LoraIndex(tmp_path).look() == ()
    assert "'ink .safetensors' is not offered: rename it" in caplog.text


def test_a_folder_is_listed_by_name_with_trigger_words(tmp_path: Path) -> None:
    save(tmp_path, "ink wash", trigger_words="ink wash, brush")
    save(tmp_path, "b.2")
    save(tmp_path, "水墨")
    assert LoraIndex(tmp_path).look() == (
        LoraInfo(name="b.2"),
        LoraInfo(name="ink wash", triggers=("ink wash", "brush")),
        LoraInfo(name="水墨"),
    )


def test_no_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert LoraIndex(tmp_path / "none").look() == ()


def test_what_comes_changes_and_goes_is_seen_at_the_next_look(tmp_path: Path) -> None:
    index = LoraIndex(tmp_path)
    save(tmp_path, "a", trigger_words="one")
    assert index.look()[0].triggers == ("one",)
    save(tmp_path, "a", trigger_words="another")
    assert index.look()[0].triggers == ("another",)
    (tmp_path / "a.safetensors").unlink()
    assert index.look() == ()


def test_only_a_file_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, read = LoraIndex(tmp_path), list[str]()
    for number in range(3):
        save(tmp_path, f"lora{number}")
    usual = index._read

    def noted(name: str) -> LoraInfo:
        read.append(name)
        return usual(name)

    monkeypatch.setattr(index, "_read", noted)
    index.look()
    save(tmp_path, "lora1", trigger_words="new")
    index.look()
    assert read == ["lora0", "lora1", "lora2", "lora1"]


def test_a_damaged_file_is_listed_and_files_of_other_names_are_not(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "pickle.ckpt").write_bytes(b"")
    save(tmp_path, "-rf")
    save(tmp_path, "a" * 90)
    (tmp_path / "folder.safetensors").mkdir()
    assert LoraIndex(tmp_path).look() == (LoraInfo(name="broken"),)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "in the style of ink"}, ("in the style of ink",)),
        ({"instance_prompt": "a photo of sks dog"}, ("a photo of sks dog",)),
        ({"ss_tag_frequency": json.dumps({"10_ink": {"ink": 20, "tree": 3}, "5_x": {"ink": 2}})}, ("ink", "tree")),
        ({"trigger_words": " , ,"}, ()),
        ({"trigger_words": "a\u202eb,a\u202eb,\n"}, ("ab",)),
        ({"trigger_words": ",".join(str(n) for n in range(99))}, ("0", "1", "2", "3", "4")),
        ({"trigger_words": "x" * 500}, ("x" * 60,)),
        ({"ss_tag_frequency": "[" * 5000}, ()),
        ({"ss_tag_frequency": json.dumps({"a": {"b": "many"}})}, ()),
        ({"ss_tag_frequency": json.dumps([1])}, ()),
        ({"ss_tag_frequency": "x" * (2**20 + 1)}, ()),
        ({}, ()),
    ],
)
def test_trigger_words_are_few_short_and_visible(metadata: dict[str, str], words: tuple[str, ...]) -> None:
    assert triggers_of(metadata) == words
