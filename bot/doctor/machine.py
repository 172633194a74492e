"""`kiln doctor` about the machine: memory that can be pinned, room on disks, ports. Knows no torch and no Discord."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bot.doctor.finding import Finding, fail, ok, warn
from bot.host.ports import OFF, host_and_port, why_not
from bot.settings import Settings
from gen.streaming import sizes
from gen.streaming.cards import GIB
from gen.streaming.planner import gib
from gen.streaming.sizes import Precision
from gen.tuning import PINNED_SHARE
from gen.weights import Weights

DATA_FREE_BYTES = GIB  # a thousand pictures of FLUX.1's size, and the database
MEMINFO, CGROUP_MAX, KERNEL = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/proc/version"),
)
_WSL_SHARE = 0.5  # of the memory, which Windows lets a WSL pin


def packed_bytes(weights: Weights, precision: Precision) -> int:
    """What the host holds of a model that streams: blocks, text encoders, modulation."""
    shape = weights.shape
    blocks = sum(sizes.block_bytes(shape, precision))
    return blocks + sizes.text_bytes(shape, precision) + sizes.modulation_bytes(shape)


def memory(
    needed: int,
    *,
    most: int | None = None,
    meminfo: Path = MEMINFO,
    ceiling: Path = CGROUP_MAX,
    kernel: Path = KERNEL,
) -> Finding:
    """Memory of the host, and how much of it may be pinned (`most`, if it is set), beside the bytes a model needs."""
    total, available = _memory(meminfo, ceiling)
    if not total:
        return ok("memory", "the system does not tell how much there is")
    wsl = "microsoft" in _read(kernel).lower()
    pinned = min(round(total * PINNED_SHARE) if most is None else most, round(total * (_WSL_SHARE if wsl else 1.0)))
    wants = f"the model needs {gib(needed)}" if needed else "the demo model needs hardly any"
    detail = f"{gib(available)} of {gib(total)} available, {gib(pinned)} may be pinned; {wants}"
    if most is not None and most > total:
        return fail("memory", f"{detail}; KILN_PINNED_MEMORY is {gib(most)}", "Lower it, or leave it out.")
    if needed > total:
        return fail("memory", detail, "Add memory, or use a smaller model: the weights stream from the host's memory.")
    if needed > available:
        return warn("memory", detail, "Close other programs: a host that swaps draws at the speed of its disk.")
    if needed > pinned:
        cure = "More memory helps" + (", so does Linux without WSL." if wsl else ".")
        if pinned == most:
            cure = "Raise KILN_PINNED_MEMORY, or leave it out."
        return warn("memory", detail, f"The rest goes a slower way. {cure}")
    return ok("memory", detail)


def disk(settings: Settings, needed: int) -> Finding:
    """Room for pictures and the database, and for packed weights of so many bytes."""
    data = _free(settings.data)
    detail = f"{gib(data)} free for pictures in {settings.data}"
    if data < DATA_FREE_BYTES:
        status = fail if data < DATA_FREE_BYTES // 20 else warn
        return status("disk", detail, "Make room, or set KILN_DATA to a folder on another disk.")
    cache = settings.tuning.cache
    if cache is not None and needed:
        free = _free(cache)
        detail += f", {gib(free)} for packed weights, which take {gib(needed)}"
        packed = any(cache.glob("*.arena")) if cache.is_dir() else False
        if free < needed and not packed:
            return warn("disk", detail, "Make room, or set KILN_CACHE elsewhere; else every start packs them anew.")
    return ok("disk", detail)


def port(name: str, host: str, number: int, *, cure: str) -> Finding:
    """Whether Kiln could listen there."""
    if why := why_not(host, number):
        return warn(name, f"{host}:{number} cannot be listened on: {why}", cure)
    return ok(name, f"{host}:{number} is free")


def web(settings: Settings) -> Finding:
    """Whether health and metrics can be served."""
    if settings.web == OFF:
        return ok("web", "health and metrics are off")
    cure = (
        "Stop the program that listens there, unless it is Kiln itself, or set KILN_WEB to another address, or to off."
    )
    return port("web", *host_and_port(settings.web), cure=cure)


def nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _free(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).free


def _memory(meminfo: Path, ceiling: Path) -> tuple[int, int]:
    """Total and available bytes, within what a container may have; zeros where the system does not tell."""
    lines = dict(line.split(":", 1) for line in _read(meminfo).splitlines() if ":" in line)
    told = [int(lines.get(name, "0 kB").split()[0]) * 1024 for name in ("MemTotal", "MemAvailable")]
    total, available = told if told[0] else (_total(), _total())
    most = _read(ceiling).strip()
    if most.isdecimal():
        total, available = min(total, int(most)), min(available, int(most))
    return total, available


def _total() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
