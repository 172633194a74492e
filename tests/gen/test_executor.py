"""The GPU thread with a real blocking generator, on a real event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import aclosing
from itertools import count

import pytest

import gen.executor
from gen.attempt import Attempt, Painted
from gen.errors import GenerationCancelled, InvalidRequest, OutOfMemory, WeightsMissing
from gen.executor import Generator, GpuExecutor, Unfinished
from gen.request import ImageRequest, ImageResult, StepReport
from tests.fakes import FAKE_PROFILE, FakeGenerator, image_request, picture

NUMBERS = count(1)
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


def ignore(report: StepReport) -> None:
    """For tests that do not look at progress."""


async def drawn(
    executor: GpuExecutor, request: ImageRequest, *, on_step: Callable[[StepReport], None] = ignore
) -> ImageResult:
    """Run one attempt to its picture."""
    async with aclosing(executor.run(Attempt(token=f"attempt {next(NUMBERS)}", request=request))) as events:
        async for event in events:
            match event:
                case StepReport():
                    on_step(event)
                case ImageResult():
                    return event
    raise AssertionError("it ended without a picture")


class Steps:
    """Step reports as they arrive; `first` is set by the first."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.threads: set[str] = set()
        self.first = asyncio.Event()

    def __call__(self, report: StepReport) -> None:
        self.reports.append(report)
        self.threads.add(threading.current_thread().name)
        self.first.set()


async def test_a_picture_is_drawn_on_the_gpu_thread_and_reported_on_the_event_loop() -> None:
    fake, steps = FakeGenerator(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        assert executor.profile == FAKE_PROFILE
        result = await drawn(executor, image_request(), on_step=steps)
    assert result.png == picture(image_request())
    assert [report.step for report in steps.reports] == [1, 2, 3, 4]
    assert steps.threads == {threading.current_thread().name}
    assert fake.closed
    assert not executor.abandoned


async def test_everything_a_generator_does_happens_on_one_thread_named_gpu() -> None:
    made: list[FakeGenerator] = []

    def load() -> FakeGenerator:
        made.append(FakeGenerator())
        return made[0]

    async with GpuExecutor(load) as executor:
        await asyncio.gather(*(drawn(executor, image_request()) for _ in range(3)))
    assert len(made[0].threads) == 5
    assert set(made[0].threads) == {"gpu_0"}


async def test_all_steps_are_reported_before_the_picture_is_returned() -> None:
    steps = Steps()
    async with GpuExecutor(FakeGenerator) as executor:
        for _ in range(20):
            steps.reports.clear()
            await drawn(executor, image_request(steps=50), on_step=steps)
            assert [report.step for report in steps.reports] == list(range(1, 51))


async def test_cancelling_stops_within_one_step_and_waits_until_the_gpu_is_free() -> None:
    fake, steps = FakeGenerator(seconds_per_step=0.05), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request("endless"), on_step=steps))
        await steps.first.wait()
        drawing.cancel()
        seen = len(steps.reports)
        await asyncio.wait({drawing})
        assert drawing.cancelled()
        assert len(steps.reports) == seen  # nothing is reported after the cancellation
        free = asyncio.get_running_loop().run_in_executor(executor._thread, threading.get_ident)
        await asyncio.wait_for(free, timeout=0.04)  # less than a step: the thread was free already
        await drawn(executor, image_request())


async def test_the_awaiter_waits_for_a_step_that_takes_long_even_when_cancelled_again() -> None:
    fake, steps = FakeGenerator(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request("stuck"), on_step=steps))
        await steps.first.wait()
        for _ in range(3):
            drawing.cancel()
            done, _ = await asyncio.wait({drawing}, timeout=0.02)
            assert not done
        fake.release.set()
        await asyncio.wait({drawing})
        assert drawing.cancelled()
        assert fake.drawn == []


