"""Cards and words of a job: each state, each limit of Discord's, each trick in a prompt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.cards import alt_text, card, failure_words, picture_words, place_words, progress_bar
from bot.job import Job, JobStatus, Place
from bot.language import say_in
from bot.quoting import quoted
from gen.request import StepReport
from tests.bot.conftest import text_of
from tests.fakes import image_request

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


@pytest.mark.parametrize("status", list(JobStatus))
def test_the_longest_card_fits_into_discords_limits(status: JobStatus) -> None:
    worst = replace(JOB, status=status, request=WORST, notice="_" * 500, reason="`" * 900, seconds=99999.9)
    shown = card(
        EN,
        worst,
        place=Place(position=99999, waiting=99999, ready_at=WHEN),
        report=StepReport(step=50, steps=50, seconds=1.0),
        link="https://discord.com/channels/" + "9" * 60,
    )
    assert len(words(worst)) <= 4000
    assert shown.total_children_count <= 40


def test_the_longest_words_of_a_picture_fit_into_a_message() -> None:
    worst = replace(JOB, request=WORST, notice="_" * 500, seconds=99999.9, user_id=2**63, channel_id=2**63)
    assert len(picture_words(EN, worst, moved=True)) <= 2000
    assert len(failure_words(EN, replace(worst, status=JobStatus.FAILED, reason="`" * 900))) <= 2000


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
