"""What every executor must do, held against the GPU thread and against a process of its own with two slots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from gen.attempt import Attempt, Event, Executor, Painted
from gen.errors import GenerationCancelled, GenerationError, InvalidRequest, OutOfMemory
from gen.executor import GpuExecutor
from gen.request import ImageResult, StepReport
from tests.fakes import FakeGenerator, image_request, picture
from tests.subprocess_executor import DrawingProcess, ProcessDied, SubprocessExecutor

NUMBERS = count(1)


def attempt(prompt: str = "a red house", **changes: object) -> Attempt:
    return Attempt(token=f"attempt {next(NUMBERS)}", request=image_request(prompt, **changes))


@asynccontextmanager
async def on_the_gpu_thread(folder: Path) -> AsyncIterator[Executor]:
    async with GpuExecutor(FakeGenerator) as executor:
        yield executor


@asynccontextmanager
async def in_a_process(folder: Path) -> AsyncIterator[Executor]:
    async with DrawingProcess(folder) as process, SubprocessExecutor(process) as executor:
        yield executor


@pytest.fixture(params=[on_the_gpu_thread, in_a_process])
async def executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Executor]:
    opened: Callable[[Path], object] = request.param
    async with opened(tmp_path) as executor:  # type: ignore[attr-defined]
        yield executor


async def run(executor: Executor, what: Attempt) -> list[Event]:
    """All that an attempt tells of itself."""
    async with aclosing(executor.run(what)) as events:
        return [event async for event in events]


async def begin(executor: Executor, what: Attempt) -> asyncio.Task[list[Event]]:
    """Run it in a task, and return once its first step is told."""
    first = asyncio.Event()

    async def follow() -> list[Event]:
        told = []
        async with aclosing(executor.run(what)) as events:
            async for event in events:
                told.append(event)
                first.set()
        return told

    task = asyncio.create_task(follow())
    await asyncio.wait_for(first.wait(), 20)
    return task


async def test_the_steps_come_in_order_then_painted_once_then_the_picture(executor: Executor) -> None:
    for _ in range(10):
        *steps, painted, image = await run(executor, attempt(steps=20))
        assert [step.step for step in steps if isinstance(step, StepReport)] == list(range(1, 21))
        assert isinstance(painted, Painted)
        assert isinstance(image, ImageResult)
        assert (image.png, image.seconds) == (picture(image_request(steps=20)), painted.seconds)


async def test_as_many_attempts_as_there_are_slots_are_drawn_at_a_time(executor: Executor) -> None:
    drawing = [(what, await begin(executor, what)) for what in (attempt("endless") for _ in range(executor.slots()))]
    for what, task in drawing:
        executor.cancel(what.token)
        with pytest.raises(GenerationCancelled):
            await task


async def test_a_cancelled_attempt_ends_as_cancelled_and_its_slot_is_free(executor: Executor) -> None:
    for _ in range(executor.slots() + 1):
        what = attempt("endless")
        task = await begin(executor, what)
        executor.cancel(what.token)
        with pytest.raises(GenerationCancelled):
            await asyncio.wait_for(task, 20)
    assert isinstance((await run(executor, attempt()))[-1], ImageResult)


async def test_an_unknown_token_cancels_nothing(executor: Executor) -> None:
    what = attempt("endless")
    task = await begin(executor, what)
    executor.cancel("unknown")
    await asyncio.wait({task}, timeout=0.05)
    assert not task.done()
    executor.cancel(what.token)
    with pytest.raises(GenerationCancelled):
        await task


async def test_an_attempt_cancelled_before_its_turn_is_never_drawn(executor: Executor) -> None:
    busy = [attempt("endless") for _ in range(executor.slots())]
    tasks = [await begin(executor, what) for what in busy]
    late = attempt("late")
    waiting = asyncio.create_task(run(executor, late))
    await asyncio.sleep(0)
    executor.cancel(late.token)
    for what in busy:
        executor.cancel(what.token)
    ends = await asyncio.gather(waiting, *tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [GenerationCancelled] * (1 + executor.slots())


async def test_leaving_early_frees_the_slot(executor: Executor) -> None:
    for _ in range(executor.slots() + 1):
        async with aclosing(executor.run(attempt("endless"))) as events:
            async for _event in events:
                break
    assert isinstance((await run(executor, attempt()))[-1], ImageResult)


async def test_cancelling_whoever_waits_frees_the_slot(executor: Executor) -> None:
    for _ in range(executor.slots() + 1):
        task = await begin(executor, attempt("endless"))
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
    assert isinstance((await run(executor, attempt()))[-1], ImageResult)


async def test_what_went_wrong_is_raised_and_the_next_attempt_works(executor: Executor) -> None:
    with pytest.raises(OutOfMemory, match="more memory than the card has"):
        await run(executor, attempt("broken"))
    for word in ("bug", "exit", "stopiteration"):
        with pytest.raises(Exception, match=r".") as raised:
            await run(executor, attempt(word))
        assert not isinstance(raised.value, GenerationError)
    assert isinstance((await run(executor, attempt()))[-1], ImageResult)


async def test_a_stored_request_outside_the_limits_is_refused(executor: Executor) -> None:
    with pytest.raises(InvalidRequest, match="fake draws a width of 128 to 512 pixels; it is 1024"):
        await run(executor, attempt(width=1024))
    old = attempt()
    object.__setattr__(old.request, "steps", 999)
    with pytest.raises(InvalidRequest, match="steps must be from 1 to 50; it is 999"):
        await run(executor, old)


async def test_once_painted_the_slot_takes_the_next_while_the_picture_is_not_fetched(executor: Executor) -> None:
    held = []
    for _ in range(executor.slots()):
        events = executor.run(attempt())
        held.append(events)
        while not isinstance(await anext(events), Painted):
            pass
    assert isinstance((await run(executor, attempt()))[-1], ImageResult)
    for events in held:
        assert isinstance(await anext(events), ImageResult)
        await events.aclose()


async def test_a_fresh_executor_has_nothing_to_adopt(executor: Executor) -> None:
    assert await executor.adopt() == frozenset()


# what only an executor with a life of its own can do


async def test_what_goes_on_in_another_process_is_adopted_with_its_picture_and_not_drawn_again(tmp_path: Path) -> None:
    what = attempt("a house", steps=50)
    async with DrawingProcess(tmp_path) as process:
        async with SubprocessExecutor(process) as first:
            events = first.run(what)
            report = await anext(events)
            await first.abandon()
            with pytest.raises(ProcessDied):
                [event async for event in events]
        async with SubprocessExecutor(process) as second:
            assert await second.adopt() == {what.token}
            told = await run(second, what)
            assert told[0] == report  # the same drawing, with the same time in it
            assert isinstance(told[-1], ImageResult)
            await second.abandon()
        async with SubprocessExecutor(process) as third:
            assert await third.adopt() == frozenset()


async def test_a_process_that_dies_ends_its_attempts_and_the_next_one_starts_another(tmp_path: Path) -> None:
    async with DrawingProcess(tmp_path) as process, SubprocessExecutor(process) as executor:
        task = await begin(executor, attempt("endless"))
        await process.kill()
        with pytest.raises(ProcessDied):
            await task
        assert isinstance((await run(executor, attempt()))[-1], ImageResult)
