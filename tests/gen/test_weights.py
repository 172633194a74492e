"""A weights folder that is missing, half, damaged or of another kind is named before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gen.errors import WeightsMissing
from gen.weight_file import read_shapes, sha256, stored_as
from gen.weights import DEMO_WEIGHTS, FLUX_DEV, FluxShape, check_dit, find_weights, read_profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model that a test may damage."""
    return Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _add(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def test_the_demo_model_is_found_whole() -> None:
    weights = find_weights(DEMO_WEIGHTS)
    assert weights.profile.is_demo
    assert (weights.profile.width, weights.profile.height, weights.profile.steps) == (256, 256, 12)
    assert weights.dit.name == "kiln-demo.safetensors"


def test_the_demo_model_is_safetensors_only_and_at_most_24_mib() -> None:
    files = [path for path in DEMO_WEIGHTS.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 24 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".py", ".png", ".jpg"}


@pytest.mark.parametrize("name", ["kiln-demo.safetensors", "ae.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("damage", [_cut, _add])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    with pytest.raises(WeightsMissing, match=rf"{Path(name).name} is damaged"):
        find_weights(folder)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("kiln-demo.safetensors", "lacks the DiT"),
        ("ae.safetensors", "lacks the VAE"),
        ("text_encoder", "text_encoder has no"),
        ("text_encoder_2", "text_encoder_2 has no"),
        ("tokenizer", "tokenizer is missing or incomplete: it needs tokenizer.json, or vocab.json and merges.txt"),
        ("tokenizer_2", "tokenizer_2 is missing or incomplete"),
    ],
)
def test_a_missing_part_is_named(folder: Path, name: str, word: str) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(WeightsMissing, match=word):
        find_weights(folder)


def test_a_file_in_the_place_of_a_folder_is_told_with_what_makes_one(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(WeightsMissing, match=r"mine\.safetensors is a file, .* `kiln weights pull .*mine"):
        find_weights(tmp_path / "mine.safetensors")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no weights folder at .*nowhere"):
        read_profile(tmp_path / "nowhere")


def test_an_empty_folder_lacks_its_dit(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="lacks the DiT"):
        read_profile(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\x80\x05pickle" * 20, b"\x08" + b"\0" * 7 + b"not json", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_what_is_not_safetensors_is_told_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsMissing, match=r"renamed\.safetensors"):
        read_shapes(path)


PLACE = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})


def _with_header(path: Path, header: str, *, size: int = 4) -> Path:
    """A safetensors file of `size` bytes behind any header."""
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
    return path


def test_a_header_of_nonsense_is_told_so(tmp_path: Path) -> None:
    path = _with_header(tmp_path / "odd.safetensors", json.dumps({"weight": {"dtype": "F32"}}), size=0)
    with pytest.raises(WeightsMissing, match=r"odd\.safetensors"):
        read_shapes(path)


def test_a_header_with_one_key_twice_is_told_so(tmp_path: Path) -> None:
    path = _with_header(tmp_path / "odd.safetensors", f'{{"weight": {PLACE}, "weight": {PLACE}}}')
    with pytest.raises(WeightsMissing, match=r"odd\.safetensors is damaged: its header has the key 'weight' twice"):
        read_shapes(path)


def test_what_a_header_says_beside_its_tensors_may_be_said_twice(tmp_path: Path) -> None:
    header = f'{{"__metadata__": {{"by": "one", "by": "another"}}, "weight": {PLACE}}}'
    assert read_shapes(_with_header(tmp_path / "said.safetensors", header)) == {"weight": (1,)}


def test_two_models_in_one_folder_are_refused(folder: Path) -> None:
    shutil.copy(folder / "kiln-demo.safetensors", folder / "second.safetensors")
    with pytest.raises(WeightsMissing, match="more than one file for the DiT"):
        find_weights(folder)


def test_a_shard_that_the_index_names_must_be_there(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "text_encoder_2" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsMissing, match=r"model-00002-of-00002\.safetensors is missing"):
        find_weights(folder)


@pytest.mark.parametrize("content", ['{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}"])
def test_an_index_of_nonsense_is_named(folder: Path, content: str) -> None:
    (folder / "text_encoder_2" / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsMissing, match=r"index\.json does not tell"):
        find_weights(folder)


@pytest.mark.parametrize(("name", "file"), [("tokenizer", "tokenizer.json"), ("tokenizer_2", "tokenizer.json")])
def test_half_a_tokenizer_is_named(folder: Path, name: str, file: str) -> None:
    (folder / name / file).unlink()
    with pytest.raises(WeightsMissing, match=f"{name} is missing or incomplete"):
        find_weights(folder)


def test_a_vae_without_its_encoder_is_named(folder: Path) -> None:
    state = load_file(folder / "ae.safetensors")
    save_file({name: t for name, t in state.items() if name.startswith("decoder.")}, folder / "ae.safetensors")
    with pytest.raises(WeightsMissing, match=r"ae\.safetensors does not fit.*encoder\.conv_in\.weight is missing"):
        find_weights(folder)


def _without_guidance(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in state.items() if "guidance_in" not in name}  # as FLUX.1-schnell is


def _with_a_picture_to_fill(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    (name,) = (name for name in state if name.endswith("img_in.weight"))
    return {**state, name: state[name].repeat(1, 6)}  # as FLUX.1-Fill-dev is


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (_without_guidance, r".*guidance_in\.in_layer\.weight is missing"),
        (_with_a_picture_to_fill, r".*img_in\.weight is"),
    ],
)
def test_a_relative_of_the_model_that_is_drawn_otherwise_is_named(
    folder: Path, changed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], name: str
) -> None:
    path = folder / "kiln-demo.safetensors"
    save_file(changed(load_file(path)), path)
    with pytest.raises(WeightsMissing, match=rf"kiln-demo\.safetensors does not fit the model's shape: {name}"):
        find_weights(folder)
    with pytest.raises(WeightsMissing, match=name):  # before the other parts are fetched
        check_dit(path, folder)


def test_a_small_model_without_its_description_is_told_by_the_dits_file(folder: Path) -> None:
    (folder / "kiln.json").unlink()
    with pytest.raises(
        WeightsMissing, match=r"kiln-demo\.safetensors does not fit.*FLUX.1-dev, for want of a kiln.json"
    ):
        find_weights(folder)


def test_without_a_description_the_model_is_flux_sized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen.weights._check_shapes", lambda *_: None)  # the real size has 24 GB
    folder = Path(shutil.copytree(DEMO_WEIGHTS, tmp_path / "weights"))
    (folder / "kiln.json").unlink()
    weights = find_weights(folder)
    assert weights.shape == FluxShape()
    assert (weights.profile.name, weights.profile.width) == ("kiln-demo", FLUX_DEV.width)


def describe(folder: Path, part: str, key: str, value: object) -> None:
    """Change one line of a model's kiln.json."""
    path = folder / "kiln.json"
    description = json.loads(path.read_text())
    description[part][key] = value
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(("key", "value"), [("t5_tokens", 0), ("t5_tokens", -1), ("dim", "192"), ("heads", 6.0)])
def test_a_size_that_is_none_is_named_with_its_value(folder: Path, key: str, value: object) -> None:
    describe(folder, "shape", key, value)
    with pytest.raises(WeightsMissing, match=rf"{key} is made of whole numbers above zero, not {value!r}\.$"):
        find_weights(folder)


@pytest.mark.parametrize(("key", "value"), [("width", "wide"), ("steps", 500), ("pixels_max", None), ("side_min", 999)])
def test_a_description_that_contradicts_itself_is_named(folder: Path, key: str, value: object) -> None:
    describe(folder, "profile", key, value)
    with pytest.raises(WeightsMissing, match=r"kiln\.json does not describe a model"):
        find_weights(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"shape": {"heads": 0}, "profile": {}}',
        '{"shape": {"vae_channels": [1]}, "profile": {}}',
        '{"shape": {"dim": 7}, "profile": {}}',
        '{"shape": 1, "profile": 2}',
    ],
)
def test_a_bad_description_is_named(folder: Path, text: str) -> None:
    (folder / "kiln.json").write_text(text)
    with pytest.raises(WeightsMissing, match=r"kiln\.json"):
        find_weights(folder)


