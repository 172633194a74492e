"""The one thread that owns the GPU: everything a generator does, from loading to closing, happens on it.

Attempts go in; step reports and a frozen result come out, on the event loop. Pictures are compressed on a thread of
their own, so that the next is drawn meanwhile. Knows no model code, no queue and no Discord. It is short because one
thread needs no scheduling: who is next is the queue's business.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

from gen.attempt import Attempt, Event, Painted
from gen.errors import GenerationCancelled
from gen.message import msg
from gen.pulse import Pulse
from gen.request import CFG_SCALE_MIN, ImageRequest, ImageResult, ModelProfile, StepReport

CLOSE_SECONDS = 1.0  # how long leaving waits for a busy GPU thread before it is given up

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A picture without its file. It may hold much memory, none of it the GPU's."""

    seconds: float  # on the GPU thread, text encoding to pixels
    finish: Callable[[], ImageResult]  # compresses it, blocking; any thread may call it, once


class Generator(Protocol):
    """What draws. Made, used and closed on the GPU thread alone."""

    @property
    def profile(self) -> ModelProfile: ...

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Do all that needs the GPU, blocking.

        Whatever `on_step` raises ends the drawing within one step and passes through.
        """
        ...

    def close(self) -> None: ...


class GpuExecutor:
    """Runs one generator on one thread named `gpu`. Open it with `async with`: entering loads the model."""

    def __init__(self, load: Callable[[], Generator], *, pulse: Pulse | None = None) -> None:
        self.pulse = pulse or Pulse()
        self._load = load
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")
        self._finishing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="png")
        self._generator: Generator | None = None
        self._profile: ModelProfile | None = None
        self._given_up: asyncio.Event | None = None
        self._stops: dict[str, threading.Event] = {}  # by token, of attempts under way

    @property
    def profile(self) -> ModelProfile:
        """What the loaded model draws; only after entering."""
        assert self._profile is not None, "the executor is not open"
        return self._profile

    @property
    def abandoned(self) -> bool:
        """True after leaving while the GPU thread was still busy.

        The interpreter waits for that thread at its end, so such a process must end with `os._exit`.
        """
        return self._given_up is not None and self._given_up.is_set()

    async def __aenter__(self) -> Self:
        """Load the model on the GPU thread; whatever loading raises passes through."""
        self._given_up = asyncio.Event()
        try:
            self._profile = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:
            self._thread.submit(self._close)  # a cancelled start: the model may still arrive, and must not stay
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the generator on its thread. A thread that is still busy after a second is given up, and logged."""
        assert self._given_up is not None
        for stop in self._stops.values():
            stop.set()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        self._finishing.shutdown(wait=False)
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if done:
            closing.result()
        else:
            closing.cancel()
            log.warning("the GPU thread is still busy after %g s and is given up", CLOSE_SECONDS)
            self._given_up.set()

    @property
    def is_loaded(self) -> bool:
        """Whether the model is there, so that a picture begins at once."""
        return self._generator is not None

    async def load(self) -> None:
        """Load the model again after `unload`; whatever loading raises passes through."""
        if not self.is_loaded:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def unload(self) -> None:
        """Let the model and its memory go; only while nothing is drawn, and `load` must come before the next."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    def slots(self) -> int:
        """One: the card is one."""
        return 1

    async def adopt(self) -> frozenset[str]:
        """None: what this thread draws dies with its process."""
        return frozenset()

    def cancel(self, token: str) -> None:
        """Stop this attempt within one step; an unknown token changes nothing."""
        if token in self._stops:
            self._stops[token].set()

    async def run(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
        """Draw one attempt; see `gen.attempt.Executor`.

        Whoever leaves early, also by cancellation, waits until the GPU is really free, or given up by leaving the
        executor.
        """
        stop = self._stops[attempt.token] = threading.Event()
        reports, painting = self._start(attempt.request, stop)
        try:
            while (report := await reports.get()) is not None:
                if not stop.is_set():
                    yield report
            _check(stop)
            unfinished = painting.result()
            yield Painted(seconds=unfinished.seconds)
            result = await asyncio.get_running_loop().run_in_executor(self._finishing, unfinished.finish)
            _check(stop)
            yield result
        finally:
            stop.set()
            await self._until_free(painting)
            del self._stops[attempt.token]

    def _start(
        self, request: ImageRequest, stop: threading.Event
    ) -> tuple[asyncio.Queue[StepReport | None], asyncio.Future[Unfinished]]:
        """Begin on the GPU thread: the reports to come, None behind the last, and what it paints."""
        loop = asyncio.get_running_loop()
        reports: asyncio.Queue[StepReport | None] = asyncio.Queue()

        def step(report: StepReport) -> None:  # GPU thread
            self.pulse.sign(anew=report.step == 0)
            _check(stop)
            loop.call_soon_threadsafe(reports.put_nowait, report)

        # The thread carries the caller's context, so that step reports belong to the command that asked.
        context = contextvars.copy_context()
        painting = loop.run_in_executor(self._thread, context.run, self._paint, request, step, stop)
        painting.add_done_callback(lambda _: reports.put_nowait(None))
        return reports, painting

    async def _until_free(self, painting: asyncio.Future[Unfinished]) -> None:
        """Wait for the GPU thread however often the caller is cancelled; give up only with the executor."""
        assert self._given_up is not None
        given_up = asyncio.ensure_future(self._given_up.wait())
        either: set[asyncio.Future[Any]] = {painting, given_up}
        painting.add_done_callback(_forget)
        cancelled = False
        while not painting.done() and not given_up.done():
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                cancelled = True
        given_up.cancel()
        if cancelled:
            raise asyncio.CancelledError

    def _open(self) -> ModelProfile:  # GPU thread
        with self.pulse.loading():
            if self._generator is None:
                self._generator = self._load()
        return self._generator.profile

    def _close(self) -> None:  # GPU thread
        with self.pulse.closing():
            generator, self._generator = self._generator, None
            if generator is not None:
                generator.close()

    def _paint(self, request: ImageRequest, step: Callable[[StepReport], None], stop: threading.Event) -> Unfinished:
        """Check the request against today's limits and draw it, on the GPU thread."""
        assert self._generator is not None, "the model was unloaded"
        _check(stop)
        try:
            self._generator.profile.check(replace(request))  # a stored request may be older than the limits
            with self.pulse.drawing(_kind(request)):
                return self._generator.paint(request, on_step=step)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            # A future cannot carry StopIteration, and SystemExit would end the event loop.
            raise RuntimeError(f"the generator raised {type(error).__name__}") from error


def _kind(request: ImageRequest) -> Hashable:
    """What decides how long a step takes, and whether it compiles: no words, and no number that changes each time."""
    return request.width, request.height, request.cfg_scale > CFG_SCALE_MIN, tuple(use.name for use in request.loras)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise GenerationCancelled(msg("The drawing was stopped."))


def _forget(painting: asyncio.Future[Unfinished]) -> None:
    """Take the outcome of a stopped drawing, so that asyncio does not report it as unseen."""
    painting.exception()
