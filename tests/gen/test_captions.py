"""The demo's captions: they say what they claim to say, in both languages, and never more."""

import random
import re
from dataclasses import replace

import pytest

from gen.demo import words
from gen.demo.captions import describe, unknown_words
from gen.demo.scenes import ATTRIBUTES, Scene, sample_scene

NUMBERS: dict[str, dict[int, tuple[str, ...]]] = {
    "en": {2: ("two", "2", "pair", "couple"), 3: ("three", "3", "trio")},
    "zh": {2: ("两", "2"), 3: ("三", "3")},
}


def vocabulary(language: str) -> list[tuple[str, str, str]]:
    """Every wording with its field and value, the longest first."""
    found: list[tuple[str, str, str]] = []
    tables = [words.EN, words.EN_TAGS] if language == "en" else [words.ZH]
    for table in tables:
        for name, values in table.items():
            found += [(text, name, value) for value, texts in values.items() for text in texts]
    if language == "en":
        found += [(text, "thing", thing) for thing, pairs in words.EN_THINGS.items() for pair in pairs for text in pair]
    else:
        found += [(text, "thing", thing) for thing, texts in words.ZH_THINGS.items() for text in texts]
        found += [(text, f"{thing} {size}", "") for (thing, size), texts in words.ZH_SIZED.items() for text in texts]
    return sorted(found, key=lambda entry: -len(entry[0]))


def read_back(text: str, language: str) -> set[tuple[str, str]]:
    """The (field, value) pairs that a caption states, by taking out the longest wordings first."""
    rest = text.lower()
    stated: set[tuple[str, str]] = set()
    styles = [*words.EN_STYLES, *words.EN_OPENINGS] if language == "en" else [*words.ZH_STYLES, *words.ZH_OPENINGS]
    for style in styles:
        rest = rest.replace(style, "|")
    for wording, name, value in vocabulary(language):
        pattern = rf"(?<![\w-]){re.escape(wording)}(?![\w-])" if language == "en" else re.escape(wording)
        if re.search(pattern, rest):
            rest = re.sub(pattern, "|", rest)
            if value:
                stated.add((name, value))
            else:
                thing, size = name.split()
                stated |= {("thing", thing), ("size", size)}
    for number, forms in NUMBERS[language].items():
        if any(re.search(rf"(?<!\w){form}\b" if language == "en" else form, rest) for form in forms):
            stated.add(("number", str(number)))
    return stated


def expected(scene: Scene, mentioned: frozenset[str]) -> set[tuple[str, str]]:
    pairs = {(name, str(getattr(scene, name))) for name in mentioned}
    return pairs - {("number", "1")}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_say_what_they_claim_and_nothing_else(language: str) -> None:
    rng = random.Random(5)
    for _ in range(1500):
        scene = sample_scene(rng)
        caption = describe(scene, rng=rng, language=language)
        assert read_back(caption.text, language) == expected(scene, caption.mentioned), caption


@pytest.mark.parametrize("language", ["en", "zh"])
def test_forced_fields_are_stated_exactly(language: str) -> None:
    rng = random.Random(6)
    for _ in range(600):
        scene = sample_scene(rng)
        mention = frozenset(name for name in ATTRIBUTES if rng.random() < 0.5)
        caption = describe(scene, rng=rng, language=language, mention=mention)
        assert caption.mentioned == mention | ({"number"} if scene.number == 1 else set())
        assert read_back(caption.text, language) == expected(scene, caption.mentioned), caption


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_number_above_one_is_always_stated(language: str) -> None:
    rng = random.Random(7)
    captions = [describe(sample_scene(rng), rng=rng, language=language) for _ in range(300)]
    assert all("number" in caption.mentioned for caption in captions)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_subjects_are_nearly_always_stated_and_details_half_the_time(language: str) -> None:
    rng = random.Random(8)
    captions = [describe(sample_scene(rng), rng=rng, language=language) for _ in range(2000)]
    for name in ATTRIBUTES:
        share = sum(name in caption.mentioned for caption in captions) / len(captions)
        if name in ("thing", "colour"):
            assert 0.88 < share < 0.96
        elif name != "number":
            assert 0.48 < share < 0.62


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_vary(language: str) -> None:
    rng = random.Random(9)
    scene = sample_scene(rng)
    assert len({describe(scene, rng=rng, language=language).text for _ in range(200)}) > 180


def test_same_seed_words_the_same_caption() -> None:
    scene = sample_scene(random.Random(1))
    first, second = (describe(scene, rng=random.Random(2), language="en") for _ in range(2))
    assert first == second


def test_captions_use_the_right_article() -> None:
    rng = random.Random(10)
    for _ in range(1000):
        text = describe(sample_scene(rng), rng=rng, language="en").text.lower()
        assert not re.search(r"\ba [aeiou]", text), text
        assert not re.search(r"\ban [^aeiou]", text), text


def test_chinese_captions_hold_no_english_but_style_words() -> None:
    rng = random.Random(11)
    for _ in range(300):
        text = describe(sample_scene(rng), rng=rng, language="zh").text
        assert "  " not in text
        assert "的的" not in text


def test_two_word_captions_occur() -> None:
    rng = random.Random(12)
    scene = replace(sample_scene(rng), number=1)
    mention = frozenset({"thing", "colour"})
    texts = {describe(scene, rng=rng, language="en", mention=mention).text for _ in range(300)}
    assert any(len(text.split()) == 2 for text in texts)


def test_captions_hold_only_known_words_or_nonsense() -> None:
    rng = random.Random(13)
    for _ in range(1000):
        language = rng.choice(("en", "zh"))
        unknown = unknown_words(describe(sample_scene(rng), rng=rng, language=language).text)
        assert all(re.fullmatch(r"([bdfgklmnprstvz][aeiou]){2,3}", word) for word in unknown), unknown


@pytest.mark.parametrize(
    "prompt",
    [
        "a red house at night",
        "two blue boats on the sea at sunset",
        "a white cat under a starry sky",
        "Three PURPLE lighthouses, please!",
        "A picture of a small, red-coloured castle in the snow; 8k, highly detailed",
        "hot-air balloons over the ocean",
        "",
        "?!",
        "夜晚的红色房子",
        "海边的蓝色灯塔",
        "星空下有两只白色的小猫",
        "请画一座雪地里的大城堡，左边",
    ],
)
def test_prompts_in_the_demo_world_are_known(prompt: str) -> None:
    assert unknown_words(prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a dragon", ("dragon",)),
        ("a Dragon and a DRAGON's castle", ("dragon",)),
        ("five cats playing guitar", ("five", "playing", "guitar")),
        ("a firehouse", ("firehouse",)),
        ("海边有一条红色的龙", ("龙",)),
        ("恐龙和两只猫", ("恐龙",)),
        ("一只猫头鹰", ("猫头鹰",)),
        ("a 机器人 house", ("机器人",)),
        ("кошка", ("кошка",)),
    ],
)
def test_words_outside_the_demo_world_are_named(prompt: str, unknown: tuple[str, ...]) -> None:
    assert unknown_words(prompt) == unknown


def test_bad_requests_for_captions_are_refused() -> None:
    scene, rng = sample_scene(random.Random(0)), random.Random(0)
    with pytest.raises(ValueError, match="language"):
        describe(scene, rng=rng, language="fr")
    with pytest.raises(ValueError, match="weather"):
        describe(scene, rng=rng, language="en", mention=frozenset({"weather"}))
