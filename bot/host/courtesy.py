"""The owner of the machine comes first: when Kiln must not draw, and why. Decisions alone, from what they are told.

Each rule has two bounds, one to begin and one to end, and a time that each must last: otherwise a card at its bound
would begin and stop with every reading. What a card does not say, or says wrongly, never holds anything up. Knows no
NVML, no queue, no clock: `bot.host.caretaker` looks, asks here, and acts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum

from bot.host.card_reader import Reading
from bot.language import Message, msg

GIB = 2**30
OTHERS_BYTES = GIB  # above what others took at the least; the desktop itself takes a few hundred MiB
OTHERS_PERCENT = 30.0  # of the card's time; a desktop takes ten
PERCENT_MAX, CELSIUS_MAX, WATTS_MAX = 100, 150, 5000  # no card says more and means it
RETRY_SECONDS = 60.0  # after a model did not fit into the card

_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")


class Why(StrEnum):
    """What keeps Kiln from drawing."""

    ASKED = "asked"  # by file, signal or command
    OWNER = "owner"  # another program uses the card
    NO_ROOM = "no_room"  # the model did not fit into the card when it came back
    HOT = "hot"
    POWER = "power"
    QUIET = "quiet"


WORDS = {
    Why.ASKED: msg("Drawing is paused by the operator."),
    Why.OWNER: msg("The owner is using the card; drawing goes on when it is free."),
    Why.NO_ROOM: msg("The card has no room for the model; Kiln tries again every minute."),
    Why.HOT: msg("The card is too hot; drawing goes on when it has cooled down."),
    Why.POWER: msg("The card draws too much power; drawing goes on in a while."),
    Why.QUIET: msg("These are quiet hours; drawing goes on at {time}."),
}
URGENT = frozenset({Why.OWNER, Why.HOT, Why.POWER})  # the picture is stopped after its step; else it is finished
FREES = frozenset({Why.ASKED, Why.OWNER, Why.QUIET})  # the card's memory is given back


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """From one time of day to another, on the machine's clock; they may pass midnight."""

    begin: time
    end: time

    def __contains__(self, moment: datetime) -> bool:
        """Whether a local time is within."""
        now = moment.time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


def parse_hours(text: str) -> QuietHours:
    """Read `22:00-07:00`; ValueError otherwise."""
    found = _HOURS.fullmatch(text.strip())
    if found is None:
        raise ValueError("should be two times of day such as 22:00-07:00")
    hours = [int(number) for number in found.groups()]
    begin, end = time(hours[0], hours[1]), time(hours[2], hours[3])
    if begin == end:
        raise ValueError("should be two different times of day such as 22:00-07:00")
    return QuietHours(begin=begin, end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What the operator asked for; None: no such rule."""

    quiet: QuietHours | None = None
    gives_way: bool = True  # to other programs on the card
    celsius_max: float | None = None
    watts_max: float | None = None
    unload_after: timedelta | None = None  # without a job


@dataclass(slots=True, kw_only=True)
class Trip:
    """A switch with two bounds: on when `high` was kept for `after` seconds, off when `low` was kept for `rest`."""

    high: float
    low: float
    after: float
    rest: float
    is_on: bool = False
    _since: float | None = None

    def see(self, value: float | None, *, now: float) -> bool:
        """Take one value at `now`, seconds that never go back; None: not known, which counts as low."""
        is_low, is_high = value is None or value <= self.low, value is not None and value >= self.high
        if not (is_low if self.is_on else is_high):
            self._since = None
        elif self._since is None:
            self._since = now
        if self._since is not None and now - self._since >= (self.rest if self.is_on else self.after):
            self.is_on, self._since = not self.is_on, None
        return self.is_on


class Judge:
    """Remembers as much of the past as its rules need."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._least_bytes: int | None = None  # that others took of the card
        self._memory = Trip(high=OTHERS_BYTES, low=OTHERS_BYTES / 2, after=0, rest=30)
        self._load = Trip(high=OTHERS_PERCENT, low=OTHERS_PERCENT / 3, after=5, rest=60)
        self._heat = _ceiling(manners.celsius_max, margin=10)
        self._power = _ceiling(manners.watts_max, margin=(manners.watts_max or 0) / 5)
        self._no_room_until = 0.0

    def no_room(self, *, now: float) -> None:
        """The model did not fit."""
        self._no_room_until = now + RETRY_SECONDS

    def look(self, reading: Reading | None, *, asked: bool, local: datetime, now: float) -> Why | None:
        """Why nothing may be drawn; None: nothing is in the way. `now` is seconds that never go back."""
        said = believable(reading)
        rules = {
            Why.ASKED: asked,
            Why.OWNER: self._others(said, now=now),
            Why.NO_ROOM: now < self._no_room_until,
            Why.HOT: self._heat is not None and self._heat.see(said.temperature if said else None, now=now),
            Why.POWER: self._power is not None and self._power.see(said.power if said else None, now=now),
            Why.QUIET: self._manners.quiet is not None and local in self._manners.quiet,
        }
        return next((why for why, holds in rules.items() if holds), None)

    def words(self, why: Why) -> Message:
        """What people are told."""
        quiet = self._manners.quiet
        values = {"time": f"{quiet.end:%H:%M}"} if why is Why.QUIET and quiet is not None else {}
        return Message(WORDS[why], **values)

    def _others(self, said: Reading | None, *, now: float) -> bool:
        """Whether another program wants the card."""
        if not self._manners.gives_way:
            return False
        taken = said.others_memory if said else None
        if taken is not None:
            self._least_bytes = taken if self._least_bytes is None else min(self._least_bytes, taken)
            taken -= self._least_bytes
        wants_memory = self._memory.see(taken, now=now)
        wants_time = self._load.see(said.others_load if said else None, now=now)
        return wants_memory or wants_time


def unheeded(manners: Manners, reading: Reading | None) -> Iterator[str]:
    """What the operator asked for and cannot have, because the card does not say what it would take."""
    said = believable(reading)
    if manners.celsius_max is not None and (said is None or said.temperature is None):
        yield "KILN_TEMPERATURE_MAX holds nothing: the card does not say its temperature"
    if manners.watts_max is not None and (said is None or said.power is None):
        yield "KILN_POWER_MAX holds nothing: the card does not say its power"
    if manners.gives_way and said is not None and said.others_memory is None and said.others_load is None:
        yield "KILN_GIVE_WAY holds nothing: the driver does not list Kiln among the card's programs (docs/service.md)"


def believable(reading: Reading | None) -> Reading | None:
    """The reading without what no card can mean."""
    if reading is None:
        return None
    total = reading.memory_total if _within(reading.memory_total, 2**50) else None
    return replace(
        reading,
        temperature=reading.temperature if _within(reading.temperature, CELSIUS_MAX) else None,
        memory_used=reading.memory_used if _within(reading.memory_used, total or 2**50) else None,
        memory_total=total,
        load=reading.load if _within(reading.load, PERCENT_MAX) else None,
        power=reading.power if _within(reading.power, WATTS_MAX) else None,
        others_memory=reading.others_memory if _within(reading.others_memory, total or 2**50) else None,
        others_load=reading.others_load if _within(reading.others_load, PERCENT_MAX) else None,
    )


def _within(value: float | None, most: float) -> bool:
    return value is not None and 0 <= value <= most


def _ceiling(most: float | None, *, margin: float) -> Trip | None:
    return None if most is None else Trip(high=most, low=most - margin, after=5, rest=30)
