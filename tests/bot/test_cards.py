"""Cards and words of a job: each state, each limit of Discord's, each trick in a prompt."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.cards.batch_card import Shown, batch_card
from bot.cards.captions import Origin, alt_text, picture_words
from bot.cards.comparing import compare
from bot.cards.job_card import card, failure_words, place_words, progress_bar
from bot.language import say_in
from bot.queue.job import Job, JobStatus, Place, Verb
from bot.quoting import quoted
from gen.request import ImageRequest, LoraUse, StepReport, Variation
from tests.bot.conftest import text_of
from tests.fakes import image_request, picture

EN, ZH = say_in("en"), say_in("zh")
WHEN = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
JOB = Job(
    id=17,
    status=JobStatus.QUEUED,
    interaction_id=1,
    user_id=2,
    guild_id=3,
    channel_id=4,
    card_message_id=5,
    request=image_request("a red house", seed=42),
    attempts=0,
    attempt_token=None,
    created_at=WHEN,
    started_at=None,
    finished_at=None,
    reason=None,
    picture=None,
    result_message_id=None,
    seconds=None,
    notice=None,
)
WORST = image_request("*" * 998 + "ab", seed=2**32 - 1, width=2048, height=2048, steps=50)


def words(job: Job, **beside: Any) -> str:
    return text_of(_Sent(card(EN, job, **beside).to_components()))  # type: ignore[no-untyped-call]


class _Sent:
    """A message as far as `text_of` reads it."""

    content = ""

    def __init__(self, components: list[dict[str, Any]]) -> None:
        self.components = components


def test_a_waiting_card_says_place_time_and_settings() -> None:
    shown = words(JOB, place=Place(position=3, waiting=7, ready_at=WHEN))
    assert f"place 3 of 7, ready <t:{int(WHEN.timestamp())}:R>" in shown
    assert "seed `42` · 128x128 · 4 steps · guidance 3.5 · job 17" in shown


@pytest.mark.parametrize(
    ("status", "beside", "word"),
    [
        (JobStatus.QUEUED, {}, "Waiting"),
        (JobStatus.RUNNING, {}, "Drawing now"),
        (JobStatus.RUNNING, {"report": StepReport(step=3, steps=6, seconds=1.0)}, "▰▰▰▰▰▱▱▱▱▱ step 3 of 6"),
        (JobStatus.DRAWN, {}, "on its way"),
        (JobStatus.DELIVERED, {"link": "https://discord.com/channels/3/4/6"}, "[the picture](https://discord.com/"),
        (JobStatus.CANCELLED, {}, "Cancelled"),
        (JobStatus.FAILED, {}, "Not drawn"),
        (JobStatus.QUARANTINED, {}, "Set aside"),
    ],
)
def test_each_state_has_its_words(status: JobStatus, beside: dict[str, Any], word: str) -> None:
    assert word in words(replace(JOB, status=status), **beside)


def test_a_failure_says_what_happened() -> None:
    failed = replace(JOB, status=JobStatus.FAILED, reason="The picture needs more memory.")
    assert "The picture needs more memory." in words(failed)
    assert "The picture needs more memory." in failure_words(EN, failed)


def test_a_reason_links_its_channel_and_nothing_else_of_it_is_live() -> None:
    kept = replace(JOB, status=JobStatus.FAILED, reason="I may not post in <#123>. <@5> <#x> [a](b)")
    assert "I may not post in <#123>. \\<@\u200b5\\> \\<\\#x\\> \\[a\\](b)" in words(kept)


PREVIEWED = StepReport(step=50, steps=50, seconds=1.0, preview=b"a picture")
LOOSE = st.text("ab*_`@<>[]|~#\\\u202e🦊:/", min_size=1, max_size=40)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Jobs that ask for as much as may be asked, in the characters that grow when they are escaped."""

    def words(most: int) -> str:
        text = draw(LOOSE)
        return (text * (most // len(text) + 1))[:most]

    request = object.__new__(ImageRequest)  # also what could not be asked for today
    values = {
        "prompt": words(1000),
        "negative": words(1000),
        "cfg_scale": 9.99,
        "seed": 2**32 - 1,
        "width": 2048,
        "height": 2048,
        "steps": 50,
        "guidance": 9.87654,
        "loras": tuple(LoraUse(name=f"{n}" + "_" * 79, strength=-3.99999) for n in range(draw(st.integers(0, 5)))),
        "variations": (Variation(seed=2**32 - 1, share=0.4),) * draw(st.integers(0, 10)),
    }
    for name, value in values.items():
        object.__setattr__(request, name, value)
    return replace(
        JOB,
        id=10**15 - 1,
        user_id=2**63,
        channel_id=2**63,
        status=draw(st.sampled_from(JobStatus)),
        request=request,
        notice=draw(st.sampled_from([None, words(500)])),
        reason=draw(st.sampled_from([None, words(900)])),
        seconds=99999.9,
        parent_id=10**15,
        verb=draw(st.sampled_from(Verb)),
        style=words(100),
        model=words(200),
    )


@given(jobs(), st.sampled_from([None, PREVIEWED]), st.sampled_from(["en", "zh-CN"]))
def test_the_longest_card_and_picture_fit_into_discords_limits(
    worst: Job, report: StepReport | None, locale: str
) -> None:
    say, link = say_in(locale), "https://discord.com/channels/" + "9" * 60
    parent = replace(JOB, id=10**15, result_message_id=2**63)
    place = Place(position=99999, waiting=99999, ready_at=WHEN, uncertainty=timedelta(hours=9))
    shown = card(say, worst, place=place, report=report, link=link, parent=parent)
    assert shown.content_length() <= 4000
    assert shown.total_children_count <= 40
    origin = Origin(parent=parent, compared="not identical: " + "9" * 200)
    content = picture_words(say, worst, moved=True, origin=origin)
    assert len(content) <= 2000
    assert f"`{2**32 - 1}`" in content
    assert len(failure_words(say, worst)) <= 2000
    assert len(alt_text(say, worst)) <= 1024


@given(st.lists(jobs(), min_size=2, max_size=4), st.sampled_from(["en", "zh-CN"]))
def test_the_longest_card_of_several_jobs_fits_into_discords_limits(batch: list[Job], locale: str) -> None:
    link = "https://discord.com/channels/" + "9" * 60
    place = Place(position=99999, waiting=99999, ready_at=WHEN, uncertainty=timedelta(hours=9))
    shown = batch_card(say_in(locale), [Shown(job=one, place=place, report=PREVIEWED, link=link) for one in batch])
    assert shown.content_length() <= 4000
    assert shown.total_children_count <= 40


def test_nothing_that_went_into_a_picture_is_hidden() -> None:
    request = image_request(
        negative="a *tree*",
        cfg_scale=2.5,
        loras=(LoraUse(name="ink_wash", strength=-0.8),),
        variations=(Variation(seed=7, share=0.1),),
    )
    job = replace(JOB, request=request, style="Ink", model="majicflus", seconds=2.0)
    for shown in (words(job), picture_words(EN, job)):
        assert "LoRA: ink\\_wash:-0.8" in shown
        assert "away from: a \\*tree\\* (cfg_scale 2.5)" in shown
        assert "mixed with the noise of seed `7` 10%" in shown
        assert "style: Ink" in shown
    assert "majicflus · 2.0 s" in picture_words(EN, job)


@pytest.mark.parametrize("verb", list(Verb))
def test_a_child_names_its_parent_with_a_link_as_long_as_there_is_one(verb: Verb) -> None:
    child = replace(JOB, parent_id=16, verb=verb)
    parent = replace(JOB, id=16, result_message_id=9, result_channel_id=4)
    assert "[job 16](https://discord.com/channels/3/4/9)" in words(child, parent=parent)
    assert "[job 16](https://discord.com/channels/@me/8/9)" in words(child, parent=replace(parent, result_channel_id=8))
    for gone in (None, replace(parent, deleted_at=WHEN), replace(parent, private=True)):
        assert "[job 16]" not in words(child, parent=gone)
        assert "job 16" in words(child, parent=gone)


def test_the_alt_text_has_prompt_seed_and_settings_within_its_limit() -> None:
    assert alt_text(EN, JOB) == ("AI-generated picture: a red house (seed 42, 128x128, 4 steps, guidance 3.5)")
    assert len(alt_text(EN, replace(JOB, request=WORST))) <= 1024


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("a `b` c", r"a \`b\` c"),
        ("**b** _c_ ~~d~~ ||e||", r"\*\*b\*\* \_c\_ \~\~d\~\~ \|\|e\|\|"),
        ("@everyone", "@\u200beveryone"),
        ("<@123>", "\\<@\u200b123\\>"),
        ("<@&123>", "\\<@\u200b&123\\>"),
        ("<#123>", r"\<\#123\>"),
        ("https://example.com", r"https:\//example.com"),
        ("discord.gg/abc", r"discord.gg\/abc"),
        ("[a](b)", r"\[a\](b)"),
        ("a\u202eb\u200bc\nd", "a b c d"),
        ("half \\", "half \\\\"),
    ],
)
def test_a_quoted_prompt_is_inert(typed: str, shown: str) -> None:
    assert quoted(typed, characters=100) == shown


