"""`python -m gen bench synth DIR`: a model of random weights in FLUX.1-dev's layout, at full size or the demo's.

What is measured with it takes the path of a real model: the same files, names and shapes. Its pictures are noise, but
finite: weights are scaled by their inputs, norms are one, and a block adds little to what passes through it. One pool
of random numbers fills every tensor, each from another place, so that writing is as fast as the disk. Knows no card.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from gen.bench.safetensors_writing import TensorPlan, file_size, write
from gen.demo.layout import clip_name, dit_name, vae_name
from gen.errors import GenerationError, WeightsMissing
from gen.flux import SizedClip, SizedDiT, SizedT5, SizedVAEDecoder, SizedVAEEncoder
from gen.lora_names import linears
from gen.weights import DEMO_WEIGHTS, PREFIX, FluxShape, find_weights

Tensors = dict[str, TensorPlan]
_POOL = 16_777_259  # numbers, a prime: rows that are repeated never fall on each other
_SHARD_BYTES = 5 * 10**9  # of T5's files, as they are published
_SPARE_BYTES = 2**30  # left free on the disk
_DTYPES = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}


def synthesize(folder: Path, *, shape: FluxShape | None = None, float8: bool = False, seed: int = 0) -> int:
    """Write the model into a new or empty folder and return its bytes; raise GenerationError if it cannot be there.

    Without a shape it is FLUX.1-dev's; otherwise a kiln.json tells it. `float8` stores the DiT as plain float8.
    """
    files = plan_files(shape or FluxShape(), float8=float8)
    total = sum(file_size(tensors) for tensors in files.values())
    check_folder(folder, total)
    folder.mkdir(parents=True, exist_ok=True)
    pool = _Pool(seed)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"Writing {folder}", disable=None) as bar:
        for name, tensors in files.items():
            write(folder / name, tensors, lambda key, tensor: _told(pool.pieces(key, tensor), bar))
    _write_index(folder, files)
    _copy_tokenizers(folder, tokens=(shape or FluxShape()).t5_tokens)
    if shape is not None:
        _write_description(folder, shape)
    find_weights(folder)
    return total


def synthesize_lora(path: Path, shape: FluxShape, *, rank: int, seed: int) -> None:
    """Write a LoRA of random weights on every linear of every block; a file that is there stays as it is."""
    if path.exists():
        return
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for module, (inputs, outputs) in linears(shape).items():
        down = torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)
        up = torch.randn(outputs, rank, generator=generator) * (0.1 / math.sqrt(rank))
        tensors |= {f"{module}.lora_A.weight": down.bfloat16(), f"{module}.lora_B.weight": up.bfloat16()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial)
    partial.replace(path)


def plan_files(shape: FluxShape, *, float8: bool) -> dict[str, Tensors]:
    """Every file of the model with its tensors, under the names and in the shapes of FLUX.1-dev's own files."""
    with torch.device("meta"):
        dit, clip, t5 = SizedDiT(shape), SizedClip(shape), SizedT5(shape)
        vae: dict[str, nn.Module] = {"encoder": SizedVAEEncoder(shape), "decoder": SizedVAEDecoder(shape)}
    stored = "F8_E4M3" if float8 else "BF16"
    kept = {key: tensor for key, tensor in _shapes(t5).items() if key != "encoder.embed_tokens.weight"}
    files = {
        "synth.safetensors": {PREFIX + dit_name(key): _plan(size, stored) for key, size in _shapes(dit).items()},
        "ae.safetensors": {
            f"{part}.{vae_name(key, part)}": _plan(size)
            for part, model in vae.items()
            for key, size in _shapes(model).items()
        },
        "text_encoder/model.safetensors": {
            clip_name(key): _plan(size[1:] if key == "position_embeds" else size) for key, size in _shapes(clip).items()
        },
    }
    shards = list(_shards({key: _plan(size) for key, size in kept.items()}))
    names = [f"text_encoder_2/model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    return files | dict(zip(names, shards, strict=True))


class _Pool:
    """Random numbers, computed once: N(0, 1) in float32, and as bytes for each scale and dtype asked for."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._numbers = torch.randn(_POOL, generator=generator)
        self._place = 0
        self._scaled = lru_cache(maxsize=16)(self._scale)

    def pieces(self, name: str, tensor: TensorPlan) -> Iterator[memoryview]:
        """The bytes of one tensor: pieces of the pool, from where the last tensor ended."""
        mean, deviation = _distribution(name, tensor.shape)
        data = self._scaled(mean, deviation, tensor.dtype)
        left = tensor.size
        start = self._place * (len(data) // _POOL)
        while left:
            piece = data[start : start + left]
            yield piece
            left, start = left - len(piece), 0
        self._place = (self._place + math.prod(tensor.shape)) % _POOL

    def _scale(self, mean: float, deviation: float, dtype: str) -> memoryview:
        stored = (self._numbers * deviation + mean).to(_DTYPES[dtype])
        return memoryview(stored.view(torch.uint8).numpy().data)


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation of a tensor's values, rounded so that few kinds of bytes are computed.

    Outputs of order one from inputs of order one; half of that where a result is added to the stream. T5 does not
    divide its scores by the square root of their width, so its q does.
    """
    stem, leaf = name.rsplit(".", 1)
    if leaf == "scale" or (leaf == "weight" and len(shape) == 1):
        return 1.0, 0.0
    if leaf == "bias":
        return 0.0, 0.0
    if "embedding" in stem or stem == "shared" or "relative_attention_bias" in stem:
        return 0.0, 1.0 if stem == "shared" else 0.05
    inputs = math.prod(shape[1:])
    gain = 0.3 if any(word in stem for word in ("modulation", "_mod.", "linear2", "proj", "_mlp.2", "fc2", "wo")) else 1
    if stem.endswith("SelfAttention.q"):
        gain = 0.125
    return 0.0, float(f"{gain / math.sqrt(inputs):.2g}")


def _told(pieces: Iterable[memoryview], bar: tqdm[Any]) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece
        bar.update(len(piece))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _plan(shape: tuple[int, ...], dtype: str = "BF16") -> TensorPlan:
    return TensorPlan(shape=shape, dtype=dtype)


def _shards(tensors: Tensors) -> Iterator[Tensors]:
    shard: Tensors = {}
    for name, tensor in tensors.items():
        if shard and sum(other.size for other in shard.values()) + tensor.size > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def check_folder(folder: Path, total: int) -> None:
    """Complain before writing rather than after half of it: GenerationError unless `total` bytes have room there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GenerationError(f"{folder} exists and is not an empty folder; name another.")
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < total + _SPARE_BYTES:
        raise GenerationError(
            f"The model needs {total / 1e9:.1f} GB and 1 GB to spare; "
            f"the disk of {folder} has {free / 1e9:.1f} GB free."
        )


def _write_index(folder: Path, files: Mapping[str, Tensors]) -> None:
    """T5's index, which names the file of each tensor."""
    shards = {name: tensors for name, tensors in files.items() if name.startswith("text_encoder_2/")}
    index = {
        "metadata": {"total_size": sum(tensor.size for tensors in shards.values() for tensor in tensors.values())},
        "weight_map": {key: Path(name).name for name, tensors in shards.items() for key in tensors},
    }
    path = folder / "text_encoder_2" / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _copy_tokenizers(folder: Path, *, tokens: int) -> None:
    """The demo model's tokenizers stand in: their ids are within every vocabulary, and the end has the highest."""
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(DEMO_WEIGHTS / name, folder / name)
    path = folder / "tokenizer_2" / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "model_max_length": tokens}, indent=2) + "\n", "utf-8")


def _write_description(folder: Path, shape: FluxShape) -> None:
    profile = replace(find_weights(DEMO_WEIGHTS).profile, name="synth", is_demo=False)
    description = {"profile": asdict(profile), "shape": asdict(shape)}
    (folder / "kiln.json").write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def demo_shape() -> FluxShape:
    """The small model's, for trying things on a CPU."""
    try:
        return find_weights(DEMO_WEIGHTS).shape
    except WeightsMissing as error:
        raise GenerationError(f"The demo model's shape is not here: {error}") from error
