"""`python -m gen.bench.child JOB OUT`: one system, measured in this process, so that its peaks are its own.

JOB is a JSON text, OUT the JSON file that is written at the end. What libraries print goes to stderr. Knows
no other system and no table.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

_GIB = 2**30


def main(job_text: str, out: str) -> int:
    """Measure, write the row, return the exit code."""
    job = json.loads(job_text)
    with contextlib.redirect_stdout(sys.stderr):
        row = _ceilings(job) if job["system"] == "ceilings" else _measure(job)
    Path(out).write_text(json.dumps(row), "utf-8")
    return 0


def _ceilings(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    from gen.streaming.ceilings import measure_ceilings

    return {**asdict(measure_ceilings(torch.device(job["device"]))), **_card(job["device"])}


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    """The row of one system; what goes wrong is a sentence in the row."""
    import torch

    from gen.bench.measuring import measure
    from gen.bench.systems import Job, build, tells_when_done
    from gen.errors import GenerationError

    device = torch.device(job["device"])
    wanted = Job(
        system=job["system"],
        weights=Path(job["weights"]),
        width=job["width"],
        height=job["height"],
        device=job["device"],
        budget_gib=job["budget_gib"],
        cache=Path(job["cache"]) if job["cache"] else None,
    )
    try:
        draw = build(wanted)
        loaded_at = time.perf_counter()
        warm_up, figures = measure(
            draw,
            steps=job["steps"],
            on_card=device.type == "cuda" and not tells_when_done(wanted),
            seconds=60 * job["minutes"],
            pictures=job["pictures"],
        )
    except (GenerationError, torch.OutOfMemoryError) as error:
        return {"error": str(error).splitlines()[0], **_memory(device)}
    return {
        **asdict(figures),
        **_memory(device),
        "load_s": loaded_at - job["started_at"],  # perf_counter counts the same in every process of a machine
        "start_s": warm_up.first_step_at - job["started_at"],  # to the end of the first step
    }


def _memory(device: Any) -> dict[str, float | None]:
    """Peaks of the whole process: PyTorch's reserved memory on the card, resident memory of the host."""
    import torch

    on_card = device.type == "cuda"
    return {
        "peak_reserved_gib": torch.cuda.max_memory_reserved(device) / _GIB if on_card else None,
        "peak_allocated_gib": torch.cuda.max_memory_allocated(device) / _GIB if on_card else None,
        "host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,  # KiB on Linux
    }


def _card(device: str) -> dict[str, str]:
    import torch

    if torch.device(device).type != "cuda":
        return {"card": "CPU"}
    return {"card": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