@given(st.text(max_size=200))
def test_no_text_keeps_live_markup(typed: str) -> None:
    shown = quoted(typed, characters=300).replace("\\\\", "")
    for mark in "`*_~|<>[]#":
        assert shown.count(mark) == shown.count("\\" + mark)
    assert "@everyone" not in shown
    assert "://" not in shown
    assert "\n" not in shown


def test_a_bar_is_empty_full_and_never_longer() -> None:
    for step in range(1, 51):
        assert len(progress_bar(StepReport(step=step, steps=50, seconds=0.0))) == 10
    assert progress_bar(StepReport(step=50, steps=50, seconds=0.0)) == "▰" * 10


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, ""),
        (4.9, ""),
        (5, ", give or take 5 s"),
        (44, ", give or take 45 s"),
        (58, ", give or take 1 min"),
        (200, ", give or take 3 min"),
    ],
)
def test_a_time_says_how_sure_it_is(seconds: float, words: str) -> None:
    ready_at = datetime(2026, 1, 1, tzinfo=UTC)
    place = Place(position=2, waiting=3, ready_at=ready_at, uncertainty=timedelta(seconds=seconds))
    assert place_words(EN, place) == f"place 2 of 3, ready <t:{ready_at.timestamp():.0f}:R>{words}"


@pytest.mark.parametrize(
    "damage",
    [
        lambda png: b"",
        lambda png: png[:-40],
        lambda png: png[: png.rindex(b"IDAT")] + b"\0" + png[png.rindex(b"IDAT") + 1 :],
        lambda png: b"no picture at all",
    ],
)
def test_a_picture_is_compared_with_nothing_if_the_first_one_is_damaged(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = io.BytesIO()
    Image.frombytes("RGB", (256, 256), random.Random(1).randbytes(3 * 256 * 256)).save(file, "PNG")  # several chunks
    kept, png = tmp_path / "1.png", file.getvalue()
    told = "the first picture's file is missing or damaged, so there is nothing to compare with"
    assert compare(EN, kept, png) == told
    kept.write_bytes(damage(png))
    assert compare(EN, kept, png) == told


def test_pictures_of_other_sizes_and_origins_are_compared_too(tmp_path: Path) -> None:
    kept = tmp_path / "1.png"
    kept.write_bytes(picture(image_request(width=256, height=128)))
    assert compare(EN, kept, picture(image_request(width=128, height=256))) == "not the same size: 256x128 and 128x256"
    kept.write_bytes(picture(image_request(seed=1)))
    words = "not identical: 100.0% of the pixels differ, by 0.33 of 255 on average, 1 at most"
    assert compare(EN, kept, picture(image_request(seed=2))) == words
