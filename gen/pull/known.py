"""The models that Kiln can fetch: their repositories on ModelScope, their files, and the licence they come under.

Knows no network and no disk. A fine-tune of FLUX.1-dev that is here already, as one file, is a model too: only the
other parts are fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gen.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A file that a model needs."""

    path: str  # in its repository, and in the model's folder
    about_bytes: int  # by FLUX.1-dev's shape in bfloat16 (the VAE: float32); the hub's listing says it to the byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on ModelScope, and what Kiln takes of it."""

    name: str  # owner/name
    files: tuple[Published, ...]  # without which the model cannot be drawn with
    patterns: tuple[str, ...]  # of all that is fetched, as fnmatch reads them


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that Kiln can bring here."""

    name: str
    about: str
    repositories: tuple[Repository, ...]
    dit: Path | None = None  # of a fine-tune that is here already

    @property
    def about_bytes(self) -> int:
        """All that it needs."""
        return sum(file.about_bytes for repository in self.repositories for file in repository.files)


LICENCE = """\
The licence of these weights is the FLUX.1 [dev] Non-Commercial License of Black Forest Labs, which also binds
derivatives such as fine-tunes. In short, and its own text is what counts (LICENSE.md, fetched with the files):
  - non-commercial use only: no paid tiers, no service that earns money with the model;
  - whoever lets others use it filters what is asked for, or reviews what is drawn;
  - pictures are marked as made by a machine where the law asks for it;
  - a fine-tune's own page may add terms: read it too."""

_PARTS = Repository(
    name="black-forest-labs/FLUX.1-dev",
    files=(
        Published(path="ae.safetensors", about_bytes=335_300_000),
        Published(path="text_encoder/model.safetensors", about_bytes=246_100_000),
        Published(path="text_encoder_2/model-00001-of-00002.safetensors", about_bytes=4_994_600_000),
        Published(path="text_encoder_2/model-00002-of-00002.safetensors", about_bytes=4_530_100_000),
        Published(path="text_encoder_2/model.safetensors.index.json", about_bytes=19_900),
        Published(path="tokenizer/vocab.json", about_bytes=1_060_000),
        Published(path="tokenizer/merges.txt", about_bytes=525_000),
        Published(path="tokenizer_2/tokenizer.json", about_bytes=2_420_000),
    ),
    patterns=("ae.safetensors", "text_encoder/*", "text_encoder_2/*", "tokenizer/*", "tokenizer_2/*", "LICENSE*"),
)
_DIT_BYTES = 23_800_000_000  # 11.9 billion parameters; half of it where the publisher stored float8


def _dit(repository: str, file: str) -> Repository:
    """A repository of which the DiT is taken; `kiln.json` comes along where the model is not FLUX.1-dev's size."""
    return Repository(
        name=repository,
        files=(Published(path=file, about_bytes=_DIT_BYTES),),
        patterns=(file, "kiln.json"),
    )


KNOWN = {
    model.name: model
    for model in (
        Model(
            name="majicflus_v1",
            about="FLUX.1-dev fine-tuned for people and photographs, by MAILAND",
            repositories=(_dit("MAILAND/majicflus_v1", "majicflus_v134.safetensors"), _PARTS),
        ),
        Model(
            name="FLUX.1-dev",
            about="the original, by Black Forest Labs",
            repositories=(_dit("black-forest-labs/FLUX.1-dev", "flux1-dev.safetensors"), _PARTS),
        ),
    )
}


_PART = re.compile(r"(ae|vae|clip([_-]?[lg])?|t5([_-]?xxl)?|(text_)?encoder|tokenizer)([._-](\d|b?fp?\d+).*)?")
_TAKEN = frozenset(name.casefold() for name in KNOWN)  # some disks know no capitals


def model_called(name: str) -> Model:
    """The known model of that name, or the fine-tune in that file; raise InvalidRequest if there is neither."""
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name).expanduser()
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise InvalidRequest(f"There is no file {path}.")
        _check_name(path)
        return Model(name=path.stem, about=f"from {path}", repositories=(_PARTS,), dit=path.absolute())
    raise InvalidRequest(f"There is no model {name[:80]!r}: name {', '.join(KNOWN)}, or a FLUX-dev *.safetensors file.")


def _check_name(path: Path) -> None:
    """A fine-tune is called as its file is; raise InvalidRequest where that is another's name, or a part's."""
    name = path.stem
    if name.casefold() in _TAKEN or name.startswith("."):
        raise InvalidRequest(f"A model cannot be called {name!r}, as its file {path} says: rename the file.")
    if _PART.fullmatch(name.casefold()):
        raise InvalidRequest(
            f"{path} is named like a part of a model (VAE, text encoder or tokenizer). If it is a fine-tune, rename "
            "the file to the model's name; if it is a part, name the fine-tune's own file, and its parts are fetched."
        )
