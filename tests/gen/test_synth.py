"""The model of random weights has FLUX.1-dev's files, is loaded as a real one, and draws something finite."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gen.bench.safetensors_writing import TensorPlan, file_size, header, write
from gen.bench.synth import check_folder, demo_shape, plan_files, synthesize
from gen.errors import GenerationError
from gen.flux import load_generator
from gen.weight_file import read_shapes
from gen.weights import DEMO_WEIGHTS, FluxShape, find_weights

# DiffSynth knows a file by an md5 over its sorted names and shapes: majicflus, CLIP, T5 and the VAE of FLUX.1-dev
MAJICFLUS, CLIP, T5, VAE = (
    "3394f306c4cbf04334b712bf5aaed95f",
    "94eefa3dac9cec93cb1ebaf1747d7b78",
    "22540b49eaedbc2f2784b2091a234c7c",
    "21ea55f476dfc4fd135587abb59dfe5d",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "model"
    synthesize(folder, shape=demo_shape())
    return folder


def test_the_full_size_has_the_files_of_flux(tmp_path: Path) -> None:
    """Headers with nothing behind them: 34 GB that no disk has to hold."""
    from diffsynth.core.loader.file import hash_model_file

    for name, tensors in plan_files(FluxShape(), float8=False).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(header(tensors))
        with path.open("r+b") as file:
            file.truncate(file_size(tensors))
    for tokenizer in ("tokenizer", "tokenizer_2"):
        shutil.copytree(DEMO_WEIGHTS / tokenizer, tmp_path / tokenizer)
    weights = find_weights(tmp_path)
    assert weights.shape == FluxShape()
    assert hash_model_file(str(weights.dit)) == MAJICFLUS
    assert hash_model_file(str(weights.clip[0])) == CLIP
    assert hash_model_file([str(path) for path in weights.t5]) == T5
    assert hash_model_file(str(weights.vae)) == VAE


@pytest.mark.parametrize(("float8", "total"), [(False, 33.7), (True, 21.8)])
def test_its_size_is_told_before(float8: bool, total: float) -> None:
    files = plan_files(FluxShape(), float8=float8).values()
    assert sum(map(file_size, files)) / 1e9 == pytest.approx(total, abs=0.1)


def test_it_draws_a_picture_that_is_not_flat(folder: Path) -> None:
    generator = load_generator(folder, device="cpu")
    request = generator.profile.request("a red house", seed=1, size="128x128", steps=2)
    assert generator.draw(request, on_step=lambda _: None).png
    generator.close()


def test_a_picture_through_57_blocks_of_float8_is_finite(tmp_path: Path) -> None:
    deep = replace(demo_shape(), joint_blocks=19, single_blocks=38)
    synthesize(tmp_path / "model", shape=deep, float8=True)
    generator = load_generator(tmp_path / "model", device="cpu")
    request = generator.profile.request("a red house", seed=1, size="128x128", steps=3)
    assert generator.draw(request, on_step=lambda _: None).png  # black or flat would be BadPicture
    generator.close()


def test_every_layers_values_stay_finite_and_near_one(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.float().isfinite().all(), name
            assert tensor.float().abs().max() < 8, name


def test_the_same_seed_writes_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        synthesize(tmp_path / str(seed), shape=demo_shape(), seed=seed)
    first, same, other = ((place / "ae.safetensors").read_bytes() for place in (folder, tmp_path / "0", tmp_path / "1"))
    assert first == same != other


def test_float8_stores_the_dit_alone_in_float8(tmp_path: Path) -> None:
    synthesize(tmp_path / "model", shape=demo_shape(), float8=True)
    weights = find_weights(tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(weights.dit).values()} == {torch.float8_e4m3fn}
    assert {tensor.dtype for tensor in load_file(weights.vae).values()} == {torch.bfloat16}


def test_tensors_differ_from_each_other(folder: Path) -> None:
    state = load_file(find_weights(folder).dit)
    blocks = [state[f"model.diffusion_model.double_blocks.{n}.img_attn.qkv.weight"] for n in range(3)]
    assert not torch.equal(blocks[0], blocks[1])
    assert not torch.equal(blocks[1], blocks[2])
    assert not torch.equal(blocks[0][0], blocks[0][1])


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(GenerationError, match="not an empty folder"):
        synthesize(tmp_path, shape=demo_shape())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_disk_without_room_is_found_before_writing(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match=r"The model needs 680000\.0 GB and 1 GB to spare; the disk of"):
        check_folder(tmp_path / "model", 680 * 10**12)
    assert not (tmp_path / "model").exists()


def test_a_file_that_breaks_while_it_is_written_is_absent(tmp_path: Path) -> None:
    def broken(name: str, tensor: TensorPlan) -> list[memoryview]:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "a.safetensors", {"x": TensorPlan(shape=(2,), dtype="BF16")}, broken)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read_back_by_the_library(tmp_path: Path) -> None:
    tensors = {"a": TensorPlan(shape=(2, 3), dtype="BF16"), "b": TensorPlan(shape=(5,), dtype="F8_E4M3")}
    write(tmp_path / "a.safetensors", tensors, lambda name, tensor: [memoryview(bytes(tensor.size))])
    assert read_shapes(tmp_path / "a.safetensors") == {"a": (2, 3), "b": (5,)}


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    command = [sys.executable, "-m", "gen", "bench", "synth", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "not an empty folder" in done.stderr


def test_the_shards_are_named_by_the_index(folder: Path) -> None:
    index = json.loads((folder / "text_encoder_2" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in find_weights(folder).t5}
