"""May these words be drawn here: rules on whole words and phrases, whatever dress the words come in. Pure.

A rule is a line such as `nude | naked ! naked mole rat` or `child | kid + nude`:

    |   any of these           +   and also any of those, anywhere in the text
    !   but not within one of these longer phrases

Rule and text are brought to the same plain tokens, see lookalikes.py: width, case, accents, invisible characters,
lookalikes, digits for letters. A token matches a word as a whole, never a part of one: `ass` is not in `grass`.
Letters that stand alone (`p o r n`) are also read as one word. A clause mark ends a phrase: `child, nude statue` is
not the phrase `child nude`.

Chinese, Japanese and Thai are written without spaces. There each character is a token and a word is a phrase, which
may stand anywhere, with spaces in it or without. That is sound for words of two characters and more: a character there
carries a meaning of its own, as a word does elsewhere, so a chance neighbourhood across the border of two words is
rare, and is named as an exception (`做爱 ! 做爱心`). A single character is part of hundreds of words: it is no rule.

Only the prompt is judged. A negative prompt says what not to draw. Knows no Discord and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from bot.errors import Refusal
from bot.language import msg
from bot.servers.lookalikes import Token, plain, tokens

WORDS_MAX_CHARACTERS = 600  # of a rule
PHRASES_MAX = 60  # of a rule
RULES_MAX = 100  # of a server

Phrase = tuple[str, ...]  # words, or characters of a script without spaces


class Action(StrEnum):
    """What becomes of a prompt that a rule matches, the mildest first; stored by value."""

    FLAG = "flag"  # it is drawn, and the log channel hears of it
    HOLD = "hold"  # it waits until a moderator has looked at it
    REFUSE = "refuse"


class Where(StrEnum):
    """In which channels a rule holds; a thread is what its parent is. Stored by value."""

    EVERYWHERE = "everywhere"
    OPEN = "open"  # not age-restricted
    RESTRICTED = "restricted"


class InvalidRule(Refusal):
    """This is no rule; the words say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a policy. If you hold one, it can be matched."""

    words: str
    action: Action
    where: Where = Where.EVERYWHERE
    id: int = 0  # 0: one that Kiln brings

    def __post_init__(self) -> None:
        """Raise InvalidRule for words that are no rule."""
        _pattern(self.words)

    def holds(self, *, restricted: bool) -> bool:
        """Whether it is for channels of this kind."""
        return self.where is Where.EVERYWHERE or (self.where is Where.RESTRICTED) == restricted


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The rule that matched, and which of its words."""

    rule: Rule
    found: str  # `child + nude`


@dataclass(frozen=True, slots=True)
class _Pattern:
    groups: tuple[tuple[Phrase, ...], ...]  # all must be found, each by any of its phrases
    exceptions: tuple[Phrase, ...]
    begins: tuple[frozenset[str], ...]  # with which words the phrases of each group begin, whole or spelled


@dataclass(frozen=True, slots=True)
class _Read:
    """One reading of a text, and where in it each word may stand: most phrases are looked for in vain."""

    tokens: Sequence[Token]
    places: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, read: Sequence[Token]) -> _Read:
        places: dict[str, list[int]] = {}
        for number, token in enumerate(read):
            for word in token.words:
                places.setdefault(word, []).append(number)
        return cls(read, places)


def judge(text: str, rules: Iterable[Rule], *, restricted: bool) -> Verdict | None:
    """What the strictest rule that matches in a channel of this kind says; None: draw it."""
    read = [_Read.of(reading) for reading in tokens(text)]
    strictest: Verdict | None = None
    for rule in rules:
        stricter = strictest is None or _ORDER[rule.action] > _ORDER[strictest.rule.action]
        if stricter and rule.holds(restricted=restricted):
            pattern = _pattern(rule.words)
            found = _found_of_each(pattern, read)
            if found:
                strictest = Verdict(rule=rule, found=" + ".join(found))
    return strictest


_ORDER = {action: number for number, action in enumerate(Action)}


