"""Captions: a small grammar that describes a scene in English or Simplified Chinese, and the words it knows.

A caption never says anything that its scene does not show.  This file does not draw and does not know how a model
reads text.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from gen.demo import words
from gen.demo.scenes import ATTRIBUTES, Scene

LANGUAGES = ("en", "zh")
SUBJECT_SHARE = 0.92  # how often a caption states the thing, and how often its colour
DETAIL_SHARE = 0.55  # how often it states each other field
PLAIN_SHARE = 0.6  # how often the plainest of several words is taken
SURROUNDINGS = ("time", "sky", "ground", "light", "place")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text about a scene, and which of the scene's fields it states."""

    text: str
    language: str
    mentioned: frozenset[str]


def describe(scene: Scene, *, rng: random.Random, language: str, mention: frozenset[str] | None = None) -> Caption:
    """Describe the scene.

    `mention` forces which fields are stated: exactly these, and the number too when it is 1.  Without it the choice
    is random, but a number above 1 is always stated.
    """
    if language not in LANGUAGES:
        raise ValueError(f"the language is one of {LANGUAGES}, not {language!r}")
    stated = _choose_fields(scene, rng) if mention is None else mention
    if unknown := stated - set(ATTRIBUTES):
        raise ValueError(f"a scene has no {', '.join(sorted(unknown))}")
    if scene.number == 1:
        stated = stated | {"number"}
    text = _english(scene, stated, rng) if language == "en" else _chinese(scene, stated, rng)
    return Caption(text=text, language=language, mentioned=frozenset(stated))


def _choose_fields(scene: Scene, rng: random.Random) -> frozenset[str]:
    """A random choice of fields to state; at times only the thing and its colour."""
    stated = {name for name in ("thing", "colour") if rng.random() < SUBJECT_SHARE}
    share = 0.0 if rng.random() < 0.08 else DETAIL_SHARE + 0.05
    stated |= {name for name in ("size", *SURROUNDINGS) if rng.random() < share}
    return frozenset(stated | {"number"})


def _pick(rng: random.Random, options: tuple[str, ...]) -> str:
    """One of the options, the first more often than the others."""
    return options[0] if rng.random() < PLAIN_SHARE else rng.choice(options)


