"""The GPU thread's heartbeat: a hung one is known within 30 s, a slow card's step or a first compile is not hung."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from gen.attempt import Attempt, Event
from gen.executor import GpuExecutor
from gen.pulse import LOADING_SECONDS, NEW_SECONDS, Pulse
from tests.bot.conftest import eventually
from tests.fakes import FakeGenerator, image_request


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def pulse(clock: Seconds) -> Pulse:
    return Pulse(clock=clock)


def draw(pulse: Pulse, clock: Seconds, *, step_seconds: float, kind: str = "512x512") -> None:
    """One picture of four steps that goes well."""
    with pulse.drawing(kind):
        for _ in range(4):
            clock.move(step_seconds)
            pulse.sign()


def test_a_thread_that_hangs_in_a_picture_like_the_last_one_is_known_within_30_s(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=3)
    with pulse.drawing("512x512"):
        pulse.sign()
        clock.move(24)
        assert not pulse.is_hung
        clock.move(5)
        assert pulse.is_hung
        assert pulse.silent_seconds == 29


def test_a_step_of_a_slow_card_is_not_hung_and_three_times_as_long_is(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=60)
    with pulse.drawing("512x512"):
        clock.move(170)
        assert not pulse.is_hung
        clock.move(11)
        assert pulse.is_hung


def test_a_kind_that_was_not_drawn_yet_may_compile_and_after_it_the_patience_is_short_again(
    pulse: Pulse, clock: Seconds
) -> None:
    for silence in (200, 3):
        with pulse.drawing("512x512"):
            clock.move(silence)
            assert not pulse.is_hung
            pulse.sign()
    with pulse.drawing("512x512"):
        clock.move(26)
        assert pulse.is_hung
    with pulse.drawing("768x512"):
        clock.move(NEW_SECONDS - 1)
        assert not pulse.is_hung


def test_a_drawing_that_begins_anew_in_another_way_may_compile_again(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=1)
    with pulse.drawing("512x512"):
        pulse.sign(anew=True)
        clock.move(NEW_SECONDS - 1)
        assert not pulse.is_hung


def test_a_model_that_was_loaded_again_is_new(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=1)
    with pulse.loading():
        clock.move(LOADING_SECONDS - 1)
        assert not pulse.is_hung
    with pulse.drawing("512x512"):
        clock.move(100)
        assert not pulse.is_hung


def test_an_idle_thread_is_never_hung_and_busy_seconds_never_fall(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=1)
    clock.move(10_000)
    assert (pulse.is_hung, pulse.silent_seconds, pulse.busy_seconds) == (False, 0.0, 4.0)
    with pulse.drawing("512x512"):
        clock.move(2)
        assert pulse.busy_seconds == 6.0


def test_what_is_remembered_of_kinds_has_an_end(pulse: Pulse, clock: Seconds) -> None:
    for number in range(600):
        draw(pulse, clock, step_seconds=0, kind=str(number))
    assert len(pulse._silences) <= 500


async def test_the_executor_gives_a_sign_at_each_step_and_a_stuck_generator_none(clock: Seconds) -> None:
    fake, pulse = FakeGenerator(), Pulse(clock=clock)
    async with GpuExecutor(lambda: fake, pulse=pulse) as executor:
        for prompt in ("one", "two"):
            await _drawn(executor, prompt)
        seen: list[Event] = []
        stuck = asyncio.create_task(_drawn(executor, "stuck", seen=seen))
        await eventually(lambda: seen)  # the first step; the fake holds behind it
        clock.move(26)
        assert pulse.is_hung
        fake.release.set()
        await stuck
        assert not pulse.is_hung


async def test_a_model_can_be_let_go_and_comes_back_with_the_same_profile() -> None:
    made: list[FakeGenerator] = []

    def load() -> FakeGenerator:
        made.append(FakeGenerator())
        return made[-1]

    async with GpuExecutor(load) as executor:
        await executor.unload()
        assert (executor.is_loaded, made[0].closed, executor.profile.name) == (False, True, "fake")
        await executor.load()
        await executor.load()
        await _drawn(executor, "a house")
    assert [len(fake.drawn) for fake in made] == [0, 1]


async def _drawn(executor: GpuExecutor, prompt: str, *, seen: list[Event] | None = None) -> None:
    async with aclosing(executor.run(Attempt(token=prompt, request=image_request(prompt)))) as events:
        async for event in events:
            if seen is not None:
                seen.append(event)
