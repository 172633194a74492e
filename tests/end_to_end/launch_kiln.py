"""`kiln run` against the loopback Discord: sets the addresses, plants a crash if asked to, and runs the real command.

Only tests start this, as a process of its own. What it is told comes in LOOPBACK_ variables (KILN_ ones are the
product's, which refuses names that it does not know):

    LOOPBACK_URL            base of the HTTP side; the gateway is at /gateway of it
    LOOPBACK_STEP_SECONDS   draw with the fake generator, this long a step; left out: the real model
    LOOPBACK_CRASH_AT       a name of CRASH_POINTS: the process kills itself there with SIGKILL,
    LOOPBACK_PATIENCE       seconds that the GPU thread may be silent; left out: the product's
    LOOPBACK_CRASH_WHEN     once this file exists; until then it holds at that point
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import discord.gateway
import discord.http
import yarl

from gen.executor import Generator
from gen.request import ImageRequest, ImageResult, StepReport
from tests.fakes import FakeGenerator

# The method of JobQueue around which the process dies, and whether it dies before or after its commit.
CRASH_POINTS = {
    "submitted, not answered": ("submit_all", "after"),
    "claimed": ("claim", "after"),
    "picture on disk, not recorded": ("record_drawn", "before"),
    "recorded as drawn, not posted": ("record_drawn", "after"),
    "posted, not recorded": ("record_delivered", "before"),
    "delivered": ("record_delivered", "after"),
}
MID_DRAWING = "in mid drawing"
MID_DRAWING_STEP = 2
HOLD_SECONDS = 0.01  # between two looks at the file


def main() -> int:
    """Run `kiln run` as the environment says; return its exit code."""
    _talk_to(os.environ["LOOPBACK_URL"])
    crash_at = os.environ.get("LOOPBACK_CRASH_AT")
    if step_seconds := os.environ.get("LOOPBACK_STEP_SECONDS"):
        _draw_with_the_fake(float(step_seconds), crash=crash_at == MID_DRAWING)
    if patience := os.environ.get("LOOPBACK_PATIENCE"):
        _hurry(float(patience))
    if crash_at in CRASH_POINTS:
        _crash_around(*CRASH_POINTS[crash_at])
    from bot.__main__ import main as kiln

    return kiln(["run", *sys.argv[1:]])


def _talk_to(url: str) -> None:
    discord.http.Route.BASE = url
    # A client that is not sharded never asks /gateway/bot.
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url.replace("http", "ws", 1) + "/gateway")


def _hurry(patience: float) -> None:
    import gen.pulse

    gen.pulse.PATIENCE_SECONDS = gen.pulse.NEW_SECONDS = patience


class CrashingGenerator(FakeGenerator):
    """Takes the process down in mid drawing."""

    def draw(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> ImageResult:
        def step(report: StepReport) -> None:
            on_step(report)
            if report.step == MID_DRAWING_STEP:
                while not _may_die():
                    time.sleep(HOLD_SECONDS)
                _die()

        return super().draw(request, on_step=step)


def _draw_with_the_fake(step_seconds: float, *, crash: bool) -> None:
    """Put a module in the place of gen.flux, before anything imports it."""

    def load_generator(
        folder: Path, *, device: str | None = None, tuning: object = None, loras: Path | None = None
    ) -> Generator:
        kind = CrashingGenerator if crash else FakeGenerator
        return kind(seconds_per_step=step_seconds)

    fake = ModuleType("gen.flux")
    fake.load_generator = load_generator  # type: ignore[attr-defined]
    sys.modules["gen.flux"] = fake


def _crash_around(method: str, moment: str) -> None:
    from bot.queue.job_queue import JobQueue

    original: Callable[..., Awaitable[Any]] = getattr(JobQueue, method)

    async def die_when_told() -> NoReturn:
        while not _may_die():  # noqa: ASYNC110 - a file of the test's: nothing to await
            await asyncio.sleep(HOLD_SECONDS)
        _die()

    @functools.wraps(original)
    async def crashing(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            await die_when_told()
        result = await original(*args, **kwargs)
        if result is not None:  # claim() with nothing to claim is not the moment
            await die_when_told()
        return result

    setattr(JobQueue, method, crashing)


def _may_die() -> bool:
    return Path(os.environ["LOOPBACK_CRASH_WHEN"]).exists()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL came back")


if __name__ == "__main__":
    sys.exit(main())
