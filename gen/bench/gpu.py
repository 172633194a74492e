"""`python -m gen bench gpu`: Kiln at several budgets beside its peers and the card's ceilings, in one run.

Each system has a process and a time of its own; what is known is written after each, so that a run that is killed
keeps what it has, and a later one adds to the same file. Knows no torch and no model: `gen.bench.child` does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gen import __version__
from gen.errors import GenerationError, InvalidRequest

Row = dict[str, Any]
LOADING_SECONDS = 420  # on top of a system's own minutes: 34 GB from a disk, and compiling
PEERS = (
    "diffsynth-bfloat16",
    "diffsynth-bfloat16-offload",
    "diffsynth-float8-offload",
    "diffsynth-low-vram",
    "diffusers-compiled",
    "diffusers-group-offload",
)
_BUDGETED = ("kiln", "kiln-bfloat16")
LORA = "kiln-lora"  # at the first budget alone: what changing LoRAs costs
SYSTEMS = (*_BUDGETED, LORA, *PEERS)
_LOW_VRAM_GIB = 6.5  # of the peer that keeps to a limit; its reserved memory stays just below


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run."""

    weights: Path
    width: int
    height: int
    steps: int
    budgets: tuple[float | None, ...]  # GiB; None is everything resident
    systems: tuple[str, ...]  # peers, and Kiln's own other precision
    device: str
    minutes: float  # for each system, after loading
    pictures: int
    cache: Path | None
    out: Path

    def jobs(self) -> Iterator[Row]:
        """What each process is told, ceilings first."""
        yield self._job("ceilings", None)
        for system in self.systems:
            if system in _BUDGETED:
                yield from (self._job(system, budget) for budget in self.budgets)
            elif system == LORA:
                yield self._job(system, next((budget for budget in self.budgets if budget is not None), None))
            else:
                yield self._job(system, _LOW_VRAM_GIB if system == "diffsynth-low-vram" else None)

    def _job(self, system: str, budget: float | None) -> Row:
        shared = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        kept = ("weights", "width", "height", "steps", "device", "minutes", "pictures", "cache")
        return {"system": system, "budget_gib": budget, **{key: shared[key] for key in kept}}


def run(bench: Bench) -> Iterator[str]:
    """Measure everything; yield lines for a person as they become known, and the table at the end.

    Raise GenerationError where nothing can be measured at all, and after the table where nothing was, or where rows of
    an earlier run had to stay.
    """
    found, log = _begin(bench), bench.out.with_suffix(".log")
    measured, stayed = False, []
    bench.out.parent.mkdir(parents=True, exist_ok=True)
    for job in bench.jobs():
        name = job["system"] + (f" in {job['budget_gib']:g} GiB" if job["budget_gib"] else "")
        yield f"{name} ..."
        row = _in_a_process(job, seconds=60 * bench.minutes + LOADING_SECONDS, log=log)
        if job["system"] == "ceilings":
            if "error" in row:  # nothing is written: every row would be an error, about a card that is not known
                raise GenerationError(f"Nothing can be measured on {bench.device}: {row['error']}")
            found |= {"card": row.pop("card"), "cuda": row.pop("cuda", None), "ceilings": row}
        else:
            shown = {key: job[key] for key in ("system", "budget_gib", "steps")}
            row = {**shown, "size": f"{bench.width}x{bench.height}", "card": found["card"], **row, "date": _now()}
            found["rows"] = _with(found["rows"], row)
            measured |= "error" not in row
        _write(bench.out, found)
        if "error" in row:
            yield f"    {row['error']}"
            if row not in found["rows"]:
                stayed.append(name)
    yield ""
    yield from table(found)
    if not measured:
        raise GenerationError("Nothing was measured.")
    if stayed:
        raise GenerationError(f"Not measured again, so that their earlier rows stay: {', '.join(stayed)}.")


def _with(rows: list[Row], row: Row) -> list[Row]:
    """The rows with this one in the place of its like; an error never takes the place of what was measured."""
    if "error" in row and any("error" not in old for old in rows if not _is_other(old, row)):
        return rows
    return [*(old for old in rows if _is_other(old, row)), row]


@contextmanager
def results(path: Path) -> Iterator[Row]:
    """What an earlier run has written; raise InvalidRequest if it fits neither the table nor what is done with it."""
    try:
        found: Row = json.loads(path.read_text("utf-8"))
        list(table(found))
        yield found
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise InvalidRequest(f"{path} does not hold results of `bench gpu` ({problem}).") from error


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """The rows and their ratios as lines of text."""
    yield f"{found['card']}, {found['size']}, {found['steps']} steps, {found['date']}"
    for name, value in (found.get("ceilings") or {}).items():
        if value:
            unit, scale = ("GB/s", 1e9) if name.endswith("bytes_s") else ("TFLOP/s", 1e12)
            if isinstance(value, float):
                yield f"  {name.rpartition('_')[0].replace('_bytes', ''):<14}{value / scale:10.1f} {unit}"
    heads = ("system", "budget", "s/step", "picture", "text", "vae", "png", "reserved", "host", "start", "vs resident")
    yield f"{heads[0]:<28}" + "".join(f"{head:>10}" for head in heads[1:-1]) + f"  {heads[-1]}"
    resident: Row = next((row for row in found["rows"] if row["system"] == "kiln" and row["budget_gib"] is None), {})
    for row in found["rows"]:
        yield _line(row, resident)
    yield from _notes(found["rows"])


