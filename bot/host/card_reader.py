"""What the GPU itself says: temperature, memory, load, power, from NVML, the driver's own library.

None everywhere where there is no NVIDIA card or driver. Changes nothing on the card. Knows no torch, whose view ends at
its own process, and no Discord.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

MILLIWATT = 0.001

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One card at one moment; None: this card does not say."""

    name: str
    temperature: int | None  # °C
    memory_used: int | None  # bytes, of all processes
    memory_total: int | None  # bytes
    load: int | None  # % of the last moment in which anything ran on it
    power: float | None  # W
    others_memory: int | None = None  # bytes of processes that are not Kiln's
    others_load: int | None = None  # % of the card's time that the busiest of them takes


class CardReader:
    """Reads the card that Kiln draws on. `read` may be called from any thread."""

    def __init__(
        self,
        device: str = "auto",
        *,
        environment: Mapping[str, str] = os.environ,
        load: Callable[[], Any] = lambda: importlib.import_module("pynvml"),
        is_own: Callable[[int], bool] = lambda pid: _is_own(pid),
    ) -> None:
        """`device` is the setting: auto, cuda, cuda:N, or one that is no card. `load` imports nvidia-ml-py.

        `is_own` says whether a process, by its number, is Kiln's.
        """
        self._is_own = is_own
        self._seen_at = 0  # NVML's time of the last sample of processes, microseconds
        self._which = _which(device, environment.get("CUDA_VISIBLE_DEVICES"))
        self._load = load
        self._lock = threading.Lock()
        self._is_open = False

    def read(self) -> Reading | None:
        """What the card says now, in some milliseconds; None if there is none. Blocking."""
        if self._which is None:
            return None
        try:
            nvml = self._load()
        except ImportError:
            return None
        with self._lock:
            try:
                if not self._is_open:
                    nvml.nvmlInit()
                    self._is_open = True
                card = self._handle(nvml)
                memory, load = self._others(nvml, card)
                return replace(_read(nvml, card), others_memory=memory, others_load=load)
            except nvml.NVMLError as error:  # no driver, no such card, or a driver that was changed under us
                _log.debug("the card cannot be read: %s", error)
                self._close()
                return None

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            nvml = self._load()
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def _others(self, nvml: Any, card: Any) -> tuple[int | None, int | None]:
        """Bytes and % of others, where Kiln's own process is listed: elsewhere, as in containers, none can be told."""
        programs: dict[int, int | None] = {}
        for question in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            try:
                programs |= {program.pid: program.usedGpuMemory for program in question(card)}
            except nvml.NVMLError:
                return None, None
        others = [memory for pid, memory in programs.items() if not self._is_own(pid)]
        if len(others) == len(programs):
            return None, None
        known = [memory for memory in others if memory is not None]
        memory = sum(known) if len(known) == len(others) else None
        return memory, self._others_load(nvml, card)

    def _others_load(self, nvml: Any, card: Any) -> int | None:
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(card, self._seen_at)
        except nvml.NVMLError_NotFound:  # nothing ran since
            return 0
        except nvml.NVMLError:
            return None
        self._seen_at = max([self._seen_at, *(sample.timeStamp for sample in samples)])
        return max((sample.smUtil for sample in samples if not self._is_own(sample.pid)), default=0)

    def _handle(self, nvml: Any) -> Any:
        if isinstance(self._which, int):
            return nvml.nvmlDeviceGetHandleByIndex(self._which)
        return nvml.nvmlDeviceGetHandleByUUID(self._which)


def _which(device: str, visible: str | None) -> int | str | None:
    """The card as NVML knows it, by number or UUID; None: it is none.

    CUDA numbers what `CUDA_VISIBLE_DEVICES` leaves; NVML sees all, in the order of the bus. Without that variable, a
    machine with unlike cards may number them otherwise in CUDA (fastest first).
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda"):
        return None
    index = int(number or 0)
    if visible is None:
        return index
    names = [name.strip() for name in visible.split(",")]
    if index >= len(names) or names[index] in ("", "-1"):
        return None
    return int(names[index]) if names[index].isdecimal() else names[index]


def _read(nvml: Any, card: Any) -> Reading:
    def ask(question: Callable[..., Any], *more: Any) -> Any:
        try:
            return question(card, *more)
        except nvml.NVMLError_NotSupported:
            return None

    name = nvml.nvmlDeviceGetName(card)
    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    load = ask(nvml.nvmlDeviceGetUtilizationRates)
    power = ask(nvml.nvmlDeviceGetPowerUsage)
    return Reading(
        name=name.decode() if isinstance(name, bytes) else str(name),
        temperature=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        memory_used=None if memory is None else memory.used,
        memory_total=None if memory is None else memory.total,
        load=None if load is None else load.gpu,
        power=None if power is None else power * MILLIWATT,
    )


def _is_own(pid: int) -> bool:
    """Whether it is this process or one of its group: torch compiles in processes of its own."""
    try:
        return pid == os.getpid() or os.getpgid(pid) == os.getpgrp()
    except OSError:
        return False