def _found_of_each(pattern: _Pattern, text: Sequence[_Read]) -> list[str]:
    """What of each group is in the text; nothing where a group is not, after which no other is looked for."""
    found = []
    for group, begins in zip(pattern.groups, pattern.begins, strict=True):
        here = [read for read in text if not begins.isdisjoint(read.places)]  # most are nowhere
        one = _found(group, here, pattern.exceptions)
        if one is None:
            return []
        found.append(one)
    return found


def _found(group: Sequence[Phrase], text: Sequence[_Read], exceptions: Sequence[Phrase]) -> str | None:
    """The first of these phrases that is somewhere in the text, but not within an exception."""
    for read in text:
        excused: list[tuple[int, int]] | None = None
        for phrase in group:
            spans = list(_spans(phrase, read))
            if spans and excused is None:
                excused = [span for exception in exceptions for span in _spans(exception, read)]
            if any(not any(low <= first and last <= high for low, high in excused or ()) for first, last in spans):
                return _shown(phrase)
    return None


def _shown(phrase: Phrase) -> str:
    return ("" if all(len(word) == 1 for word in phrase) else " ").join(phrase)


def _spans(phrase: Phrase, read: _Read) -> Iterator[tuple[int, int]]:
    """From which token to which the phrase stands."""
    word = phrase[0]
    for first in {*read.places.get(word, ()), *read.places.get(word[0], ())}:
        last = _end(phrase, read.tokens, first)
        if last is not None:
            yield first, last


def _end(phrase: Phrase, read: Sequence[Token], first: int) -> int | None:
    """The token after the phrase, if it begins at `first`."""
    at = first
    for word in phrase:
        after = _after_word(word, read, at)
        if after is None or (at > first and _torn(read, at)):
            return None
        at = after
    return at


def _after_word(word: str, read: Sequence[Token], at: int) -> int | None:
    """The token after a word that stands at `at`, whole or letter by letter."""
    if at < len(read) and word in read[at].words:
        return at + 1
    spelled = read[at : at + len(word)]
    if 2 < len(word) == len(spelled) and all(
        token.alone and letter in token.words for token, letter in zip(spelled, word, strict=True)
    ):
        return at + len(word)
    return None


def _torn(read: Sequence[Token], at: int) -> bool:
    """Whether a clause mark parts this token from the one before; not where each stands alone, set apart to hide."""
    return read[at].begins_clause and not (read[at].alone and read[at - 1].alone)


@lru_cache(maxsize=4096)
def _pattern(words: str) -> _Pattern:
    if len(words) > WORDS_MAX_CHARACTERS:
        raise InvalidRule(
            msg("A rule may have {limit} characters; this one has {length}."),
            limit=WORDS_MAX_CHARACTERS,
            length=len(words),
        )
    wanted, _, unless = plain(words).partition("!")
    groups = tuple(tuple(_phrases(group)) for group in wanted.split("+"))
    exceptions = tuple(_phrases(unless)) if unless.strip() else ()
    count = sum(map(len, groups)) + len(exceptions)
    if count > PHRASES_MAX:
        raise InvalidRule(msg("A rule may have {limit} phrases; this one has {count}."), limit=PHRASES_MAX, count=count)
    begins = tuple(frozenset(begin for phrase in group for begin in (phrase[0], phrase[0][0])) for group in groups)
    return _Pattern(groups=groups, exceptions=exceptions, begins=begins)


def _phrases(listed: str) -> Iterator[Phrase]:
    """The phrases between the bars. Raise InvalidRule for an empty one, or a character that is no word."""
    for phrase in listed.split("|"):
        read, *_ = tokens(phrase)
        if not read:
            raise InvalidRule(msg("A rule needs words on both sides of | + and !."))
        if len(read) == 1 and read[0].unspaced:
            raise InvalidRule(
                msg("In a script without spaces a rule needs two characters or more; this one is {phrase}."),
                phrase=phrase.strip(),
            )
        yield tuple(token.text for token in read)
