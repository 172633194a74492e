"""A model's two tokenizers, each tried once: another model's would fail at the first prompt, or read nonsense.

Knows no encoder but by its vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer, T5Tokenizer

from gen.errors import WeightsMissing
from gen.weights import Weights


def read_tokenizers(weights: Weights) -> tuple[Any, Any]:
    """CLIP's and T5's; raise WeightsMissing for a folder that holds none, or more tokens than the encoder knows."""
    return (
        _read(CLIPTokenizer, weights.clip_tokenizer, vocabulary=weights.shape.clip_vocabulary),
        _read(T5Tokenizer, weights.t5_tokenizer, vocabulary=weights.shape.t5_vocabulary),
    )


def _read(kind: type[Any], folder: Path, *, vocabulary: int) -> Any:
    try:
        made = kind.from_pretrained(folder, local_files_only=True)
        made("a cat \u732b", padding="max_length", max_length=16, truncation=True)
    except Exception as error:
        raise WeightsMissing(f"{folder} does not hold a tokenizer: {str(error).splitlines()[0]}") from error
    if len(made) > vocabulary:
        raise WeightsMissing(f"{folder} has {len(made):,} tokens; the model's encoder knows {vocabulary:,}.")
    return made
