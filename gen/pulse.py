"""Whether the GPU thread still works: its last sign of life, and how long it may give none.

A sign of life is a step, and the begin and the end of any work. How long may pass between two depends on the card, so
it is not a constant: a drawing may be silent three times as long as the last one of its kind was, 25 s at least; one
that was stopped or failed teaches nothing. Of a kind that was not drawn yet nothing is known (its first step may
compile for minutes), and loading may pack 20 GB: both have a generous limit. Letting a model go only frees memory. An
idle thread is never hung. Written on the GPU thread, read on any. Knows no generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE_SECONDS = 25.0  # so that a hung thread is known within 30 s
PATIENCE_TIMES = 3  # the last drawing's longest silence
NEW_SECONDS = 600.0  # for a drawing of a new kind, which compiles
LOADING_SECONDS = 3600.0  # packing FLUX.1 from a slow disk
CLOSING_SECONDS = 60.0  # the host's 20 GB too
KINDS_MAX = 500  # remembered


@dataclass(slots=True, kw_only=True)
class _Work:
    began: float  # on the pulse's clock, seconds
    last_sign: float
    patience: float  # seconds
    longest: float = 0.0  # silence so far, seconds


class Pulse:
    """Of one GPU thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._clock = clock
        self._work: _Work | None = None
        self._silences: dict[Hashable, float] = {}  # by kind: the longest of the last drawing that ended well
        self._busy = 0.0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A model comes on the GPU thread; what was known of drawings holds no more."""
        self._silences.clear()
        with self._working(LOADING_SECONDS):
            yield

    @contextmanager
    def closing(self) -> Iterator[None]:
        """A model goes."""
        with self._working(CLOSING_SECONDS):
            yield

    @contextmanager
    def drawing(self, kind: Hashable) -> Iterator[None]:
        """A picture is drawn on the GPU thread; drawings of one `kind` take the same time a step."""
        known = self._silences.get(kind)
        patience = NEW_SECONDS if known is None else max(PATIENCE_SECONDS, PATIENCE_TIMES * known)
        with self._working(patience) as work:
            yield
        self._silences.pop(kind, None)
        if len(self._silences) >= KINDS_MAX:
            del self._silences[next(iter(self._silences))]
        self._silences[kind] = work.longest

    def sign(self, *, anew: bool = False) -> None:
        """The thread lives. `anew`: the drawing begins once more in another way, of which nothing is known."""
        work, now = self._work, self._clock()
        if work is not None:
            work.longest = max(work.longest, now - work.last_sign)
            work.last_sign = now
            if anew:
                work.patience = NEW_SECONDS

    @property
    def silent_seconds(self) -> float:
        """Since the last sign of life; 0 while the thread has nothing to do."""
        work = self._work
        return 0.0 if work is None else self._clock() - work.last_sign

    @property
    def is_hung(self) -> bool:
        """Whether the thread has been silent for longer than it may."""
        work = self._work
        return work is not None and self._clock() - work.last_sign > work.patience

    @property
    def busy_seconds(self) -> float:
        """That the thread has worked so far; never falls."""
        busy, work = self._busy, self._work
        return busy if work is None else max(busy, busy + self._clock() - work.began)

    @contextmanager
    def _working(self, patience: float) -> Iterator[_Work]:
        now = self._clock()
        self._work = work = _Work(began=now, last_sign=now, patience=patience)
        try:
            yield work
        finally:
            self.sign()
            self._work = None
            self._busy += work.last_sign - work.began
