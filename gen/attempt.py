"""What a dispatcher and whatever draws for it say to each other. Frozen values cross, never a tensor or a handle.

`GpuExecutor` is one thread of this process; an executor on other machines speaks the same, and must pass the same
tests (`tests/gen/test_executor_conformance.py`). Knows no queue: an attempt is named by its token alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from gen.request import ImageRequest, ImageResult, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One drawing of one job."""

    token: str  # unique for ever; what cancels it, and what a later process adopts it by
    request: ImageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """The pixels are there: the slot is free for the next attempt while this picture is compressed."""

    seconds: float  # that the slot was busy, text encoding to pixels


Event = StepReport | Painted | ImageResult


class Executor(Protocol):
    """Draws attempts, each in a slot of its own."""

    def slots(self) -> int:
        """How many attempts can be drawn at a time; 1 or more."""
        ...

    def run(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
        """Draw, telling of each step in order, then Painted once, then the ImageResult, which is the last.

        It ends with GenerationCancelled after `cancel`, with another GenerationError, or with whatever a bug raised;
        by then the slot is free. Leaving early, also by cancelling the task, stops the attempt within one step and
        waits until the slot is free. An adopted token is not drawn again: its reports go on, its picture comes.
        """
        ...

    def cancel(self, token: str) -> None:
        """Stop this attempt within one step; no picture of it comes any more. An unknown token changes nothing."""
        ...

    async def adopt(self) -> frozenset[str]:
        """Tokens of attempts that an earlier process began here and that still go on or wait to be fetched."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; attempts that still run are stopped, or given up."""
        ...
