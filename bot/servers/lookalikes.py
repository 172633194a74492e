"""The many dresses of a word: how a text is brought to plain tokens, and which words a token may be read as.

A pure function for policy.py, which says what the tokens are for. Small tables of our own, not Unicode's list of
confusables: that one folds `m` to `rn` and `0` to `o` in every text, and would make different words equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product

READINGS_MAX = 16  # of a token with signs that may stand for two letters

# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u3096\u30a1-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ONE_UNSPACED = re.compile(f"[{_UNSPACED}]")
_SIGNS = "@$€!|+"  # between letters they may be letters
_LETTER = rf"[^\W_{_UNSPACED}]"
_PLAIN = re.compile(rf"[{_UNSPACED}]|{_LETTER}+")
_SIGNED = re.compile(rf"[{_UNSPACED}]|(?:{_LETTER}|[{re.escape(_SIGNS)}])+")
_CLAUSE = re.compile(r"[,.;:?!，。、；：？！()\[\]{}\n]")
_ACCENTS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
_REPEATED = re.compile(r"(.)\1{2,}")
_FILLERS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")

# Small letters, since case is folded before. The first are Latin to the eye in any text; the others only beside
# Latin letters: `рот` is a Russian word and not `pot`.
_SAME = str.maketrans("асԁеһіјӏорѕхуԛԝοϲ", "acdehijlopsxyqwoc")
_ALIKE = str.maketrans(
    "вєҽгнїкмптүѵьαβεηικνρτυχωγոսօհցզյɑɡɩɪʟɴʀʏᴀʙᴄᴅᴇꜰɢʜᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡᴢıøłđħŧðƙɓɗ",
    "beerhikmntyvbabenikvptuxwynuohgqjagiilnryabcdefghjkmopstuvwzioldhtdkbd",
)
_LEET = {
    "0": "o",
    "1": "il",
    "3": "e",
    "4": "a",
    "5": "s",
    "6": "g",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "€": "e",
    "!": "il",
    "|": "il",
    "+": "t",
}
_ENCLOSED = {  # letters in black circles and squares and flags' letters, which NFKC leaves as they are
    **{0x1F150 + number: chr(97 + number) for number in range(26)},
    **{0x1F170 + number: chr(97 + number) for number in range(26)},
    **{0x1F1E6 + number: chr(97 + number) for number in range(26)},
}


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a text, or one character of a script without spaces."""

    text: str
    words: frozenset[str]  # what it may be read as
    alone: bool  # a single character with nothing beside it
    unspaced: bool  # of a script without spaces
    begins_clause: bool  # a clause mark stands before it


def plain(text: str) -> str:
    """Width, case, accents, enclosing and invisible characters taken away."""
    text = unicodedata.normalize("NFKC", text).translate(_ENCLOSED)
    text = unicodedata.normalize("NFD", text.casefold())
    text = _FILLERS.sub("", _ACCENTS.sub("", text))
    shown = (_shown(character) for character in text)
    return unicodedata.normalize("NFC", "".join(shown))


def tokens(text: str) -> tuple[tuple[Token, ...], ...]:
    """A text's tokens: with signs between words as what they are and, if there are any, also as letters."""
    bare = plain(text)
    readings = [_PLAIN]
    if any(sign in bare for sign in _SIGNS):
        readings.append(_SIGNED)
    return tuple(tuple(_cut(bare, pattern)) for pattern in readings)


def _cut(bare: str, pattern: re.Pattern[str]) -> Iterator[Token]:
    end = 0
    found = list(pattern.finditer(bare))
    for number, this in enumerate(found):
        follows = found[number + 1].start() if number + 1 < len(found) else len(bare) + 1
        begins = this.start() == 0 or this.start() > end
        yield Token(
            text=this[0],
            words=readings(this[0]),
            alone=len(this[0]) == 1 and begins and follows > this.end(),
            unspaced=_ONE_UNSPACED.fullmatch(this[0]) is not None,
            begins_clause=_CLAUSE.search(bare, end, this.start()) is not None,
        )
        end = this.end()


@lru_cache(maxsize=8192)
def readings(word: str) -> frozenset[str]:
    """All that one token may be read as, itself among them."""
    found = {word, *_as_latin(word)}
    found |= {letters for one in found for letters in _as_letters(one)}
    found |= {_REPEATED.sub(kept, one) for one in found for kept in (r"\1", r"\1\1")}
    return frozenset(found)


def _as_latin(word: str) -> Iterator[str]:
    """The word with letters that look Latin read as Latin, if then all of it is."""
    mixed = any("a" <= letter <= "z" for letter in word)
    folded = word.translate(_SAME)
    if mixed:
        folded = folded.translate(_ALIKE)
    if folded.isascii():
        yield folded


def _as_letters(word: str) -> Iterator[str]:
    """The word with digits and signs read as letters, if it has letters as well."""
    if any(sign in _LEET for sign in word) and any(letter.isalpha() for letter in word):
        for letters in islice(product(*(_LEET.get(sign, sign) for sign in word)), READINGS_MAX):
            yield "".join(letters)


def _shown(character: str) -> str:
    """Nothing for what shows nothing; a space or a new line for every kind of them."""
    kind = unicodedata.category(character)
    if character in "\n\r\u2028\u2029\x0b\x0c\x85":
        return "\n"
    if kind == "Zs" or character == "\t":
        return " "
    return "" if kind in ("Cc", "Cf", "Cs", "Cn", "Co") else character
