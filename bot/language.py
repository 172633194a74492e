"""The bot's words in the languages that it speaks: English, as it stands in the code, and Simplified Chinese.

A text is its own key: `say("Place {place} of {total}.", place=3, total=9)` looks the English up in the catalogue of
the language, `bot/locales/zh.po`, and fills it. What a catalogue lacks is said in English. Texts that are looked up
elsewhere than where they stand are marked with `msg("…")`. `python -m docs.catalogue` brings the catalogue to the
code. Knows no Discord; `bot.command_words` translates the commands, `bot.answers` knows who reads what.
"""

from __future__ import annotations

import gettext
import io
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from gen.message import Message, Worded, fill, msg

if TYPE_CHECKING:
    from bot.queue.job import Job
    from bot.storage.tables import JobRow

__all__ = ["ENGLISH", "LOCALES", "LOCALE_NAMES", "Message", "Say", "Worded", "msg", "say_in", "say_to_owner"]

ENGLISH, CHINESE = "en", "zh"
LOCALE_NAMES = {ENGLISH: "English", CHINESE: "简体中文"}  # each in itself, for whoever looks for their own
LOCALES = tuple(LOCALE_NAMES)
CATALOGUES = Path(__file__).parent / "locales"


@dataclass(frozen=True, slots=True)
class Say:
    """One language. Functions that make words take one as their first argument."""

    locale: str  # one of LOCALES
    _texts: gettext.NullTranslations

    def __call__(self, text: str, /, **values: object) -> str:
        """Translate `text` and put the values into its placeholders."""
        return fill(self._texts.gettext(text), values)

    def many(self, one: str, many: str, n: int, /, **values: object) -> str:
        """The same for a text whose form depends on the number `n`, which is a value only if it is named as one."""
        return fill(self._texts.ngettext(one, many, n), values)


@lru_cache(maxsize=64)  # a start asks for each text of each command in each of Discord's thirty languages
def say_in(*locales: str | None) -> Say:
    """The language of the first locale that Kiln speaks, English if there is none.

    Locales are Discord's, such as `zh-CN` or `en-US`, or one of LOCALES. Traditional Chinese is read, not written: who
    has set it gets Simplified Chinese.
    """
    spoken = (family for locale in locales if (family := (locale or "").partition("-")[0].lower()) in LOCALES)
    return _language(next(spoken, ENGLISH))


def say_to_owner(job: Job | JobRow) -> Say:
    """The language of who asked for a job: its card and its picture come without an interaction."""
    return say_in(job.locale)


@cache
def _language(locale: str) -> Say:
    if locale == ENGLISH:
        return Say(ENGLISH, gettext.NullTranslations())
    with (CATALOGUES / f"{locale}.po").open("rb") as source:
        catalogue = read_po(source, locale=locale)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Say(locale, gettext.GNUTranslations(compiled))
