"""`kiln doctor`: what would happen if Kiln started here, without starting it.

Each check is one finding with a cure. torch is asked in a process of its own, because loading it takes seconds and
the bot's side stays free of it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from bot.client import create_bot
from bot.database import check
from bot.errors import StartError
from bot.invite import PORTAL, client_id, invite_link
from bot.schema import check_folder
from bot.settings import Settings, load_settings
from gen.errors import WeightsMissing
from gen.weights import read_profile

ASK_SECONDS = 120  # for torch to load on a slow disk
_ASK_TORCH = """
import json, torch
numbers = range(torch.cuda.device_count())
free, memory = zip(*map(torch.cuda.mem_get_info, numbers)) if numbers else ((), ())
print(json.dumps({
    "version": torch.__version__,
    "cards": [torch.cuda.get_device_name(card) for card in numbers],
    "memory": memory,
    "free": free,
    "capability": [torch.cuda.get_device_capability(card) for card in numbers],
    "mps": torch.backends.mps.is_available(),
}))
"""


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  # works, but perhaps not as meant
    FAIL = "fail"  # Kiln cannot run like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found, and what cures it."""

    name: str
    status: Status
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch sees on this machine."""

    version: str
    cards: list[str]
    mps: bool
    memory: list[int] = field(default_factory=list)  # bytes, a card
    free: list[int] = field(default_factory=list)  # bytes, a card
    capability: list[tuple[int, int]] = field(default_factory=list)  # CUDA's, a card


def examine() -> list[Finding]:
    """Run all checks, in the order in which a start would need them."""
    try:
        settings = load_settings()
    except StartError as error:
        return [
            Finding(name="settings", status=Status.FAIL, detail=line, cure="Correct it in .env or the environment.")
            for line in str(error).splitlines()
        ]
    findings = [_settings(settings), _token(settings), _database(settings), *_model(settings)]
    findings.append(_commands())
    return findings


def report(findings: list[Finding], *, as_json: bool) -> Iterator[str]:
    """The findings as lines for a person, or as one JSON text."""
    if as_json:
        yield json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)
        return
    for finding in findings:
        yield f"{finding.status:<4}  {finding.name}: {finding.detail}"
        if finding.cure:
            yield f"      {finding.cure}"


def _settings(settings: Settings) -> Finding:
    limits = settings.limits
    detail = (
        f"{limits.waiting_per_user} waiting jobs and {limits.pictures_per_hour} pictures an hour for one person, "
        f"{limits.burst} in a row; log level {settings.log_level}"
    )
    return Finding(name="settings", status=Status.OK, detail=detail)


def _token(settings: Settings) -> Finding:
    token = settings.token
    if not token:
        cure = "Only `kiln run` needs one; run it and it says where to get the token."
        return Finding(name="token", status=Status.WARN, detail="DISCORD_TOKEN is not set", cure=cure)
    if client_id(token) is None:
        cure = f"Copy it again: {PORTAL}, your application, Bot, Reset Token."
        return Finding(name="token", status=Status.WARN, detail="DISCORD_TOKEN does not look like a token", cure=cure)
    invite = f"To invite the bot to a server, open {invite_link(token)}"
    return Finding(name="token", status=Status.OK, detail="DISCORD_TOKEN is set", cure=invite)


def _database(settings: Settings) -> Finding:
    path = settings.database
    if not path.exists():
        return _new_database(path)
    try:
        check_folder(path)
        found = check(path)
    except StartError as error:
        return Finding(name="database", status=Status.FAIL, detail=str(error), cure="See the line above.")
    detail = f"{path}: {found.jobs} jobs, schema {found.revision}"
    if found.revision != found.head:
        detail += f"; the next start upgrades it to {found.head}, after a copy"
    return Finding(name="database", status=Status.OK, detail=detail)


def _new_database(path: Path) -> Finding:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    try:
        check_folder(folder / path.name)
    except StartError as error:
        cure = "Choose a folder that can be written, with KILN_DATA."
        return Finding(name="database", status=Status.FAIL, detail=str(error), cure=cure)
    return Finding(name="database", status=Status.OK, detail=f"{path} will be made at the first start")


def _model(settings: Settings) -> list[Finding]:
    """Weights and device, and in one sentence what will draw here."""
    try:
        profile = read_profile(settings.weights)
    except WeightsMissing as error:
        cure = "Set KILN_WEIGHTS to a complete folder, or leave it out for the demo model."
        return [Finding(name="weights", status=Status.FAIL, detail=str(error), cure=cure), _device(settings)[0]]
    device, place = _device(settings)
    kind = "the small demo model" if profile.is_demo else profile.name
    detail = f"{profile.name} in {settings.weights}, {profile.width}x{profile.height}, {profile.steps} steps"
    weights = Finding(name="weights", status=Status.OK, detail=detail)
    if device.status is Status.FAIL:
        return [weights, device]
    return [weights, device, Finding(name="here", status=Status.OK, detail=f"draws on {place} with {kind}")]


def _device(settings: Settings, *, ask: Callable[[], Torch] | None = None) -> tuple[Finding, str]:
    """The finding, and the words for where Kiln draws."""
    try:
        torch = (ask or ask_torch)()
    except StartError as error:
        cure = "Install Kiln's dependencies again: make demo, or pip install -e ."
        return Finding(name="device", status=Status.FAIL, detail=str(error), cure=cure), ""
    wanted, cards = settings.device, torch.cards
    number = int(wanted.partition(":")[2] or 0) if wanted.startswith("cuda") else 0
    if wanted.startswith("cuda") and number >= len(cards):
        seen = f"torch {torch.version} sees {len(cards)} cards"
        cure = "Set KILN_DEVICE=auto, or install the card's driver and a torch that is built for it."
        return Finding(name="device", status=Status.FAIL, detail=f"KILN_DEVICE is {wanted}, but {seen}", cure=cure), ""
    if wanted == "mps" and not torch.mps:
        seen = f"torch {torch.version} sees no graphics chip of a Mac"
        cure = "Set KILN_DEVICE=auto, or install a torch that is built for it."
        return Finding(name="device", status=Status.FAIL, detail=f"KILN_DEVICE is mps, but {seen}", cure=cure), ""
    if cards and wanted not in ("cpu", "mps"):
        return Finding(name="device", status=Status.OK, detail=f"{cards[number]}, torch {torch.version}"), cards[number]
    place = "the Mac's graphics chip" if torch.mps and wanted != "cpu" else "the CPU"
    return Finding(name="device", status=Status.OK, detail=f"{place}, torch {torch.version}"), place


def ask_torch() -> Torch:
    """Ask torch, in a process of its own, what it sees; StartError if it cannot be loaded."""
    if importlib.util.find_spec("torch") is None:
        raise StartError("torch is not installed")
    command = [sys.executable, "-c", _ASK_TORCH]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
        seen = json.loads(asked.stdout)
        seen["capability"] = [tuple(pair) for pair in seen["capability"]]
        return Torch(**seen)
    except subprocess.TimeoutExpired as error:
        raise StartError(f"torch did not load within {ASK_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        last = (str(error.stderr).strip().splitlines() or ["no message"])[-1]
        raise StartError(f"torch cannot be loaded: {last}") from error


def _commands() -> Finding:
    payloads = asyncio.run(create_bot().payloads())
    names = ", ".join(f"/{payload['name']}" if payload.get("type", 1) == 1 else payload["name"] for payload in payloads)
    return Finding(name="commands", status=Status.OK, detail=names)