async def test_a_drawing_cancelled_before_its_turn_never_begins() -> None:
    fake, steps = FakeGenerator(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        first = asyncio.create_task(drawn(executor, image_request("stuck"), on_step=steps))
        await steps.first.wait()
        second = asyncio.create_task(drawn(executor, image_request("second")))
        await asyncio.sleep(0)
        second.cancel()
        fake.release.set()
        await asyncio.wait({first, second})
        assert second.cancelled()
        assert [request.prompt for request in fake.begun] == ["stuck"]


async def test_a_step_that_was_under_way_when_the_drawing_was_cancelled_is_not_reported() -> None:
    sent = threading.Event()

    class TwoSteps(FakeGenerator):
        def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
            on_step(StepReport(step=1, steps=2, seconds=0.0))
            self.release.wait()
            on_step(StepReport(step=2, steps=2, seconds=0.0))
            sent.set()
            return super().draw(request, on_step=on_step)

    fake, steps = TwoSteps(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request(), on_step=steps))
        await steps.first.wait()
        drawing.cancel()
        fake.release.set()
        sent.wait()  # holds the event loop, so that the second report arrives behind the cancellation
        await asyncio.wait({drawing})
    assert drawing.cancelled()
    assert [report.step for report in steps.reports] == [1]


async def test_a_picture_finished_just_as_it_was_cancelled_is_dropped_without_a_complaint() -> None:
    class Deaf(FakeGenerator):
        def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
            on_step(StepReport(step=1, steps=1, seconds=0.0))
            self.release.wait()
            return super().draw(request, on_step=lambda report: None)

    fake, steps = Deaf(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request(), on_step=steps))
        await steps.first.wait()
        drawing.cancel()
        fake.release.set()
        await asyncio.wait({drawing})
        assert drawing.cancelled()
        assert len(fake.drawn) == 1


async def test_a_broken_drawing_raises_and_the_next_one_works() -> None:
    async with GpuExecutor(FakeGenerator) as executor:
        with pytest.raises(OutOfMemory):
            await drawn(executor, image_request("broken"))
        with pytest.raises(KeyError):
            await drawn(executor, image_request("bug"))
        await drawn(executor, image_request())


@pytest.mark.parametrize(("word", "kind"), [("exit", "SystemExit"), ("stopiteration", "StopIteration")])
async def test_an_exception_that_would_break_the_event_loop_becomes_an_ordinary_one(word: str, kind: str) -> None:
    async with GpuExecutor(FakeGenerator) as executor:
        with pytest.raises(RuntimeError, match=f"the generator raised {kind}"):
            await drawn(executor, image_request(word))
        await drawn(executor, image_request())


async def test_a_stored_request_outside_the_limits_is_refused_before_the_model_sees_it() -> None:
    fake = FakeGenerator()
    old = image_request()
    object.__setattr__(old, "steps", 999)
    async with GpuExecutor(lambda: fake) as executor:
        with pytest.raises(InvalidRequest, match="steps must be from 1 to 50; it is 999"):
            await drawn(executor, old)
        with pytest.raises(InvalidRequest, match="fake draws a width of 128 to 512 pixels; it is 1024"):
            await drawn(executor, image_request(width=1024))
    assert fake.begun == []


async def test_a_model_that_cannot_be_loaded_says_why_and_leaves_no_thread() -> None:
    def load() -> Generator:
        raise WeightsMissing("model.safetensors is missing")

    executor = GpuExecutor(load)
    with pytest.raises(WeightsMissing, match=r"model\.safetensors is missing"):
        async with executor:
            raise AssertionError
    with pytest.raises(RuntimeError):
        executor._thread.submit(threading.get_ident)


async def test_a_start_that_is_cancelled_while_loading_closes_the_model_that_still_arrives() -> None:
    loading, arrive, closed = threading.Event(), threading.Event(), threading.Event()

    class Late(FakeGenerator):
        def close(self) -> None:
            super().close()
            closed.set()

    def load() -> Generator:
        loading.set()
        arrive.wait()
        return Late()

    start = asyncio.create_task(GpuExecutor(load).__aenter__())
    await asyncio.to_thread(loading.wait)
    start.cancel()
    await asyncio.wait({start})
    assert start.cancelled()
    arrive.set()
    assert await asyncio.to_thread(closed.wait, 10)


