"""What torch sees on this machine, asked in a process of its own: it loads for seconds, and the bot has none."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, field

from bot.errors import StartError

ASK_SECONDS = 120  # for torch to load on a slow disk
_ASK = """
import json, sys, warnings
import torch
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    numbers = range(torch.cuda.device_count())
    torch.cuda.is_available()
free, memory = zip(*map(torch.cuda.mem_get_info, numbers)) if numbers else ((), ())
def link(number):
    from gen.streaming.ceilings import measure_link
    try:
        return measure_link(torch.device("cuda", number))
    except RuntimeError:
        return 0.0
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "built_for": torch.cuda.get_arch_list() if numbers else [],
    "cards": [torch.cuda.get_device_name(card) for card in numbers],
    "memory": memory,
    "free": free,
    "capability": [torch.cuda.get_device_capability(card) for card in numbers],
    "link": [link(card) for card in numbers],
    "mps": torch.backends.mps.is_available(),
    "complaint": str(told[0].message) if told else "",
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch sees on this machine."""

    version: str
    cards: list[str]
    mps: bool
    cuda: str | None = None  # the version that it is built with
    built_for: list[str] = field(default_factory=list)  # "sm_75", the capabilities that it has kernels for
    memory: list[int] = field(default_factory=list)  # bytes, a card
    free: list[int] = field(default_factory=list)  # bytes, a card
    capability: list[tuple[int, int]] = field(default_factory=list)  # CUDA's, a card
    link: list[float] = field(default_factory=list)  # pinned bytes a second to a card, measured; 0 if that failed
    complaint: str = ""  # why it sees no card, where it says so


def ask_torch() -> Torch:
    """Ask torch, in a process of its own, what it sees; StartError if it cannot be loaded."""
    if importlib.util.find_spec("torch") is None:
        raise StartError("torch is not installed")
    command = [sys.executable, "-c", _ASK]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
        seen = json.loads((asked.stdout.splitlines() or [""])[-1])  # others may print before
        seen["capability"] = [tuple(pair) for pair in seen["capability"]]
        return Torch(**seen)
    except subprocess.TimeoutExpired as error:
        raise StartError(f"torch did not load within {ASK_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        last = (str(error.stderr).strip().splitlines() or ["no message"])[-1]
        raise StartError(f"torch cannot be loaded: {last}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StartError(f"torch was asked, and answers nonsense: {asked.stdout[-80:]!r}") from error
