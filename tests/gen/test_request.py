"""The limits of a request: each bad value gets a word that names the limit and the value."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.errors import GenerationError, InvalidRequest
from gen.request import (
    PROMPT_MAX_CHARACTERS,
    SEED_MAX,
    SIDE_MAX,
    SIDE_MIN,
    SIDE_MULTIPLE,
    ImageRequest,
    LoraUse,
    ModelProfile,
    Variation,
    check_prompt,
    parse_size,
)
from tests.fakes import FAKE_PROFILE, image_request

BIG = ModelProfile(
    name="big", width=1024, height=1024, steps=20, guidance=3.5, side_min=256, side_max=1536, pixels_max=1024 * 1536
)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red house at night",
        "a",
        "7",
        "  a fox  ",
        "@everyone a `fox` **in** <#1> _snow_ ||here||",
        "夜の赤い家",
        "a family 👨\u200d👩\u200d👧 and a heart ❤\ufe0f",
        "نیم\u200cفاصله",
        "x" * PROMPT_MAX_CHARACTERS,
    ],
)
def test_a_prompt_of_visible_words_is_taken_as_it_is(prompt: str) -> None:
    assert image_request(prompt).prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", r"The prompt is empty"),
        (" \t\n", r"The prompt is empty"),
        ("\u3000\u2003", r"The prompt is empty"),
        ("x" * 1001, r"may have 1,000 characters at most; it has 1,001"),
        ("a\x00fox", r"\(U\+0000\) at position 2"),
        ("a fox\x1b[31m", r"\(U\+001B\) at position 6"),
        ("a\nfox", r"\(U\+000A\) at position 2"),
        ("a\u200bfox", r"\(U\+200B\) at position 2"),
        ("\u3164", r"\(U\+3164\) at position 1"),
        ("fox \u202egnp", r"\(U\+202E\) at position 5"),
        ("fox \u2066x\u2069", r"\(U\+2066\) at position 5"),
        ("a\ufefffox", r"\(U\+FEFF\) at position 2"),
        ("a\u2028fox", r"\(U\+2028\) at position 2"),
        ("a\ud800fox", r"\(U\+D800\) at position 2"),
        ("🦊🦊", r"at least one letter or digit"),
        ("1️⃣2️⃣", r"at least one letter or digit"),
        ("#\u20e3 ℹ️", r"at least one letter or digit"),
        ("```", r"at least one letter or digit"),
        ("\u200d\u200d", r"at least one letter or digit"),
    ],
)
def test_a_prompt_without_visible_words_is_refused(prompt: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        image_request(prompt)


@given(st.text(max_size=1100))
def test_every_text_is_taken_or_refused_in_one_line(prompt: str) -> None:
    refusal = ""
    try:
        check_prompt(prompt)
    except InvalidRequest as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert refusal or (prompt.strip() and len(prompt) <= PROMPT_MAX_CHARACTERS)


@pytest.mark.parametrize("seed", [0, 1, SEED_MAX])
def test_every_uint32_is_a_seed(seed: int) -> None:
    assert image_request(seed=seed).seed == seed


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", -1, r"seed must be from 0 to 4,294,967,295; it is -1"),
        ("seed", 2**32, r"seed must be from 0 to 4,294,967,295; it is 4,294,967,296"),
        ("seed", 2**53 + 1, r"it is 9,007,199,254,740,993"),
        ("steps", 0, r"steps must be from 1 to 50; it is 0"),
        ("steps", 51, r"steps must be from 1 to 50; it is 51"),
        ("guidance", math.nan, r"guidance must be from 1\.0 to 10\.0; it is nan"),
        ("guidance", math.inf, r"it is inf"),
        ("guidance", -3.5, r"it is -3\.5"),
        ("guidance", 10.1, r"it is 10\.1"),
        ("width", 112, r"width must be from 128 to 2,048; it is 112"),
        ("height", 2064, r"height must be from 128 to 2,048; it is 2,064"),
        ("width", -128, r"it is -128"),
        ("width", 136, r"width must be a multiple of 16 pixels; it is 136"),
        ("height", 257, r"height must be a multiple of 16 pixels; it is 257"),
    ],
)
def test_a_value_outside_its_limit_is_refused_with_the_limit_and_the_value(name: str, value: float, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        image_request("a fox", **{name: value})


def test_a_request_cannot_be_changed_after_it_was_checked() -> None:
    request = image_request()
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.steps = 99  # type: ignore[misc]
    with pytest.raises(InvalidRequest):
        dataclasses.replace(request, steps=99)


def test_a_refusal_is_a_generation_error_and_safe_to_show() -> None:
    assert issubclass(InvalidRequest, GenerationError)


@pytest.mark.parametrize(
    ("text", "size"),
    [("768x512", (768, 512)), ("768 X 512", (768, 512)), (" 768×512 ", (768, 512)), ("768*512", (768, 512))],
)
def test_a_size_is_read_as_people_write_it(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "768", "768x", "x512", "-768x512", "7.5x512", "large", "1x2x3", "999999x1"])
def test_anything_else_is_not_a_size(text: str) -> None:
    with pytest.raises(InvalidRequest, match="A size is width x height in pixels, like 768x512"):
        parse_size(text)


def test_a_long_wrong_size_is_shown_cut() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_size("9" * 5000)
    assert len(str(refused.value)) < 150


def test_width_comes_before_height() -> None:
    request = BIG.request("a fox", seed=1, size="1024x512")
    assert (request.width, request.height, request.size) == (1024, 512, "1024x512")


def test_what_is_left_out_takes_the_models_own_defaults() -> None:
    assert BIG.request("a fox", seed=1) == ImageRequest(
        prompt="a fox", seed=1, width=1024, height=1024, steps=20, guidance=3.5
    )
    given = BIG.request("a fox", seed=1, size="512x256", steps=1, guidance=1.0)
    assert (given.width, given.height, given.steps, given.guidance) == (512, 256, 1, 1.0)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("128x256", r"big draws a width of 256 to 1536 pixels; it is 128"),
        ("256x2048", r"big draws a height of 256 to 1536 pixels; it is 2048"),
        ("1536x1536", r"big draws at most 1,572,864 pixels; 1536x1536 has 2,359,296"),
    ],
)
def test_a_size_that_this_model_cannot_draw_is_refused(size: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        BIG.request("a fox", seed=1, size=size)


@pytest.mark.parametrize("profile", [BIG, FAKE_PROFILE], ids=lambda profile: profile.name)
def test_every_size_that_a_model_offers_can_be_asked_for(profile: ModelProfile) -> None:
    sizes = profile.sizes()
    assert sizes[0] == f"{profile.width}x{profile.height}"
    assert len(set(sizes)) == len(sizes) > 3
    for size in sizes:
        profile.request("a fox", seed=1, size=size)


def test_sizes_too_large_for_the_model_are_not_offered() -> None:
    roomy = dataclasses.replace(BIG, width=768, height=768)
    tight = dataclasses.replace(roomy, pixels_max=768 * 768)
    assert set(roomy.sizes()) - set(tight.sizes()) == {"880x672", "672x880"}


@given(
    width=st.integers(-10, 3000),
    height=st.integers(-10, 3000),
    steps=st.integers(-5, 60),
    guidance=st.floats(),
    seed=st.integers(),
)
def test_a_request_exists_only_within_every_limit(
    width: int, height: int, steps: int, guidance: float, seed: int
) -> None:
    inside = (
        all(SIDE_MIN <= side <= SIDE_MAX and side % SIDE_MULTIPLE == 0 for side in (width, height))
        and 1 <= steps <= 50
        and 1.0 <= guidance <= 10.0
        and 0 <= seed <= SEED_MAX
    )
    try:
        image_request(width=width, height=height, steps=steps, guidance=guidance, seed=seed)
    except InvalidRequest:
        assert not inside
    else:
        assert inside


@pytest.mark.parametrize(
    "prompt",
    [
        "a \U0001fae9 house",
        "1️⃣ fox",
        "England 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "a 👨‍👩‍👧 family",
    ],
)
def test_visible_emoji_may_stand_in_a_prompt_however_new(prompt: str) -> None:
    check_prompt(prompt)


@pytest.mark.parametrize("hidden", ["\U000e0067\U000e007f", "\u2065", "\ufffe", "\ufdd0", "\U0001ffff"])
def test_what_shows_nothing_is_refused_wherever_it_stands(hidden: str) -> None:
    with pytest.raises(InvalidRequest, match="invisible or control"):
        check_prompt(f"a house{hidden}")


def _loras(count: int) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(name=f"lora {number}", strength=1.0) for number in range(count))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cfg_scale": 0.9}, "cfg_scale must be from 1.0 to 10.0; it is 0.9"),
        ({"cfg_scale": math.nan}, "cfg_scale must be"),
        ({"negative": "a tree"}, "negative prompt works with a cfg_scale above 1; it is 1"),
        ({"negative": "x" * 1001, "cfg_scale": 2.0}, "negative prompt may have 1,000 characters at most; it has 1,001"),
        ({"negative": "a\u202eb", "cfg_scale": 2.0}, r"negative prompt has an invisible .*U\+202E"),
        ({"loras": _loras(6)}, "5 LoRAs at most; there are 6"),
        ({"loras": _loras(1) * 2}, "Each LoRA may be there once; given are lora 0, lora 0"),
        ({"variations": (Variation(seed=1, share=0.1),) * 11}, "10 variations at most; there are 11"),
    ],
)
def test_a_wish_outside_its_limits_is_refused_by_limit_and_value(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        dataclasses.replace(image_request(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "../ink",
        "/etc/passwd",
        "",
        "..",
        "ink/oil",
        "C:\\ink",
        "ink\x00",
        "a" * 81,
        ".ink",
        "水/墨",
        "\u3164",
        "墨\u202e",
        "[a](b)",
        "墨，油",
        "ink ",
    ],
)
def test_a_loras_name_is_never_a_path(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no LoRA named"):
        LoraUse(name=name, strength=1.0)


@pytest.mark.parametrize("name", ["水墨 v2", "Ölfarbe", "墨_1.0-b", "7", "ink_", "a" * 80])
def test_a_lora_may_be_named_in_any_script(name: str) -> None:
    assert LoraUse(name=name, strength=1.0).name == name


@pytest.mark.parametrize("strength", [4.1, -5, math.inf, math.nan])
def test_a_loras_strength_has_limits(strength: float) -> None:
    with pytest.raises(InvalidRequest, match=r"strength of ink must be from -4.0 to 4.0"):
        LoraUse(name="ink", strength=strength)


@pytest.mark.parametrize(("seed", "share"), [(-1, 0.1), (SEED_MAX + 1, 0.1), (1, 0.0), (1, 1.1), (1, math.nan)])
def test_a_variation_has_limits(seed: int, share: float) -> None:
    with pytest.raises(InvalidRequest, match=r"variation's (seed|share) must be from"):
        Variation(seed=seed, share=share)


def test_a_negative_prompt_takes_the_models_scale_unless_one_is_given() -> None:
    plain = image_request()
    assert BIG.avoiding(plain, negative="").cfg_scale == 1.0
    assert BIG.avoiding(plain, negative="a tree").cfg_scale == BIG.cfg_scale
    assert BIG.avoiding(plain, negative="a tree", cfg_scale=4.0).cfg_scale == 4.0


def test_a_model_that_cannot_use_a_negative_prompt_says_so() -> None:
    single = dataclasses.replace(BIG, cfg_scale_max=1.0)
    with pytest.raises(InvalidRequest, match="big can use neither a negative prompt nor a cfg_scale"):
        single.avoiding(image_request(), negative="a tree")
    with pytest.raises(InvalidRequest, match="big can use neither"):
        single.check(image_request(cfg_scale=2.0, width=256, height=256))
    assert single.avoiding(image_request(), negative="") == image_request()


def test_two_prompts_are_two_passes_a_step() -> None:
    assert image_request(steps=7).passes == 7
    assert image_request(steps=7, cfg_scale=1.5).passes == 14