async def test_a_generator_that_never_stops_is_given_up_at_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gen.executor, "CLOSE_SECONDS", 0.05)
    fake, steps = FakeGenerator(), Steps()
    async with GpuExecutor(lambda: fake) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request("stuck"), on_step=steps))
        await steps.first.wait()
        drawing.cancel()
    await asyncio.wait({drawing})
    assert drawing.cancelled()
    assert executor.abandoned
    assert "the GPU thread is still busy after 0.05 s and is given up" in caplog.messages
    fake.release.set()


async def test_step_reports_carry_the_context_of_who_asked() -> None:
    names: list[str] = []
    async with GpuExecutor(FakeGenerator) as executor:
        NAME.set("alice")
        await drawn(executor, image_request(), on_step=lambda _: names.append(NAME.get()))
    assert names == ["alice"] * 4


def test_a_stopped_drawing_is_a_generation_error_for_the_generator() -> None:
    fake = FakeGenerator()

    def stop(report: StepReport) -> None:
        raise GenerationCancelled("stopped")

    with pytest.raises(GenerationCancelled):
        fake.draw(image_request(), on_step=stop)


# what is left to do without the GPU


class Slow(FakeGenerator):
    """Its first picture is compressed until `compressed` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.compressed = threading.Event()
        self.finished: list[str] = []  # threads

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        painted = super().paint(request, on_step=on_step)
        first = len(self.drawn) == 1

        def finish() -> ImageResult:
            if first:
                self.compressed.wait()
            self.finished.append(threading.current_thread().name)
            return painted.finish()

        return Unfinished(seconds=painted.seconds, finish=finish)


async def test_the_next_is_drawn_while_the_last_is_compressed_on_a_thread_of_its_own() -> None:
    fake = Slow()
    async with GpuExecutor(lambda: fake) as executor:
        first = asyncio.create_task(drawn(executor, image_request("first")))
        await asyncio.sleep(0)
        second = executor.run(Attempt(token="second", request=image_request("second")))
        while not isinstance(await anext(second), Painted):
            pass
        assert [request.prompt for request in fake.drawn] == ["first", "second"]
        assert fake.finished == []
        fake.compressed.set()
        await first
        await anext(second)
        await second.aclose()
    assert fake.finished == ["png_0", "png_0"]
    assert set(fake.threads[1:]) == {"gpu_0"}


async def test_an_attempt_cancelled_while_it_is_compressed_brings_no_picture() -> None:
    fake = Slow()
    async with GpuExecutor(lambda: fake) as executor:
        events = executor.run(Attempt(token="first", request=image_request()))
        while not isinstance(await anext(events), Painted):
            pass
        executor.cancel("first")
        fake.compressed.set()
        with pytest.raises(GenerationCancelled):
            await anext(events)


async def test_leaving_the_executor_stops_what_it_draws() -> None:
    steps = Steps()
    async with GpuExecutor(FakeGenerator) as executor:
        drawing = asyncio.create_task(drawn(executor, image_request("endless"), on_step=steps))
        await steps.first.wait()
    with pytest.raises(GenerationCancelled):
        await drawing
    assert not executor.abandoned


async def test_somebody_who_leaves_early_and_is_cancelled_meanwhile_is_cancelled_once_the_gpu_is_free() -> None:
    fake, left = FakeGenerator(), asyncio.Event()

    async def leave() -> None:
        async with aclosing(executor.run(Attempt(token="first", request=image_request("stuck")))) as events:
            async for _ in events:
                left.set()
                break

    async with GpuExecutor(lambda: fake) as executor:
        leaving = asyncio.create_task(leave())
        await left.wait()
        await asyncio.sleep(0)
        leaving.cancel()
        done, _ = await asyncio.wait({leaving}, timeout=0.02)
        assert not done
        fake.release.set()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
