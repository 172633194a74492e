"""`kiln doctor` about what draws: torch, the driver, the card, what its capability means, its link, and the plan.

Each check is a function of what torch said and the settings. Knows no torch.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bot.doctor.finding import Finding, fail, ok, warn
from bot.doctor.plan import plan_here
from bot.doctor.torch_side import Torch
from bot.errors import StartError
from bot.host.card_reader import Reading
from bot.host.courtesy import believable, unheeded
from bot.queue.estimates import PRIOR_SECONDS_DEMO
from bot.settings import Settings
from gen.errors import GenerationError
from gen.request import ModelProfile
from gen.streaming.cards import known_card
from gen.streaming.planner import gib

TORCH_MIN = (2, 9)  # as in pyproject.toml
DRIVER = Path("/proc/driver/nvidia/version")  # only where NVIDIA's kernel module is loaded; not under WSL
_FLOAT8, _BFLOAT16 = (8, 9), (8, 0)
_SLOW_LINK = 0.6  # of the table's

log = logging.getLogger(__name__)


def card_number(device: str) -> int:
    """Which card KILN_DEVICE means."""
    return int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0


def has_card(torch: Torch, device: str) -> bool:
    """Whether Kiln draws on a card with these settings."""
    return device not in ("cpu", "mps") and card_number(device) < len(torch.cards)


def torch_version(torch: Torch) -> Finding:
    """New enough, and what it is built with."""
    found = re.match(r"(\d+)\.(\d+)", torch.version)
    least = ".".join(map(str, TORCH_MIN))
    if found is None or (int(found[1]), int(found[2])) < TORCH_MIN:
        detail = f"torch {torch.version} is too old: Kiln needs {least} or newer"
        return fail("torch", detail, "Install Kiln again with its pinned versions: make run, or pip install -e .")
    built = f"built with CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
    return ok("torch", f"torch {torch.version}, {built}")


def driver(torch: Torch, settings: Settings, *, told: Path = DRIVER) -> Finding:
    """NVIDIA's driver, and whether torch can use it."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", told.read_text("utf-8", "replace"))
    except OSError:
        found = None
    version = found[0] if found else "of unknown version"
    if torch.cards:
        return ok("driver", f"NVIDIA's driver {version}")
    if not told.exists():
        cure = "Install NVIDIA's driver, or set KILN_DEVICE=auto." if settings.device.startswith("cuda") else ""
        detail = "no NVIDIA driver is loaded"
        return fail("driver", detail, cure) if cure else ok("driver", f"{detail}: Kiln draws without one")
    if torch.cuda is None:
        detail = f"NVIDIA's driver {version} is loaded, but torch {torch.version} is built without CUDA"
        return warn("driver", detail, "Install a torch that is built with CUDA: see https://pytorch.org/get-started.")
    detail = f"NVIDIA's driver {version} is loaded, but torch sees no card: {torch.complaint or 'it says no reason'}"
    return warn(
        "driver", detail, f"Update the driver to one for CUDA {torch.cuda} or newer, and start the machine anew."
    )


def device(torch: Torch, settings: Settings, profile: ModelProfile | None) -> tuple[Finding, str]:
    """The finding, and the words for where Kiln draws; no words where it cannot."""
    wanted, cards = settings.device, torch.cards
    number = card_number(wanted)
    if wanted.startswith("cuda") and number >= len(cards):
        detail = f"KILN_DEVICE is {wanted}, but torch {torch.version} sees {len(cards)} cards"
        return fail(
            "device", detail, "Set KILN_DEVICE=auto, or install the card's driver and a torch built for it."
        ), ""
    if wanted == "mps" and not torch.mps:
        detail = f"KILN_DEVICE is mps, but torch {torch.version} sees no graphics chip of a Mac"
        return fail("device", detail, "Set KILN_DEVICE=auto, or install a torch that is built for it."), ""
    if has_card(torch, wanted):
        room = f", {gib(torch.free[number])} of {gib(torch.memory[number])} free" if torch.memory else ""
        return ok("device", f"{cards[number]}{room}"), cards[number]
    if torch.mps and wanted != "cpu":
        return _mps(), "the Mac's graphics chip"
    if profile is not None and not profile.is_demo:
        detail = "the CPU alone: a model of this size takes hours a picture on it"
        return warn(
            "device", detail, "Use a machine with an NVIDIA card of 6 GB or more, or the demo model."
        ), "the CPU"
    return ok("device", "the CPU alone: enough for the small demo model"), "the CPU"