def _line(row: Row, resident: Row) -> str:
    budget = "all" if row["budget_gib"] is None else f"{row['budget_gib']:g} GiB"
    if "error" in row:
        return f"{row['system']:<28}{budget:>10}  {row['error']}"
    keys = ("s_per_step", "picture_s", "text_s", "vae_s", "png_s", "peak_reserved_gib", "host_gib", "start_s")
    cells = ["-" if row[key] is None else f"{row[key]:.{4 if key == 's_per_step' else 2}f}" for key in keys]
    times = f"{row['s_per_step'] / resident['s_per_step']:.2f}x" if resident.get("s_per_step") else ""
    star = "" if row["measured_steps"] == row["steps"] else f"  ({row['measured_steps']} steps drawn)"
    return f"{row['system']:<28}{budget:>10}" + "".join(f"{cell:>10}" for cell in cells) + f"  {times}{star}"


def _notes(rows: Iterable[Row]) -> Iterator[str]:
    """What changing LoRAs costs; Kiln against the low-VRAM recipe, at the budget nearest to the recipe's."""
    sound = [row for row in rows if "error" not in row]
    for lora in (row for row in sound if row["system"] == LORA):
        plain = next((row for row in sound if (row["system"], row["budget_gib"]) == ("kiln", lora["budget_gib"])), None)
        if plain is not None:
            yield (
                f"Another LoRA than the picture before: {lora['text_s'] - plain['text_s']:.2f} s once, "
                f"and {lora['s_per_step'] - plain['s_per_step']:.4f} s a step."
            )
    recipe = next((row for row in sound if row["system"] == "diffsynth-low-vram"), None)
    ours = [row for row in sound if row["system"] == "kiln" and row["budget_gib"] is not None]
    if recipe is None or not ours:
        return
    near = min(ours, key=lambda row: abs(row["budget_gib"] - _LOW_VRAM_GIB))
    step, picture = (recipe[key] / near[key] for key in ("s_per_step", "picture_s"))
    yield f"Kiln in {near['budget_gib']:g} GiB against DiffSynth's float8 recipe: a step {step:.0f}x faster,"
    yield f"a picture {picture:.0f}x faster."


def _in_a_process(job: Row, *, seconds: float, log: Path) -> Row:
    """The row that a process of its own has measured, or its error in a sentence; its stderr is added to `log`."""
    with tempfile.TemporaryDirectory() as folder, log.open("ab+") as said:
        out = Path(folder) / "row.json"
        told = json.dumps({**job, "started_at": time.perf_counter()})
        command = [sys.executable, "-m", "gen.bench.child", told, str(out)]
        try:
            code = subprocess.run(command, stdout=said, stderr=said, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
        if out.exists():
            row: Row = json.loads(out.read_text("utf-8"))
            return row
        said.seek(-min(2000, said.tell()), 2)
        last = (said.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return {"error": f"its process ended with {code}: {last}"}


def _begin(bench: Bench) -> Row:
    """What stands in the file before the first row; rows of an earlier run of the same kind are kept."""
    size = f"{bench.width}x{bench.height}"
    fresh: Row = {
        "card": "unknown",
        "size": size,
        "steps": bench.steps,
        "date": _now(),
        "driver": _driver(),
        "versions": {"kiln": __version__, "python": sys.version.split()[0], **_versions()},
        "ceilings": None,
        "rows": [],
    }
    if bench.out.exists():
        with results(bench.out) as old:
            if (old["size"], old["steps"]) != (size, bench.steps):
                raise InvalidRequest(f"{bench.out} holds {old['size']} at {old['steps']} steps; name another --out.")
            fresh["rows"] = old["rows"]
    return fresh


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _is_other(old: Row, row: Row) -> bool:
    return (old["system"], old["budget_gib"]) != (row["system"], row["budget_gib"])


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "diffsynth", "diffusers", "flash-attn-4"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None


def _write(path: Path, found: Row) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    partial.replace(path)


def read_budgets(text: str) -> tuple[float | None, ...]:
    """Read "all,6.8,4": GiB, or all for everything resident; raise InvalidRequest for anything else."""
    words = [word.strip().lower() for word in text.split(",")]
    if not all(word == "all" or (re.fullmatch(r"\d{1,3}(\.\d{1,3})?", word) and float(word) > 0) for word in words):
        raise InvalidRequest(f"--budgets is a list of GiB or all, like all,6.8,4; it is {text[:40]!r}.")
    return tuple(None if word == "all" else float(word) for word in words)
