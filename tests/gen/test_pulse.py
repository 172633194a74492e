"""The GPU thread's heartbeat: a hung one is known within 30 s, a slow card's step or a first compile is not hung."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import pytest

from gen.attempt import Attempt, Event
from gen.errors import GenerationCancelled
from gen.executor import GpuExecutor
from gen.pulse import LOADING_SECONDS, NEW_SECONDS, Pulse
from gen.request import LoraUse, Variation
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


def test_a_drawing_that_was_stopped_teaches_nothing_and_what_was_known_holds(pulse: Pulse, clock: Seconds) -> None:
    draw(pulse, clock, step_seconds=1)
    with suppress(GenerationCancelled), pulse.drawing("512x512"):
        clock.move(20)
        raise GenerationCancelled("stopped")
    with pulse.drawing("512x512"):
        clock.move(26)
        assert pulse.is_hung


def test_a_model_that_hangs_while_it_is_let_go_is_known_in_a_minute(pulse: Pulse, clock: Seconds) -> None:
    with pulse.closing():
        clock.move(61)
        assert pulse.is_hung
    assert not pulse.is_hung


@pytest.mark.parametrize(
    "changed",
    [
        {"negative": "a car"},
        {"cfg_scale": 3.0},
        {"variations": (Variation(seed=2, share=0.5),)},
        {"loras": (LoraUse(name="ink", strength=0.5),)},
        {"guidance": 2.0, "seed": 7, "steps": 9, "prompt": "a boat"},
    ],
)
async def test_what_makes_no_step_longer_makes_no_drawing_a_new_one(clock: Seconds, changed: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"negative": "a tree", "cfg_scale": 2.0, "loras": (LoraUse(name="ink", strength=1),)}
    fake, pulse = FakeGenerator(), Pulse(clock=clock)
    async with GpuExecutor(lambda: fake, pulse=pulse) as executor:
        for request in (usual, usual | changed):
            async with aclosing(executor.run(Attempt(token="one", request=image_request(**request)))) as events:
                assert [event async for event in events]
        assert len(pulse._silences) == 1


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