def _mps() -> Finding:
    detail = "the Mac's graphics chip, in bfloat16; untested: nobody has drawn with it yet"
    if os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1":
        return warn("device", detail, "Tell us how it went; KILN_DEVICE=cpu works in any case.")
    return warn("device", detail, "Set PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment, for what the chip cannot.")


def on_card(torch: Torch, settings: Settings) -> Iterator[Finding]:
    """What there is to say of the card that draws; nothing without one."""
    if has_card(torch, settings.device) and torch.memory:
        number = card_number(settings.device)
        yield capability(torch, number)
        yield link(torch, number)


def capability(torch: Torch, number: int) -> Finding:
    """What the card's compute capability means for Kiln."""
    found = torch.capability[number]
    name = f"{found[0]}.{found[1]}"
    oldest = min((int(kind[3:]) for kind in torch.built_for if re.fullmatch(r"sm_\d+", kind)), default=0)
    if found[0] * 10 + found[1] < oldest:
        detail = f"{name}: torch {torch.version} has no kernels for it, only from {oldest // 10}.{oldest % 10} on"
        return fail("capability", detail, "Use a newer card, or KILN_DEVICE=cpu with the demo model.")
    if found >= _FLOAT8:
        return ok("capability", f"{name}: float8 tensor cores, so float8 saves memory and time")
    if found >= _BFLOAT16:
        return ok("capability", f"{name}: float8 for storage only; it saves memory here, not time")
    detail = f"{name}: float8 saves memory here, not time; bfloat16 is emulated, which is slow"
    return warn("capability", detail, "It draws, slowly; a card of the RTX 30 series or newer is several times faster.")


def link(torch: Torch, number: int) -> Finding:
    """How fast weights reach the card, beside what its kind reaches."""
    measured = torch.link[number] if number < len(torch.link) else 0.0
    if not measured:
        cure = "Close what else uses the card or the host's memory, and ask again."
        return warn("link", "the way to the card could not be measured: 256 MiB were not free", cure)
    usual = known_card(torch.cards[number], memory_bytes=torch.memory[number], capability=torch.capability[number])
    detail = f"{measured / 1e9:.1f} GB/s from pinned memory to the card"
    if measured < _SLOW_LINK * usual.link_bytes_s:
        detail += f", where {usual.link_bytes_s / 1e9:.0f} are usual"
        return warn(
            "link",
            detail,
            "Put the card into the slot next to the CPU, without a riser; see its lanes with nvidia-smi.",
        )
    return ok("link", detail)


def sensors(torch: Torch, settings: Settings, read: Callable[[], Reading | None]) -> Iterator[Finding]:
    """What the card says of itself, and whether that suffices for what is asked; nothing where nothing is."""
    manners = replace(settings.manners, gives_way=False)  # for that Kiln must draw already
    try:
        reading = believable(read())
    except Exception:  # a driver may fail in any way
        log.debug("the card cannot be read", exc_info=True)
        reading = None
    cure = "Install all of the driver (libnvidia-ml); a container needs the capability `utility`."
    if trouble := "; ".join(unheeded(manners, reading)):
        yield warn("sensors", trouble, cure)
    elif has_card(torch, settings.device) and reading is None:
        detail = "NVML, the driver's library, does not answer: Kiln cannot give way to other programs, nor show heat"
        yield warn("sensors", detail, cure)
    elif reading is not None:
        told = ((reading.temperature, "°C"), (reading.power, "W"), (reading.load, "% busy"))
        yield ok("sensors", ", ".join(f"{value:.0f} {unit}" for value, unit in told if value is not None) or "silent")


def plan(torch: Torch, settings: Settings, profile: ModelProfile) -> Finding:
    """What would rest on the card, and how long a picture takes."""
    size = f"{profile.width}x{profile.height}, {profile.steps} steps"
    if profile.is_demo and not has_card(torch, settings.device):
        return ok("plan", f"about {PRIOR_SECONDS_DEMO:.0f} s a picture ({size}); measured once it has drawn")
    try:
        _, made = plan_here(settings, settings.vram_budget or "all", size=None, ask=lambda: torch)
    except (GenerationError, StartError) as error:
        return fail("plan", str(error), "Free the card's memory, lower KILN_VRAM_BUDGET, or ask for smaller pictures.")
    seconds = f"{made.seconds.picture:.1f} s a picture ({size}), an estimate"
    if not has_card(torch, settings.device):
        return warn("plan", f"no card: {seconds} for a 24 GiB card, far more here", "See the line about the device.")
    resting = f"{len(made.rung.resident)} of {made.blocks} blocks rest on the card"
    return ok(
        "plan", f"{seconds}; {gib(made.memory.peak)} of its memory, {resting}; `kiln doctor --plan all` shows more"
    )
