"""What a prompt may be: visible words, and a seed at their end. Knows no model and no request."""

from __future__ import annotations

import re
import unicodedata

from gen.errors import InvalidRequest
from gen.message import Message, msg

PROMPT_MAX_CHARACTERS = 1000
SEED_MAX = 2**32 - 1

# Format characters steer how text is shown (bidi, zero width), controls have no place in a prompt. The zero-width
# joiner and the variation selectors build emoji and scripts, and stay.
_JOINERS = frozenset("\u200c\u200d")
_FLAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")  # a black flag and invisible letters: England's
_EMOJI = range(0x1F000, 0x1FC00)  # newer ones may be unassigned in Python's tables
FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # Hangul's letters that show nothing
_AS_EMOJI = re.compile(".\ufe0f\u20e3?|.\u20e3")  # a keycap, or a letter that asks to be shown as a picture: no words
_TRAILING_SEED = re.compile(r"(?:^|\s)seed\s*[:：](?P<gap>\s*)(?P<value>\S+)\s*$", re.IGNORECASE)
_SEED_CHARACTERS = 1000  # more than that Python may refuse to read as a number
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


def check_prompt(prompt: str, *, name: str = msg("prompt")) -> None:
    """Raise InvalidRequest unless `prompt` is visible text of 1 to 1,000 characters with a letter or a digit."""
    if not prompt.strip():
        raise InvalidRequest(msg("The {name} is empty: say what to draw."), name=Message(name))
    if len(prompt) > PROMPT_MAX_CHARACTERS:
        raise InvalidRequest(
            msg("The {name} may have {most:,} characters at most; it has {value:,}."),
            name=Message(name),
            most=PROMPT_MAX_CHARACTERS,
            value=len(prompt),
        )
    for position, character in enumerate(_FLAGS.sub(_stand_in, prompt), start=1):
        if _is_unseen(character):
            raise InvalidRequest(
                msg(
                    "The {name} has an invisible or control character (U+{code:04X}) at position {position}: "
                    "please remove it."
                ),
                name=Message(name),
                code=ord(character),
                position=position,
            )
    if not any(unicodedata.category(character)[0] in "LN" for character in _AS_EMOJI.sub("", prompt)):
        raise InvalidRequest(
            msg("The {name} needs at least one letter or digit: say in words what to draw."), name=Message(name)
        )


def seed_of(prompt: str, seed: int | None) -> tuple[str, int | None]:
    """The prompt without a trailing `seed:N`, and the seed, said in one way or the other; InvalidRequest if in both."""
    words, typed = split_seed(prompt)
    if typed is not None and seed is not None:
        raise InvalidRequest(
            msg("The seed is there twice: {typed} in the prompt and {seed} as the option. Please keep one of them."),
            typed=typed,
            seed=seed,
        )
    return words, typed if seed is None else seed


def split_seed(prompt: str) -> tuple[str, int | None]:
    """Take a trailing `seed:N` off a prompt; raise InvalidRequest, naming the limit, when N is no seed."""
    found = _TRAILING_SEED.search(prompt)
    if found is None:
        return prompt, None
    value = found["value"]
    if found["gap"] and not any(character.isdigit() for character in value):
        return prompt, None  # `a bird eating seed: millet`
    if len(value) > _SEED_CHARACTERS or not _WHOLE_NUMBER.fullmatch(value) or not 0 <= int(value) <= SEED_MAX:
        shown = value if len(value) <= 40 else value[:40] + "…"
        raise InvalidRequest(
            msg("The seed must be a whole number from 0 to {most:,}; it is {value!r}."), most=SEED_MAX, value=shown
        )
    words = prompt[: found.start()].rstrip()
    another = _TRAILING_SEED.search(words)
    if another is not None and _WHOLE_NUMBER.fullmatch(another["value"]):
        text = msg("The prompt ends with two seeds, {first} and {second}. Please keep one.")
        raise InvalidRequest(text, first=another["value"][:40], second=value)
    check_prompt(words)
    return words, int(value)


def _is_unseen(character: str) -> bool:
    """Whether a character shows nothing, or steers how others are shown."""
    if character in _JOINERS or ord(character) in _EMOJI:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in FILLERS


def _stand_in(flag: re.Match[str]) -> str:
    return "-" * len(flag[0])