def _nonsense(rng: random.Random) -> str:
    """A made-up word that means nothing."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))


def _with_article(article: str, phrase: str) -> str:
    """Put the article before the phrase, `an` before a vowel."""
    if article == "a" and phrase[0] in "aeiou":
        article = "an"
    return f"{article} {phrase}".strip()


def _noun_phrase(scene: Scene, stated: frozenset[str], rng: random.Random) -> str:
    """The things in English, such as `two small red houses`."""
    plural = scene.number > 1
    noun = rng.choice(("things", "objects") if plural else ("thing", "object"))
    if "thing" in stated:
        names = words.EN_THINGS[scene.thing]
        noun = (names[0] if rng.random() < PLAIN_SHARE else rng.choice(names))[plural]
    size = [_pick(rng, words.EN["size"][scene.size])] if "size" in stated else []
    colour = [_pick(rng, words.EN["colour"][scene.colour])] if "colour" in stated else []
    praise = [rng.choice(words.EN_PRAISE)] if rng.random() < 0.10 else []
    tail = ""
    if colour and rng.random() < 0.06:
        tail, colour = f" in {colour[0]}", []
    adjectives = praise + (colour + size if rng.random() < 0.15 else size + colour)
    phrase = " ".join([*adjectives, noun]) + tail
    numbers = words.EN_NUMBERS[scene.number] if "number" in stated else ("some",)
    if "thing" not in stated and not plural:
        numbers = ("a", "one")
    return _with_article(_pick(rng, numbers), phrase)


def _english(scene: Scene, stated: frozenset[str], rng: random.Random) -> str:
    """The whole caption in English."""
    subject = _noun_phrase(scene, stated, rng)
    fields = [name for name in SURROUNDINGS if name in stated]
    rng.shuffle(fields)
    manner = rng.random()
    if manner < 0.22:
        text = ", ".join([subject, *(_pick(rng, words.EN_TAGS[name][getattr(scene, name)]) for name in fields)])
    else:
        phrases = _english_phrases(scene, fields, rng)
        text = _english_sentence(scene, stated, subject, phrases, manner, rng)
    return _finish_english(text, rng)


def _english_phrases(scene: Scene, fields: list[str], rng: random.Random) -> list[str]:
    """One phrase per field; the time and the sky at times share one, as in `on a rainy night`."""
    phrases = []
    joined = {"time", "sky"} <= set(fields) and rng.random() < 0.25
    for name in fields:
        if joined and name == "sky":
            time = rng.choice(words.EN_TAGS["time"][scene.time][:1])
            phrases.append(f"{'on' if time == 'night' else 'at'} a {scene.sky} {time}")
        elif not (joined and name == "time"):
            phrases.append(_pick(rng, words.EN[name][getattr(scene, name)]))
    return phrases


def _english_sentence(
    scene: Scene, stated: frozenset[str], subject: str, phrases: list[str], manner: float, rng: random.Random
) -> str:
    """Join the subject and its phrases in one of several orders."""
    plural = scene.number > 1
    stands = words.EN_VERBS.get(scene.thing, ("stands", "stand")) if "thing" in stated else ("is", "are")
    verb = stands[plural]
    bare = not subject.startswith(("a ", "an ", "one ", "the ", "two", "three", "2", "3", "some "))
    if not phrases:
        return subject if bare or rng.random() < 0.7 else f"there {'are' if plural else 'is'} {subject}"
    if manner < 0.55 or bare:
        joint = " " if rng.random() < 0.7 else ", "
        if rng.random() < 0.2:
            return f"{rng.choice(words.EN_OPENINGS)} {subject} {joint.join(phrases)}"
        return f"{subject} {joint.join(phrases)}"
    if manner < 0.70:
        return f"{phrases[0]}, {' '.join([subject, verb, *phrases[1:]]) if phrases[1:] else subject}"
    if manner < 0.84 or len(phrases) == 1:
        return f"{subject} {verb} {' '.join(phrases)}"
    cut = rng.randint(1, len(phrases) - 1)
    again = "They" if plural else "It"
    return f"{subject} {' '.join(phrases[:cut])}. {again} can be seen {' and '.join(phrases[cut:])}."


def _finish_english(text: str, rng: random.Random) -> str:
    """Add style words, a nonsense word, a capital and a full stop at times."""
    if rng.random() < 0.14:
        text = f"{text.rstrip('.')}, {rng.choice(words.EN_STYLES)}"
    elif rng.random() < 0.05:
        text = f"{rng.choice(words.EN_STYLES)}, {text}"
    if rng.random() < 0.03:
        text = f"{text.rstrip('.')}, {_nonsense(rng)}"
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
        if not text.endswith(".") and rng.random() < 0.6:
            text += "."
    return text


def _chinese_phrase(scene: Scene, stated: frozenset[str], rng: random.Random) -> str:
    """The things in Chinese, such as 两座小小的红色房子."""
    known = "thing" in stated
    name = _pick(rng, words.ZH_THINGS[scene.thing]) if known else rng.choice(("东西", "物体"))
    size = ""
    if "size" in stated:
        if known and rng.random() < 0.6:
            name = _pick(rng, words.ZH_SIZED[scene.thing, scene.size])
        else:
            size = _pick(rng, words.ZH["size"][scene.size])
    colour = ""
    if "colour" in stated:
        colour = _pick(rng, words.ZH["colour"][scene.colour])
        colour += "的" if len(colour) > 1 and not size and rng.random() < 0.7 else ""
    praise = rng.choice(words.ZH_PRAISE) if rng.random() < 0.08 else ""
    body = praise + size + colour + name
    if "number" not in stated:
        return f"一些{body}"
    number = _pick(rng, words.ZH_NUMBERS[scene.number])
    if not number:
        return body
    return number + (_pick(rng, words.ZH_MEASURES[scene.thing]) if known else "个") + body


def _chinese(scene: Scene, stated: frozenset[str], rng: random.Random) -> str:
    """The whole caption in Chinese."""
    subject = _chinese_phrase(scene, stated, rng)
    fields = [name for name in SURROUNDINGS if name in stated]
    rng.shuffle(fields)
    spots = [name for name in fields if name in ("ground", "place")]
    manner = rng.random()
    if spots and manner >= 0.60:  # these sentences need a place next to the verb
        fields.remove(spots[0])
        fields.insert(0 if 0.80 <= manner < 0.90 else len(fields), spots[0])
    phrases = [_chinese_words(scene, name, rng) for name in fields]
    if not phrases:
        return _finish_chinese(subject, rng)
    if manner < 0.35:
        cut = rng.randint(1, min(2, len(phrases)))
        text = "，".join([f"{''.join(phrases[:cut])}的{subject}", *phrases[cut:]])
    elif manner < 0.60 or not spots:
        text = "，".join([subject, *phrases])
    elif manner < 0.80:
        text = "，".join([*phrases[:-1], f"{phrases[-1]}有{subject}"])
    elif manner < 0.90:
        text = "，".join([f"{subject}在{phrases[0]}", *phrases[1:]])
    else:
        text = f"{subject}。{'，'.join(phrases)}。"
    return _finish_chinese(text, rng)


def _chinese_words(scene: Scene, name: str, rng: random.Random) -> str:
    """Words for one field; those for a setting sun are kept for when the sun is there."""
    options = words.ZH[name][getattr(scene, name)]
    return _pick(rng, options if scene.light == "sun" else tuple(word for word in options if "夕阳" not in word))


def _finish_chinese(text: str, rng: random.Random) -> str:
    """Add an opening, style words, a nonsense word and a full stop at times."""
    if rng.random() < 0.08:
        text = rng.choice(words.ZH_OPENINGS) + text
    if rng.random() < 0.14:
        text = f"{text.rstrip('。')}，{rng.choice(words.ZH_STYLES)}"
    if rng.random() < 0.03:
        text = f"{text.rstrip('。')}，{_nonsense(rng)}"
    return text + "。" if rng.random() < 0.25 and not text.endswith("。") else text


def _table_words(table: words.Table) -> Iterator[str]:
    for values in table.values():
        for options in values.values():
            yield from options


@lru_cache(maxsize=1)
def _known_english() -> frozenset[str]:
    """Every English word that the model has met or may ignore."""
    texts = [*_table_words(words.EN), *_table_words(words.EN_TAGS), *words.EN_PRAISE, *words.EN_OPENINGS]
    texts += [*words.EN_STYLES, *(name for names in words.EN_THINGS.values() for pair in names for name in pair)]
    return frozenset(words.EN_FILLERS.split()) | {part for text in texts for part in re.split(r"[\s-]+", text)}


@lru_cache(maxsize=1)
def _known_chinese() -> frozenset[str]:
    """Every Chinese word that the model has met or may ignore."""
    texts = [*_table_words(words.ZH), *words.ZH_PRAISE, *words.ZH_STYLES, *words.ZH_FILLERS.split(), *words.ZH_STEMS]
    texts += [name for table in (words.ZH_THINGS, words.ZH_SIZED) for names in table.values() for name in names]
    return frozenset(texts)


def _is_known_english(word: str) -> bool:
    """Whether the word, or what it may be the plural of, is known."""
    stems = [word]
    for ending, stem in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stems.append(word.removesuffix(ending) + stem)
    return any(stem in _known_english() for stem in stems)


def _unknown_chinese(run: str) -> Iterator[str]:
    """The parts of an unbroken Chinese run that are left when the known words are taken out, longest first.

    A stem before an unknown part belongs to it: an owl (猫头鹰) is not a cat (猫) with something.
    """
    known, at = _known_chinese(), 0
    longest = max(map(len, known))
    pieces: list[tuple[str, bool]] = []
    while at < len(run):
        size = next((n for n in range(longest, 0, -1) if run[at : at + n] in known), 0)
        piece = run[at : at + max(size, 1)]
        if not size and pieces and (not pieces[-1][1] or pieces[-1][0] in words.ZH_STEMS):
            piece = pieces.pop()[0] + piece
        pieces.append((piece, bool(size)))
        at += max(size, 1)
    yield from (piece for piece, is_known in pieces if not is_known)


def unknown_words(prompt: str) -> tuple[str, ...]:
    """The content words of a prompt that the demo model cannot draw, in lower case, once each and in order."""
    found: dict[str, None] = {}
    for word in re.findall(r"[㐀-鿿]+|[^\W_㐀-鿿]+(?:['’][a-z]+)?", prompt.lower()):
        if "㐀" <= word[0] <= "鿿":
            found.update(dict.fromkeys(_unknown_chinese(word)))
            continue
        plain = word.removesuffix("'s").removesuffix("’s")
        if not _is_known_english(plain):
            found[plain] = None
    return tuple(found)
