"""A sentence for people and the values in it, kept apart, so that whoever shows it can choose the language.

`str()` is the English sentence, for the log and the command line. Knows no languages; `bot.language` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Speaker(Protocol):
    """Translates a text and fills in its values."""

    def __call__(self, text: str, /, **values: object) -> str: ...


def msg(text: str) -> str:
    """Mark a text for the catalogues, and return it as it is; it is translated where it is shown."""
    return text


def fill(text: str, values: Mapping[str, object]) -> str:
    """Put the values into a text's placeholders; a text without values may hold any braces."""
    return text.format(**values) if values else text


class Message:
    """One sentence: an English text with `{placeholders}` (`msg` marks it), and what they stand for.

    A value may be a Message itself, or a tuple of them, which is shown with commas.
    """

    __slots__ = ("text", "values")

    def __init__(self, text: str, /, **values: object) -> None:
        self.text, self.values = text, values

    def __str__(self) -> str:
        return self.told(_english)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and (self.text, self.values) == (other.text, other.values)

    __hash__ = None  # type: ignore[assignment]  # its values may not be hashable

    def told(self, say: Speaker) -> str:
        """The sentence in the language of `say`."""
        return say(self.text, **{name: _shown(value, say) for name, value in self.values.items()})


class Worded(Exception):
    """An error that people hear of: `str()` is its English sentence, `told` the same in another language."""

    def __init__(self, text: str = "", /, **values: object) -> None:
        """As a Message."""
        super().__init__(text)
        self.message = Message(text, **values)

    def __str__(self) -> str:
        return str(self.message)

    def told(self, say: Speaker) -> str:
        """The sentence in the language of `say`."""
        return self.message.told(say)


def _shown(value: object, say: Speaker) -> object:
    if isinstance(value, Message):
        return value.told(say)
    if isinstance(value, tuple):
        return say(msg(", ")).join(str(_shown(one, say)) for one in value)
    return value


def _english(text: str, /, **values: object) -> str:
    return fill(text, values)
