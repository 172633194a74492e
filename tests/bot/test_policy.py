"""The prompt policy: whole words in every dress, never parts of words; Chinese without spaces; where a rule holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.servers.default_rules import ALWAYS, USUAL
from bot.servers.lookalikes import plain, tokens
from bot.servers.policy import Action, InvalidRule, Rule, Where, judge


def found(words: str, text: str) -> bool:
    return judge(text, [Rule(words=words, action=Action.REFUSE)], restricted=False) is not None


@pytest.mark.parametrize(
    "dress",
    [
        *("nude", "NUDE", "a Nude.", "(nude)", "nude!", "nüdé", "ｎｕｄｅ", "n\u200bu\u200cd\u2060e", "nu\u00adde"),
        *("n\u202eude", "𝓷𝓾𝓭𝓮", "ⓝⓤⓓⓔ", "🅽🆄🅳🅴", "🇳🇺🇩🇪", "nudе", "nᴜᴅᴇ", "пude", "nud3", "nudé", "nuuude", "nnnnude"),
        *(
            "n u d e",
            "n.u.d.e",
            "n-u-d-e",
            "n, u, d, e",
            "a n u d e",
            "n\u0336u\u0336d\u0336e",
            "nu\ufe0fde",
            "n\u034fude",
        ),
        *("cat+nude", "cat|nude", "@nude", "nude@home", "_nude_", "nude_cat", "nud€", "**nude**", "nude\nnude"),
    ],
)
def test_a_word_is_found_in_every_dress(dress: str) -> None:
    assert found("nude", dress)
    assert found("dog | nude", f"a painting of {dress} by the sea")


@pytest.mark.parametrize(
    "text", ["p0rn", "pоrn", "роrn", "рогn", "p*o*r*n", "PO\u0301RN", "porn", "pooorn", "p○rn porn"]
)
def test_a_second_word_in_its_dresses(text: str) -> None:
    assert found("porn", text)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        *(("ass", text) for text in ("grass", "class", "assassin", "as s", "bass")),
        *(("nude", text) for text in ("denuded", "nudes", "nudetown", "nu de", "2 nu-de")),
        *(("cum", text) for text in ("cucumber", "document", "circumcise")),
        *(("sex", text) for text in ("Essex", "Sussex", "sextant", "unisex", "middle5exa")),
        ("pot", "рот"),  # a mouth, in Russian
        ("tit", "1 1 1"),
        ("boob", "80085"),
        ("nazi", "a naz and i"),
    ],
)
def test_a_part_of_a_word_is_not_the_word(word: str, text: str) -> None:
    assert not found(word, text)


def test_a_phrase_stands_in_one_clause_and_a_combination_anywhere() -> None:
    assert found("child statue", "a Child   Statue")
    assert found("child statue", "a child-statue")
    assert not found("child statue", "a child, statue of marble")
    assert not found("child statue", "a statue of a child")
    assert found("child + statue", "a statue, and then, much later. a child")
    assert not found("child + statue", "a child")
    assert found("cat | child + dog | statue", "cat and dog")


def test_an_exception_excuses_only_what_stands_in_it() -> None:
    words = "naked | nude ! naked mole rat | nude lipstick"
    assert not found(words, "a naked mole rat with nude lipstick")
    assert found(words, "a naked mole rat, naked")
    assert found(words, "a naked mole, a rat")


@pytest.mark.parametrize("text", ["一个裸体女人", "裸 体", "裸\u200b体", "裸，体", "裸.体", "裸体", "裸 - 体 画"])
def test_a_chinese_word_is_found_without_spaces_and_with(text: str) -> None:
    assert found("裸体", text)


@pytest.mark.parametrize(
    ("word", "text"),
    [("裸体", "裸露的身体"), ("裸体", "全裸，体育"), ("做爱 ! 做爱心", "做爱心便当"), ("体裸", "裸体")],
)
def test_chinese_characters_must_stand_together_in_their_order(word: str, text: str) -> None:
    assert not found(word, text)


def test_an_exception_in_chinese_excuses_the_border_of_two_words() -> None:
    assert found("性交 ! 异性交往", "异性交往和性交")
    assert not found("性交 ! 异性交往", "两个人的异性交往")


@pytest.mark.parametrize("word", ["性", "a | 性", "の", "ก"])
def test_a_single_character_of_an_unspaced_script_is_no_rule(word: str) -> None:
    with pytest.raises(InvalidRule, match="two characters or more"):
        Rule(words=word, action=Action.FLAG)


@pytest.mark.parametrize("words", ["", " ", "|", "a |", "+ a", "a + ", "! a", "a || b", "\u200b", "..."])
def test_a_rule_without_words_is_refused(words: str) -> None:
    with pytest.raises(InvalidRule, match="needs words"):
        Rule(words=words, action=Action.FLAG)


def test_limits_of_a_rule_name_limit_and_value() -> None:
    with pytest.raises(InvalidRule, match="600 characters; this one has 601"):
        Rule(words="x" * 601, action=Action.FLAG)
    with pytest.raises(InvalidRule, match="60 phrases; this one has 61"):
        Rule(words="|".join(["x"] * 61), action=Action.FLAG)


@pytest.mark.parametrize(
    ("where", "restricted", "holds"),
    [
        (Where.EVERYWHERE, True, True),
        (Where.EVERYWHERE, False, True),
        (Where.OPEN, True, False),
        (Where.OPEN, False, True),
        (Where.RESTRICTED, True, True),
        (Where.RESTRICTED, False, False),
    ],
)
def test_a_rule_holds_for_its_kind_of_channel(where: Where, restricted: bool, holds: bool) -> None:
    rule = Rule(words="fox", action=Action.FLAG, where=where)
    assert (judge("a fox", [rule], restricted=restricted) is not None) == holds


def test_the_strictest_rule_wins_whatever_the_order() -> None:
    rules = [Rule(words="fox", action=action) for action in (Action.HOLD, Action.REFUSE, Action.FLAG)]
    for order in (rules, rules[::-1], rules[1:] + rules[:1]):
        verdict = judge("a fox", order, restricted=False)
        assert verdict is not None
        assert verdict.rule.action is Action.REFUSE


@pytest.mark.parametrize(
    "text",
    [
        *("a red house at night", "a child flying a kite", "children in a naked tree", "kids by the sea, 1girl, 4k"),
        *(
            "a 12 year old oak and a naked tree",
            "a 113 year old inn, sexy",
            "a sexy dress in baby blue",
            "22岁的性感歌手",
        ),
        *("a mother and her kids in Essex, grass, classical", "a schoolboy with the naked eye", "naked mole rat kid"),
        *(
            "一座红色的房子",
            "孩子做爱心卡片",
            "小孩和体育老师",
            "性格开朗的老师",
            "安全带",
            "a penguin in a circumspect pose",
        ),
    ],
)
def test_the_rules_that_kiln_brings_let_everyday_words_pass(text: str) -> None:
    assert judge(text, (*ALWAYS, *USUAL), restricted=False) is None


@pytest.mark.parametrize(
    "text",
    [
        *("a nude child", "l0li, s3xy", "k1ds + p0rn", "一个全裸的小女孩", "child porn", "naked tree, naked kids"),
        *("a naked school girl", "naked little girls", "naked baby", "underaged, nude", "裸体的高中生"),
        *("13 year old girl, naked", "a nude 9-year-old", "nude 12yo", "aged 7, sexy", "naked, FIFTEEN years old"),
        *("12岁 裸体", "裸体 13歲 女孩", "nude 17岁"),
    ],
)
def test_what_is_always_refused_is_refused_in_every_channel(text: str) -> None:
    for restricted in (True, False):
        verdict = judge(text, ALWAYS, restricted=restricted)
        assert verdict is not None
        assert verdict.rule.action is Action.REFUSE


def test_a_verdict_names_the_words_that_it_found() -> None:
    for words, text, named in (
        ("cat | old dog + tree", "a tree and an old  dog", "old dog + tree"),
        ("狗 狗 | 裸体", "一个裸体女人", "裸体"),
    ):
        verdict = judge(text, [Rule(words=words, action=Action.FLAG)], restricted=False)
        assert verdict is not None
        assert verdict.found == named


def test_the_usual_rules_hold_where_channels_are_not_age_restricted() -> None:
    assert judge("a nude", USUAL, restricted=False) is not None
    assert judge("a nude", USUAL, restricted=True) is None


@given(st.text(max_size=300))
def test_any_text_can_be_judged_and_its_plain_form_stays_as_it_is(text: str) -> None:
    judge(text, (*ALWAYS, *USUAL), restricted=False)
    assert plain(plain(text)) == plain(text)
    assert all(token.text in token.words for read in tokens(text) for token in read)


@given(
    st.sampled_from("\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u034f\ufe0f"), st.integers(0, 4), st.booleans()
)
def test_no_invisible_character_hides_a_word(hidden: str, at: int, upper: bool) -> None:
    word = "nude"[:at] + hidden * 3 + "nude"[at:]
    assert found("nude", word.upper() if upper else word)


@given(st.text(alphabet=st.characters(categories=["Ll"], max_codepoint=0x7F), min_size=1, max_size=6))
def test_letters_around_a_word_make_it_another(letters: str) -> None:
    assert not found("zqx", f"a{letters}zqx")
    assert not found("zqx", f"zqx{letters}b")
