"""How far a stage of the training is: by its steps, or by its time where it has a limit.

All processes that are in the stage agree on it. Knows no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from gen.demo import parallel

LOOK = 25  # steps between two looks at the clock


class Pace:
    """From 0 to 1 over a fixed number of steps, or over `minutes`, however many steps these turn out to be."""

    def __init__(
        self,
        steps: int,
        minutes: float | None,
        *,
        device: torch.device,
        spent: float = 0.0,
        alone: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`spent`: seconds that an earlier, interrupted process took; `alone`: no other process is in the stage."""
        self._alone = alone
        self._steps, self._limit, self._device = steps, minutes and minutes * 60, device
        self._clock, self._started = clock, clock() - spent
        self._mark, self._seen, self._rate = -1, 0.0, 0.0  # step and progress at the last look, progress a step since

    def seconds(self) -> float:
        """Since the stage began, without the time between two processes."""
        return self._clock() - self._started

    def progress(self, step: int) -> float:
        """How far the stage is after `step` steps; 1 or more at its end. With a limit it ends at a look only."""
        if not self._limit:
            return step / self._steps
        if self._mark < 0 or step >= self._mark + LOOK:
            self._look(step)
            return self._seen
        return min(self._seen + self._rate * (step - self._mark), 0.9999)

    def _look(self, step: int) -> None:
        assert self._limit
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self.seconds() / self._limit
        if not self._alone:
            now = parallel.agree(int(1e6 * now), self._device) / 1e6
        if self._mark >= 0:
            self._rate = (now - self._seen) / (step - self._mark)
        self._mark, self._seen = step, now
