"""Stands where DiffSynth expects its progress bar: reports each step when it has been done, with a preview.

Work for a card is only queued when DiffSynth goes on to the next step. So one step is queued ahead and no more, and a
step is reported when the card has done it: a drawing that is stopped leaves at most the step that has begun. The
preview is made in the card's own order and copied while it goes on. Knows no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gen.preview import jpeg

Told = Callable[[int, bytes], None]  # a step's number from 1, and its preview as a JPEG; 0 and none: begun anew


class Steps:
    """For one drawing; may be gone through again when it is drawn a second time, which is told as step 0."""

    def __init__(self, told: Told, *, look: Callable[[], Tensor], device: torch.device) -> None:
        self._told, self._look, self._device = told, look, device
        self._begun = False

    def __call__(self, timesteps: Tensor) -> Iterator[Tensor]:
        """Hand the timesteps (N,) on, from the card: whatever `told` raises ends the drawing.

        DiffSynth moves each to the card; coming from the host, that would wait for all work that is queued there.
        """
        if self._begun:
            self._told(0, b"")
        self._begun = True
        queued: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()
        for step, timestep in enumerate(timesteps.to(self._device), start=1):
            yield timestep
            if self._device.type != "cuda":
                self._told(step, jpeg(self._look()))
                continue
            queued.append((step, *self._sent()))
            if len(queued) > 1:
                self._report(*queued.popleft())
        for step, shown, done in queued:
            self._report(step, shown, done)

    def _sent(self) -> tuple[Tensor, torch.cuda.Event]:
        """Pixels on their way to the host, and the event that tells that they and the step before them are done."""
        shown = self._look()
        host = torch.empty(shown.shape, dtype=shown.dtype, pin_memory=True)
        host.copy_(shown, non_blocking=True)
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record()
        return host, done

    def _report(self, step: int, shown: Tensor, done: torch.cuda.Event) -> None:
        done.synchronize()
        self._told(step, jpeg(shown))
