"""Time against budget, with the card's limit drawn in. Knows a results file and matplotlib, which is optional."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen.streaming import sizes
from gen.streaming.sizes import Precision, Wanted
from gen.weights import FluxShape


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw the rows of a results file into a PNG; raise ImportError where matplotlib is missing."""
    from matplotlib.figure import Figure  # the extra [train]
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="peak reserved memory, GiB", ylabel="seconds a step", xscale="log", yscale="log")
    axes.set_title(f"FLUX.1, {found['size']}, {found['card']}, {found['date'][:10]}", fontsize=10)
    rows = [row for row in found["rows"] if row.get("peak_reserved_gib")]
    ours = sorted((row["peak_reserved_gib"], row["s_per_step"]) for row in rows if row["system"] == "kiln")
    if ours:
        axes.plot(*zip(*ours, strict=True), "o-", color="tab:red", label="Kiln, float8")
    for row in rows:
        if row["system"] != "kiln":
            axes.plot(row["peak_reserved_gib"], row["s_per_step"], "s", label=row["system"])
    if ours and (limits := limit(found, [memory for memory, _ in ours])):
        axes.plot([memory for memory, _ in ours], limits, "--", color="grey", label="limit: link and tensor cores")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def limit(found: Mapping[str, Any], memories_gib: list[float]) -> list[float]:
    """The fewest seconds a step in which FLUX.1's weights cross the link and its products are computed.

    Of each amount of memory all is taken to hold weights: what really works needs some, so the limit is below reach.
    """
    rates, shape = found.get("ceilings") or {}, FluxShape()
    if not rates.get("float8_flops"):
        return []
    width, _, height = found["size"].partition("x")
    wanted = Wanted(width=int(width), height=int(height))
    compute = sizes.gemm_flops(shape, wanted) / rates["float8_flops"]
    compute += sizes.attention_flops(shape, wanted) / rates["attention_flops"]
    blocks = sum(sizes.block_bytes(shape, Precision.FLOAT8))
    streamed = [max(0.0, blocks - memory * 2**30) / rates["pinned_bytes_s"] for memory in memories_gib]
    return [max(compute, seconds) for seconds in streamed]
