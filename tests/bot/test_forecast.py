"""The order run forward, its times with their uncertainty, and why somebody is fourth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bot.forecast import Share, Waiting, turns, why
from bot.job import Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERYONE = Share(id=1, parent_id=None, weight=1.0, vtime=0, virtual_time=0, ticket=0)


def share(account: int, *, vtime: float = 0.0, weight: float = 1.0) -> Share:
    return Share(id=account, parent_id=1, weight=weight, vtime=int(vtime * 1e6), virtual_time=0, ticket=account)


def job(number: int, account: int, *, seconds: float = 10.0, not_before: float | None = None) -> Waiting:
    return Waiting(
        job_id=number, account_id=account, user_id=account, seconds=seconds, deviation=3.0, not_before=not_before
    )


def test_who_had_less_goes_before_an_older_job_and_people_take_turns() -> None:
    jobs = [job(1, 2), job(2, 2), job(3, 2), job(4, 3), job(5, 3)]
    found = list(turns([EVERYONE, share(2, vtime=5), share(3)], jobs, free_in=4.0, deviation=0.0))
    assert [turn.job.job_id for turn in found] == [4, 1, 5, 2, 3]
    assert [turn.ends for turn in found] == [14.0, 24.0, 34.0, 44.0, 54.0]
    assert [(turn.mine, turn.people) for turn in found] == [(0, 0), (0, 1), (1, 1), (1, 1), (2, 1)]


def test_the_uncertainty_grows_with_what_comes_before() -> None:
    found = list(turns([EVERYONE, share(2)], [job(1, 2), job(2, 2)], free_in=0.0, deviation=4.0))
    assert [turn.deviation for turn in found] == [5.0, pytest.approx(34**0.5)]


def test_a_deferred_job_waits_for_its_time_or_for_an_idle_card() -> None:
    jobs = [job(1, 2, not_before=15.0), job(2, 2, not_before=500.0), job(3, 3), job(4, 3), job(5, 3)]
    found = list(turns([EVERYONE, share(2), share(3)], jobs, free_in=0.0, deviation=0.0))
    assert [turn.job.job_id for turn in found] == [3, 4, 1, 5, 2]


@pytest.mark.parametrize(
    ("position", "mine", "people", "words"),
    [
        (0, 0, 0, "It is being drawn now."),
        (1, 0, 0, "You are next."),
        (2, 1, 0, "Place 2, because 1 of your own pictures is before it."),
        (3, 2, 0, "Place 3, because 2 of your own pictures are before it."),
        (
            2,
            0,
            1,
            "Place 2, because 1 picture of 1 other person comes first, who asked earlier or had less of the GPU.",
        ),
        (
            4,
            1,
            2,
            "Place 4, because 1 of your own pictures is before it and 2 pictures of 2 other people come first, "
            "who asked earlier or had less of the GPU.",
        ),
    ],
)
def test_why_am_i_fourth(position: int, mine: int, people: int, words: str) -> None:
    assert why(Place(position=position, waiting=9, ready_at=NOW, mine=mine, people=people)) == words


def test_why_a_deferred_job_waits() -> None:
    place = Place(position=1, waiting=1, ready_at=NOW, deferred_until=NOW + timedelta(seconds=0.5))
    assert why(place) == (
        "You are next. You asked faster than your rate, so it lets others go first until <t:1767225601:R>."
    )
