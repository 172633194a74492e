"""The demo model's two tokenizers, trained on its captions: CLIP's byte-level BPE and T5's Unigram.

Written as the folders `tokenizer/` and `tokenizer_2/` that transformers' own classes load. Knows no tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CLIP_TOKENS = 77
# CLIP's own pattern: words, single digits, runs of other marks
_CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def train_clip_tokenizer(captions: Iterable[str], folder: Path, *, vocabulary: int) -> None:
    """Train and save CLIP's tokenizer with exactly `vocabulary` tokens.

    The end token has the highest id: CLIP's encoder finds a prompt's end with argmax over the ids.
    """
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = vocabulary - len(alphabet) - 2  # a last byte's own symbol and the two marks are added below
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(captions, trainer)
    trained.save(str(folder.parent / "bpe.json"))
    merges: Any = [tuple(pair) for pair in _take_model(folder.parent / "bpe.json")["merges"]]
    # in the merges' order: the trainer numbers last bytes by a hash map's order, which no two runs share
    made = (first + second for first, second in merges)
    pieces = list(dict.fromkeys([*alphabet, *(byte + "</w>" for byte in alphabet), *made]))
    padding = [f"<|unused_{number}|>" for number in range(vocabulary - 2 - len(pieces))]
    ids = {piece: number for number, piece in enumerate([*pieces, *padding, BOS, EOS])}
    CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CLIP_TOKENS).save_pretrained(folder)


def train_t5_tokenizer(captions: Iterable[str], folder: Path, *, vocabulary: int, tokens: int) -> None:
    """Train and save T5's tokenizer with at most `vocabulary` pieces for prompts of `tokens` tokens."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    special = ["<pad>", "</s>", "<unk>"]
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        unk_token="<unk>",
        initial_alphabet=letters,
        show_progress=False,
    )
    trained.train_from_iterator(captions, trainer)
    path = folder.parent / "unigram.json"
    trained.save(str(path))
    pieces = _in_order(_take_model(path)["vocab"], special)
    T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=tokens).save_pretrained(folder)


def _in_order(vocabulary: Sequence[tuple[str, float]], special: Sequence[str]) -> list[tuple[str, float]]:
    """Pieces by falling score, the same in every run.

    The trainer sums scores in parallel, so that their last digits vary, and gives letters that are no piece of their
    own scores below all others in a hash map's order.
    """
    scores = {piece: round(score, 4) for piece, score in vocabulary if piece not in special}
    floor = min(score for piece, score in scores.items() if len(piece) > 1)
    spare = sorted(piece for piece, score in scores.items() if len(piece) == 1 and score <= floor)
    kept = sorted((-score, piece) for piece, score in scores.items() if piece not in spare)
    below = [(piece, round(floor - 1e-4 * number, 4)) for number, piece in enumerate(spare, start=1)]
    return [*((piece, 0.0) for piece in special), *((piece, -score) for score, piece in kept), *below]


def encode_clip(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, padded to 77 as DiffSynth's pipeline does."""
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    ids: list[list[int]] = tokenizer(
        list(texts), padding="max_length", max_length=CLIP_TOKENS, truncation=True
    ).input_ids
    return ids


def encode_t5(folder: Path, texts: Sequence[str], *, tokens: int) -> list[list[int]]:
    """Token ids of each text, padded to `tokens` as DiffSynth's pipeline does."""
    tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True)
    ids: list[list[int]] = tokenizer(list(texts), padding="max_length", max_length=tokens, truncation=True).input_ids
    return ids


def _take_model(path: Path) -> dict[str, Any]:
    """The model part of a saved tokenizer, whose file goes away."""
    model: dict[str, Any] = json.loads(path.read_text("utf-8"))["model"]
    path.unlink()
    return model
