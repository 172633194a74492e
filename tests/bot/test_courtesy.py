"""When Kiln must not draw: rules with two bounds, a clock that is moved by hand, a card that says what it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from bot.host.card_reader import Reading
from bot.host.courtesy import GIB, Judge, Manners, Trip, Why, believable, parse_hours

NOON = datetime(2026, 1, 5, 12, 0)  # noqa: DTZ001 - a time of day on the machine's clock
CALM = Reading(
    name="card",
    temperature=50,
    memory_used=9 * GIB,
    memory_total=16 * GIB,
    load=99,
    power=100.0,
    others_memory=GIB // 2,
    others_load=3,
)


class Bench:
    """A judge and its clock: `look` after so many seconds, at a card that says something else than the calm one."""

    def __init__(self, **manners: object) -> None:
        self.judge = Judge(Manners(**manners))  # type: ignore[arg-type]
        self.now = 1000.0

    def look(self, *, after: float = 0, local: datetime = NOON, asked: bool = False, **said: object) -> Why | None:
        self.now += after
        return self.judge.look(replace(CALM, **said), asked=asked, local=local, now=self.now)  # type: ignore[arg-type]

    def blind(self, *, after: float) -> Why | None:
        """The card says nothing."""
        self.now += after
        return self.judge.look(None, asked=False, local=NOON, now=self.now)


def test_a_calm_card_is_no_reason() -> None:
    assert Bench(celsius_max=80, watts_max=200).look() is None


def test_a_game_that_takes_memory_has_the_card_at_once_and_until_it_has_left_for_half_a_minute() -> None:
    bench = Bench()
    assert bench.look() is None
    assert bench.look(after=2, others_memory=4 * GIB) is Why.OWNER
    assert bench.look(after=100, others_memory=GIB // 2 + GIB // 4) is Why.OWNER
    assert bench.look(after=29, others_memory=GIB // 2) is Why.OWNER
    assert bench.look(after=2, others_memory=GIB // 2) is None


def test_what_others_hold_all_the_time_is_no_reason() -> None:
    bench = Bench()
    assert bench.look(others_memory=3 * GIB) is None
    assert bench.look(after=100, others_memory=3 * GIB) is None


def test_a_game_that_ran_at_the_start_and_comes_again_is_a_reason_then() -> None:
    bench = Bench()
    assert bench.look(others_memory=5 * GIB) is None
    assert bench.look(after=100, others_memory=GIB) is None
    assert bench.look(after=100, others_memory=5 * GIB) is Why.OWNER


def test_load_of_another_program_counts_when_it_lasts_and_a_moment_does_not() -> None:
    bench = Bench()
    assert bench.look(others_load=95) is None
    assert bench.look(after=2, others_load=3) is None
    assert bench.look(after=2, others_load=95) is None
    assert bench.look(after=5, others_load=95) is Why.OWNER
    assert bench.look(after=30, others_load=20) is Why.OWNER
    assert bench.look(after=30, others_load=5) is Why.OWNER
    assert bench.look(after=61, others_load=5) is None


def test_who_does_not_give_way_does_not() -> None:
    bench = Bench(gives_way=False)
    bench.look()
    assert bench.look(after=60, others_memory=9 * GIB, others_load=99) is None


def test_heat_holds_until_the_card_is_ten_degrees_cooler_for_half_a_minute() -> None:
    bench = Bench(celsius_max=80)
    assert bench.look(temperature=81) is None
    assert bench.look(after=6, temperature=81) is Why.HOT
    assert bench.look(after=60, temperature=71) is Why.HOT
    assert bench.look(after=1, temperature=70) is Why.HOT
    assert bench.look(after=29, temperature=71) is Why.HOT
    assert bench.look(after=1, temperature=60) is Why.HOT
    assert bench.look(after=31, temperature=60) is None


def test_power_holds_until_it_is_a_fifth_lower() -> None:
    bench = Bench(watts_max=300)
    bench.look(power=310.0)
    assert bench.look(after=6, power=310.0) is Why.POWER
    assert bench.look(after=60, power=250.0) is Why.POWER
    bench.look(after=1, power=230.0)
    assert bench.look(after=31, power=230.0) is None


@pytest.mark.parametrize(
    ("hours", "time", "quiet"),
    [
        ("22:00-07:00", "22:00", True),
        ("22:00-07:00", "03:00", True),
        ("22:00-07:00", "07:00", False),
        ("22:00-07:00", "12:00", False),
        ("9:30-17:00", "09:30", True),
        ("09:30 - 17:00", "17:00", False),
    ],
)
def test_quiet_hours_may_pass_midnight_and_end_on_the_minute(hours: str, time: str, quiet: bool) -> None:
    bench = Bench(quiet=parse_hours(hours))
    local = datetime.fromisoformat(f"2026-01-05T{time}")
    assert (bench.look(local=local) is Why.QUIET) == quiet


def test_quiet_hours_say_when_they_end() -> None:
    judge = Judge(Manners(quiet=parse_hours("22:00-07:00")))
    assert str(judge.words(Why.QUIET)) == "These are quiet hours; drawing goes on at 07:00."


@pytest.mark.parametrize("text", ["", "22-7", "25:00-07:00", "22:60-07:00", "22:00", "22:00-22:00", "22:00-07:00 UTC"])
def test_other_quiet_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="times of day such as 22:00-07:00"):
        parse_hours(text)


def test_a_pause_that_was_asked_for_comes_before_every_other_reason() -> None:
    bench = Bench(quiet=parse_hours("00:00-23:59"))
    assert bench.look(asked=True) is Why.ASKED
    assert bench.look() is Why.QUIET


def test_no_room_for_the_model_holds_for_a_minute() -> None:
    bench = Bench()
    bench.judge.no_room(now=bench.now)
    assert bench.look(after=59) is Why.NO_ROOM
    assert bench.look(after=2) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"temperature": -5},
        {"temperature": 255},
        {"power": -1.0},
        {"power": 1e9},
        {"power": float("nan")},
        {"others_memory": -GIB},
        {"others_memory": 2**63},
        {"others_load": 4_000_000_000},
    ],
)
def test_what_no_card_can_mean_is_not_believed_and_holds_nothing(lie: dict[str, Any]) -> None:
    bench = Bench(celsius_max=80, watts_max=200)
    bench.look()
    assert [bench.look(after=10, **lie) for _ in range(5)] == [None] * 5
    said = believable(replace(CALM, **lie))
    assert said is not None
    assert getattr(said, next(iter(lie))) is None


def test_a_card_that_stops_speaking_lets_the_queue_go_on() -> None:
    bench = Bench(celsius_max=80)
    bench.look(temperature=90)
    assert bench.look(after=6, temperature=90, others_memory=9 * GIB) is not None
    bench.blind(after=1)
    assert bench.blind(after=61) is None


def test_a_value_between_the_bounds_changes_nothing() -> None:
    trip = Trip(high=10, low=5, after=0, rest=0)
    assert [trip.see(value, now=0) for value in (7, 10, 7, 6, 5, 7)] == [False, True, True, True, False, False]


def test_an_unload_time_is_no_reason_to_hold() -> None:
    assert Bench(unload_after=timedelta(minutes=1)).look(after=600) is None