def test_shapes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="rope_axes"):
        FluxShape(rope_axes=(16, 56, 58))
    with pytest.raises(ValueError, match="vae_channels"):
        FluxShape(vae_channels=(128, 256, 384, 512))


def test_the_digest_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"gone\.safetensors cannot be read"):
        sha256(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("dtype", "scale", "told"),
    [
        (torch.bfloat16, None, "bfloat16"),
        (torch.float16, None, "float16"),
        (torch.float8_e4m3fn, None, "float8"),
        (torch.float8_e5m2, None, "float8"),
        (torch.float8_e4m3fn, "x.scale_weight", "float8 with scales"),
    ],
)
def test_how_a_checkpoint_is_stored_is_told_by_most_of_its_bytes(
    tmp_path: Path, dtype: torch.dtype, scale: str | None, told: str
) -> None:
    tensors = {"x.weight": torch.zeros(64, 64).to(dtype), "norm.scale": torch.zeros(64)}
    save_file({**tensors, **({scale: torch.ones(1)} if scale else {})}, tmp_path / "model.safetensors")
    assert stored_as(tmp_path / "model.safetensors") == told


def test_a_pickle_with_another_name_is_called_a_pickle(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(4)}, tmp_path / "renamed.safetensors")
    with pytest.raises(WeightsMissing, match="is a pickle, whatever its name says"):
        read_shapes(tmp_path / "renamed.safetensors")
