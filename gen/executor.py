"""The one thread that owns the GPU: everything a generator does, from loading to closing, happens on it.

Frozen requests go in; step reports and a frozen result come out, on the event loop. Knows no model code, no queue
and no Discord. It is short because one thread needs no scheduling: who is next is the queue's business.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from gen.errors import GenerationCancelled
from gen.request import ImageRequest, ImageResult, ModelProfile, StepReport

CLOSE_SECONDS = 1.0  # how long leaving waits for a busy GPU thread before it is given up

log = logging.getLogger(__name__)


class Generator(Protocol):
    """What draws. Made, used and closed on the GPU thread alone."""

    @property
    def profile(self) -> ModelProfile: ...

    def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        """Draw, blocking; whatever `on_step` raises ends the drawing within one step and passes through."""
        ...

    def close(self) -> None: ...


class GpuExecutor:
    """Runs one generator on one thread named `gpu`. Open it with `async with`: entering loads the model."""

    def __init__(self, load: Callable[[], Generator]) -> None:
        self._load = load
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")
        self._generator: Generator | None = None
        self._profile: ModelProfile | None = None
        self._given_up: asyncio.Event | None = None

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
        """Close the generator on its thread. A thread that is still busy after a second is given up, and logged."""
        assert self._given_up is not None
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if done:
            closing.result()
        else:
            closing.cancel()
            log.warning("the GPU thread is still busy after %g s and is given up", CLOSE_SECONDS)
            self._given_up.set()

    async def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        """Draw one picture; `on_step` is called on the event loop, in order, before this returns.

        Cancelling the caller stops the drawing within one step. The caller then waits until the GPU is really
        free (or given up by leaving the executor), and only then sees CancelledError.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def deliver(report: StepReport) -> None:  # event loop
            if not stop.is_set():
                on_step(report)

        def step(report: StepReport) -> None:  # GPU thread
            if stop.is_set():
                raise GenerationCancelled("The drawing was stopped.")
            loop.call_soon_threadsafe(deliver, report)

        # The thread carries the caller's context, so that step reports belong to the command that asked.
        context = contextvars.copy_context()
        drawing = loop.run_in_executor(self._thread, context.run, self._draw, request, step, stop)
        try:
            return await asyncio.shield(drawing)
        except asyncio.CancelledError:
            stop.set()
            await self._until_free(drawing)
            raise

    async def _until_free(self, drawing: asyncio.Future[ImageResult]) -> None:
        """Wait for the GPU thread however often the caller is cancelled; give up only with the executor."""
        assert self._given_up is not None
        given_up = asyncio.ensure_future(self._given_up.wait())
        either: set[asyncio.Future[Any]] = {drawing, given_up}
        drawing.add_done_callback(_forget)
        try:
            while not drawing.done() and not given_up.done():
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    continue
        finally:
            given_up.cancel()

    def _open(self) -> ModelProfile:  # GPU thread
        self._generator = self._load()
        return self._generator.profile

    def _close(self) -> None:  # GPU thread
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def _draw(self, request: ImageRequest, step: Callable[[StepReport], None], stop: threading.Event) -> ImageResult:
        """Check the request against today's limits and draw it, on the GPU thread."""
        assert self._generator is not None
        if stop.is_set():
            raise GenerationCancelled("The drawing was stopped before it began.")
        try:
            self._generator.profile.check(replace(request))  # a stored request may be older than the limits
            return self._generator.draw(request, on_step=step)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            # A future cannot carry StopIteration, and SystemExit would end the event loop.
            raise RuntimeError(f"the generator raised {type(error).__name__}") from error


def _forget(drawing: asyncio.Future[ImageResult]) -> None:
    """Take the outcome of a stopped drawing, so that asyncio does not report it as unseen."""
    drawing.exception()
