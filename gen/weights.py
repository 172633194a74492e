"""A model's folder: which files it must hold, what its shapes are, and whether each file is what it claims.

The layout is FLUX.1-dev's own, with the DiT as one file in the folder's top, as fine-tunes such as majicflus are
published:

    majicflus_v134.safetensors      the DiT; keys may carry the prefix `model.diffusion_model.`
    ae.safetensors                  the VAE, encoder and decoder
    text_encoder/*.safetensors      CLIP       tokenizer/       its tokenizer
    text_encoder_2/*.safetensors    T5         tokenizer_2/     its tokenizer
    kiln.json                       only where the model is not FLUX.1-dev's size: its name, shape and defaults

Reads names and shapes in safetensors files, never their tensors, so it needs no torch. Does not know how to draw.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gen.errors import InvalidRequest, WeightsMissing
from gen.request import ModelProfile
from gen.weight_file import Shapes, read_shapes

DEMO_WEIGHTS = Path(__file__).parent / "demo" / "weights"
PREFIX = "model.diffusion_model."
_DIT_KEY = "double_blocks.0.img_attn.qkv.weight"
_VAE_KEY = "decoder.conv_in.weight"
_CLIP_KEY = "text_model.embeddings.token_embedding.weight"
_TOKENIZERS = {  # folder -> the sets of files of which one must be there
    "tokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "tokenizer_2": (("tokenizer.json",), ("spiece.model",)),
}
Expected = list[tuple[Path, Shapes, str, tuple[int, ...]]]  # of a file with these shapes: this tensor in this shape


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxShape:
    """The sizes of one FLUX model; the defaults are FLUX.1-dev's."""

    dim: int = 3072  # width of the DiT
    heads: int = 24
    joint_blocks: int = 19
    single_blocks: int = 38
    rope_axes: tuple[int, int, int] = (16, 56, 56)  # sums to dim / heads
    clip_dim: int = 768
    clip_heads: int = 12
    clip_layers: int = 12
    clip_hidden: int = 3072
    clip_vocabulary: int = 49408
    t5_dim: int = 4096
    t5_heads: int = 64
    t5_head_dim: int = 64
    t5_layers: int = 24
    t5_hidden: int = 10240
    t5_vocabulary: int = 32128
    t5_tokens: int = 512  # a prompt's length
    vae_channels: tuple[int, int, int, int] = (128, 256, 512, 512)  # full size to 1/8

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that are none, or do not fit together."""
        for name, size in asdict(self).items():
            if not all(isinstance(one, int) and one > 0 for one in (size if isinstance(size, tuple) else (size,))):
                raise ValueError(f"{name} is made of whole numbers above zero, not {size!r}")
        if self.dim % self.heads or sum(self.rope_axes) != self.dim // self.heads:
            raise ValueError(f"rope_axes {self.rope_axes} must sum to dim / heads = {self.dim / self.heads}")
        if self.vae_channels[2] != self.vae_channels[3]:
            raise ValueError(f"the last two of vae_channels {self.vae_channels} must be equal, as in FLUX's VAE")


FLUX_DEV = ModelProfile(
    name="FLUX.1-dev",
    width=1024,
    height=1024,
    steps=20,
    guidance=3.5,
    side_min=256,
    side_max=1536,
    pixels_max=1536 * 1536,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The files of one model, checked to exist and to be whole."""

    folder: Path
    profile: ModelProfile
    dit: Path
    vae: Path
    clip: tuple[Path, ...]
    t5: tuple[Path, ...]
    shape: FluxShape = field(default_factory=FluxShape)

    @property
    def clip_tokenizer(self) -> Path:
        """Folder of CLIP's tokenizer."""
        return self.folder / "tokenizer"

    @property
    def t5_tokenizer(self) -> Path:
        """Folder of T5's tokenizer."""
        return self.folder / "tokenizer_2"


def folder_in_use() -> Path:
    """The model's folder where a command names none: KILN_WEIGHTS', else the demo model's."""
    return Path(os.environ.get("KILN_WEIGHTS") or DEMO_WEIGHTS)


def read_profile(folder: Path) -> ModelProfile:
    """Name, defaults and limits of the model in `folder`; raise WeightsMissing as `find_weights` does."""
    return find_weights(folder).profile


def find_weights(folder: Path) -> Weights:
    """Find and check the model's files; raise WeightsMissing naming the first that is missing or damaged."""
    _check_folder(folder)
    top = {path: read_shapes(path) for path in sorted(folder.glob("*.safetensors"))}
    dit = _only(folder, "the DiT (one *.safetensors file with FLUX.1's blocks)", [p for p in top if _is_dit(top[p])])
    vae = _only(folder, "the VAE (ae.safetensors)", [p for p in top if _VAE_KEY in top[p]])
    clip, t5 = _shards(folder / "text_encoder"), _shards(folder / "text_encoder_2")
    _check_tokenizers(folder)
    profile, shape = _read_description(folder, dit)
    weights = Weights(folder=folder, profile=profile, shape=shape, dit=dit, vae=vae, clip=clip, t5=t5)
    _check_shapes(weights, top[dit], top[vae])
    return weights


