"""What a training run leaves behind: a log of figures, loss curves, contact sheets. Knows no model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


class Log:
    """Figures by stage, one JSON object a line with the run's time `at`, shown as they come."""

    def __init__(self, path: Path) -> None:
        """A log that is there already is gone on with, its time too."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        before = float(self.lines()[-1].get("at", 0.0)) if path.exists() and path.stat().st_size else 0.0
        self._started = time.perf_counter() - before

    def elapsed(self) -> float:
        """Seconds of the run, without the time between two processes."""
        return time.perf_counter() - self._started

    def add(self, stage: str, **figures: float | str) -> None:
        """Append one line; floats keep five digits."""
        rounded = {name: round(f, 5) if isinstance(f, float) else f for name, f in figures.items()}
        line = json.dumps({"stage": stage, **rounded, "at": round(self.elapsed(), 1)})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def lines(self) -> list[dict[str, float | str]]:
        """All lines so far."""
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int, tile: int) -> Image.Image:
    """Pictures in a grid, each shown at most `tile` pixels wide and high."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * tile, rows * tile), "white")
    for index, picture in enumerate(pictures):
        shown = picture.copy()
        shown.thumbnail((tile - 4, tile - 4), Image.Resampling.LANCZOS)
        left = index % columns * tile + (tile - shown.width) // 2
        sheet.paste(shown, (left, index // columns * tile + (tile - shown.height) // 2))
    return sheet


def plot_losses(log: Log, path: Path) -> None:
    """Loss curves of every stage, side by side."""
    from matplotlib.figure import Figure  # only training needs it: the extra [train]

    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for line in log.lines():
        stage = str(line.pop("stage"))
        step = line.pop("step", None)
        for name in ("seconds", "at"):
            line.pop(name, None)
        for name, value in line.items():
            if step is not None and isinstance(value, float):
                steps, values = curves.setdefault(stage, {}).setdefault(name, ([], []))
                steps.append(float(step))
                values.append(value)
    figure = Figure(figsize=(4.2 * len(curves), 3.2), layout="constrained")
    for column, (stage, named) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), column, title=stage, xlabel="step", yscale="log")
        for name, (steps, values) in named.items():
            axes.plot(steps, values, label=name, linewidth=1)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)
