"""Text of people's is inert wherever it is shown: attacked with every trick that Discord's markup knows."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.quoting import fold, quoted, quoted_within, visible

# What Discord makes of a message, by its documentation and its clients' behaviour (2026-08).
TRICKS = [
    *(
        "@everyone",
        "@here",
        "@HERE",
        "<@1>",
        "<@!1>",
        "<@&1>",
        "<#1>",
        "</imagine:1>",
        "<t:1:R>",
        "<:fire:1>",
        "<id:guide>",
    ),
    *("**b**", "__u__", "*i*", "_i_", "~~s~~", "||spoiler||", "`code`", "```block```", "# head", "-# small", "> quote"),
    *("- list", "+ list", "1. list", "[text](https://evil.example)", "https://evil.example", "HTTP://evil.example"),
    *("<https://evil.example>", "steam://run", "discord.gg/abc", "DISCORD.GG/abc", "discord.com/invite/abc", "\\*x\\*"),
    *(
        "\u202eevil",
        "\u2066x\u2069",
        "a\u200bb",
        "\ufeff",
        "\u00ad",
        "\u3164",
        "\u2800",
        "x" + "\u0301" * 50,
        "\r\n# head",
    ),
    *("\U000e0041", "\ue000", "@\u200beveryone", "h\u200bttps://evil.example", "a\u200d\u200db", "\ud800", "*\u200d*"),
]
ATTACKS = st.lists(st.one_of(st.sampled_from(TRICKS), st.text(max_size=8)), max_size=12).map("".join)

LIVE = re.compile(
    r"@(?:everyone|here|[!&]?\d)"  # mentions
    r"|(?<!\\)(?:\\\\)*[`*_~|<>\[\]#]"  # markup without a backslash of its own
    r"|\w+://|discord(?:app)?\.(?:gg|com)/"  # links, invites
    r"|\A\s*(?:[-+]|\d+\.)(?:\s|$)",  # lists
    re.IGNORECASE,
)
HARMLESS = {"\u200b"}  # behind @ it keeps a mention from being one


def hidden(text: str) -> list[str]:
    """The characters of a text that show nothing or steer others, but for joiners within scripts and emoji."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return [c for c in text if unicodedata.category(c) in kinds and c not in "\u200c\u200d"]


@given(ATTACKS)
@example("\\" + "*x*")
@example("@" + "\u200b" + "everyone")
@example("<" + "\u00ad" + "@1>")
def test_nothing_that_people_write_does_anything(text: str) -> None:
    shown = quoted(text, characters=300)
    assert LIVE.search(shown) is None, shown
    assert all(found in HARMLESS for found in hidden(shown))
    assert "\n" not in shown


@given(ATTACKS, st.integers(2, 60))
def test_it_is_as_long_as_was_allowed_and_twice_that_when_escaped(text: str, characters: int) -> None:
    assert len(visible(text)) <= len(text)
    assert len(quoted(text, characters=characters)) <= 2 * characters + 1
    assert len(fold(text, characters=characters)) <= characters


@given(ATTACKS)
def test_a_text_for_menus_hides_nothing_and_is_the_same_when_made_visible_again(text: str) -> None:
    assert hidden(visible(text)) == []
    assert visible(visible(text)) == visible(text)


@given(ATTACKS, ATTACKS)
def test_a_sentence_around_it_stays_whole(before: str, after: str) -> None:
    """Two quoted texts side by side make nothing live either."""
    assert LIVE.search(f"x {quoted(before, characters=99)} {quoted(after, characters=99)} x") is None


@pytest.mark.parametrize(
    "text",
    [
        "a red house at night",
        "一座红房子",
        "👩\u200d👩\u200d👧 family",
        "नमस्ते",
        "می\u200cخواهم",
        "it's 5 o'clock; 50%",
        "x@y.org",
    ],
)
def test_everyday_text_stays_as_it_is(text: str) -> None:
    assert quoted(text, characters=300) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- a list", r"\- a list"),
        ("1. one", r"1\. one"),
        ("1.", r"1\."),
        ("1.5 metres", "1.5 metres"),
        ("e\u0301" + "\u0301" * 9, "e" + "\u0301" * 4),
        ("a\u202eb\nc", "a b c"),
        ("discord.gg/x", r"discord.gg\/x"),
    ],
)
def test_what_is_changed_and_how(text: str, shown: str) -> None:
    assert quoted(text, characters=300) == shown


@pytest.mark.parametrize("letter", ["a", "*", "@here ", "a*"])
@pytest.mark.parametrize("room", [0, 1, 30, 99, 700, 5000])
def test_as_much_is_quoted_as_there_is_room_for(letter: str, room: int) -> None:
    text = letter * 600
    shown = quoted_within(text, room, characters=500)
    assert len(shown) <= max(room, 1)
    assert len(shown) > min(room, 500) * 0.9 - 12, "there was room for more"