def _check_folder(folder: Path) -> None:
    try:
        if folder.is_file():
            raise WeightsMissing(
                f"{folder} is a file, and a model is a folder: `kiln weights pull {folder}` makes one for a fine-tune."
            )
        if not folder.is_dir():
            raise WeightsMissing(f"There is no weights folder at {folder}.")
        next(folder.iterdir(), None)  # `glob` finds nothing where it may not look, and says nothing
    except OSError as error:
        raise WeightsMissing(f"{error.filename} cannot be read: {error.strerror}.") from error


def check_dit(path: Path, folder: Path) -> None:
    """Raise WeightsMissing unless this is a whole safetensors file that can be the DiT of the model in `folder`."""
    dit = read_shapes(path)
    if not _is_dit(dit):
        raise WeightsMissing(f"{path} is not a model of FLUX.1's architecture: it has no {_DIT_KEY}.")
    _compare(folder, _of_dit(path, dit, _read_description(folder, path)[1]))


def _is_dit(shapes: Shapes) -> bool:
    return _DIT_KEY in shapes or PREFIX + _DIT_KEY in shapes


def _check_tokenizers(folder: Path) -> None:
    """Each tokenizer in one of the forms in which it is published; transformers would do without, and read nonsense."""
    for name, forms in _TOKENIZERS.items():
        if not any(all((folder / name / file).is_file() for file in form) for form in forms):
            needed = ", or ".join(" and ".join(form) for form in forms)
            raise WeightsMissing(f"The tokenizer {folder / name} is missing or incomplete: it needs {needed}.")


def _check_shapes(weights: Weights, dit: Shapes, vae: Shapes) -> None:
    """A few tensors tell a file of another model, or another part of one, before everything is loaded."""
    shape, (full, *_, eighth) = weights.shape, weights.shape.vae_channels
    clip, t5 = (_read_all(files) for files in (weights.clip, weights.t5))
    expected: Expected = [
        *_of_dit(weights.dit, dit, shape),
        (weights.vae, vae, "encoder.conv_in.weight", (full, 3, 3, 3)),
        (weights.vae, vae, "decoder.conv_in.weight", (eighth, 16, 3, 3)),
        (weights.clip[0], clip, _CLIP_KEY, (shape.clip_vocabulary, shape.clip_dim)),
        (weights.t5[0], t5, "shared.weight", (shape.t5_vocabulary, shape.t5_dim)),
    ]
    _compare(weights.folder, expected)


def _read_all(files: tuple[Path, ...]) -> Shapes:
    shapes: Shapes = {}
    for path in files:
        shapes |= read_shapes(path)
    return shapes


def _of_dit(path: Path, dit: Shapes, shape: FluxShape) -> Expected:
    """What tells the DiT of this shape from another one: schnell has no guidance_in, Fill another img_in."""
    prefix, dim = PREFIX if PREFIX + _DIT_KEY in dit else "", shape.dim
    return [
        (path, dit, prefix + "img_in.weight", (dim, 64)),
        (path, dit, prefix + "txt_in.weight", (dim, shape.t5_dim)),
        (path, dit, prefix + "vector_in.in_layer.weight", (dim, shape.clip_dim)),
        (path, dit, prefix + "guidance_in.in_layer.weight", (dim, 256)),
        (path, dit, f"{prefix}double_blocks.{shape.joint_blocks - 1}.img_attn.qkv.weight", (3 * dim, dim)),
        (path, dit, f"{prefix}single_blocks.{shape.single_blocks - 1}.linear1.weight", (7 * dim, dim)),
    ]


def _compare(folder: Path, expected: Expected) -> None:
    for path, shapes, name, size in expected:
        if (found := shapes.get(name, "missing")) != size:
            source = "kiln.json" if (folder / "kiln.json").exists() else "FLUX.1-dev, for want of a kiln.json,"
            raise WeightsMissing(f"{path} does not fit the model's shape: {name} is {found}; {source} says {size}.")


def _only(folder: Path, what: str, found: list[Path]) -> Path:
    if not found:
        raise WeightsMissing(f"{folder} lacks {what}.")
    if len(found) > 1:
        raise WeightsMissing(f"{folder} has more than one file for {what}: {', '.join(p.name for p in found)}.")
    return found[0]


def _shards(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a text encoder, each checked to be whole, all that an index names present."""
    found = tuple(sorted(folder.glob("*.safetensors")))
    for index in folder.glob("*.safetensors.index.json"):
        named = _read_json(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise WeightsMissing(f"{index} does not tell which file holds which tensor.")
        missing = set(named.values()) - {path.name for path in found}
        if missing:
            raise WeightsMissing(f"{folder / min(missing)} is missing; {index.name} names it.")
    if not found:
        raise WeightsMissing(f"{folder} has no *.safetensors file.")
    return found


def _read_description(folder: Path, dit: Path) -> tuple[ModelProfile, FluxShape]:
    path = folder / "kiln.json"
    if not path.exists():
        return replace(FLUX_DEV, name=dit.stem), FluxShape()
    description = _read_json(path)
    try:
        shape: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in description["shape"].items()}
        profile = ModelProfile(**description["profile"])
        profile.request("its own defaults", seed=0)
        return profile, FluxShape(**shape)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, InvalidRequest) as error:
        raise WeightsMissing(f"{path} does not describe a model: {str(error).rstrip('.')}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsMissing(f"{path} does not hold a JSON object.")
    return content
