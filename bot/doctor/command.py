"""`kiln doctor`: what would happen if Kiln started here, without starting it.

Each check is one finding with a cure; the checks have families, `bot.doctor.card`, `bot.doctor.machine`,
`bot.doctor.folders` and `bot.doctor.discord_side`. Here are the order, the settings, the database and the weights, and
how findings are told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bot.client import create_bot
from bot.console.address import check_console
from bot.doctor import card as doctor_card
from bot.doctor import discord_side as doctor_discord
from bot.doctor import folders as doctor_folders
from bot.doctor import machine as doctor_host
from bot.doctor.finding import Finding, Status, fail, looked_at, ok, warn
from bot.doctor.torch_side import Torch, ask_torch
from bot.errors import StartError
from bot.host.card_reader import CardReader, Reading
from bot.host.ports import OFF, clash, host_and_port
from bot.invite import PORTAL, client_id, invite_link
from bot.settings import Settings, load_settings
from bot.storage.database import check
from bot.storage.schema import check_folder
from gen.errors import WeightsMissing
from gen.pull.store import read_listed
from gen.streaming.sizes import Precision
from gen.weight_file import stored_as
from gen.weights import DEMO_WEIGHTS, Weights, find_weights


def examine(
    *,
    ask: Callable[[], Torch] = ask_torch,
    read: Callable[[], Reading | None] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Finding]:
    """Run all checks, in the order in which a start would need them; `read` asks the card, `now` is aware UTC."""
    try:
        settings = load_settings()
    except StartError as error:
        cure = "Correct it in .env or the environment."
        return [fail("settings", line, cure) for line in str(error).splitlines()]
    weights, found = _weights(settings)
    return [
        _settings(settings),
        looked_at("database", lambda: _database(settings)),
        found,
        *_drawing(settings, weights, ask, read or CardReader(settings.device).read),
        *_host(settings, weights),
        _commands(),
        _token(settings),
        *_discord(settings, now),
    ]


def report(findings: list[Finding], *, as_json: bool) -> Iterator[str]:
    """The findings as lines for a person, or as one JSON text."""
    if as_json:
        yield json.dumps({"checks": [asdict(finding) for finding in findings]}, indent=2, ensure_ascii=False)
        return
    for finding in findings:
        yield f"{finding.status:<4}  {finding.name}: {finding.detail}"
        if finding.cure:
            yield f"      {finding.cure}"


def _settings(settings: Settings) -> Finding:
    limits = settings.limits
    return ok(
        "settings",
        f"{limits.waiting_per_user} waiting jobs and {limits.pictures_per_hour} pictures an hour for one person, "
        f"{limits.burst} in a row; log level {settings.log_level}",
    )


def _token(settings: Settings) -> Finding:
    token = settings.token
    if not token:
        cure = "Only `kiln run` needs one; run it and it says where to get the token."
        return warn("token", "DISCORD_TOKEN is not set", cure)
    if client_id(token) is None:
        cure = f"Copy it again: {PORTAL}, your application, Bot, Reset Token."
        return warn("token", "DISCORD_TOKEN does not look like a token", cure)
    return ok("token", "DISCORD_TOKEN is set", f"To invite the bot to a server, open {invite_link(token)}")


def _discord(settings: Settings, now: Callable[[], datetime]) -> list[Finding]:
    """Discord is asked only where there is something to ask it with."""
    if client_id(settings.token) is None:
        return []
    return doctor_discord.on_discord(settings.token, data=settings.data, now=now)


def _database(settings: Settings) -> Finding:
    path = settings.database
    try:
        check_folder(doctor_host.nearest(path.parent) / path.name)
        if not path.exists():
            return ok("database", f"{path} will be made at the first start")
        found = check(path)
    except StartError as error:
        return fail("database", str(error), _database_cure(path))
    detail = f"{path}: sound, {found.jobs} jobs, schema {found.revision}"
    if found.revision != found.head:
        detail += f"; the next start upgrades it to {found.head}, after a copy"
    return ok("database", detail)


def _database_cure(path: Path) -> str:
    if not path.exists():
        return "Choose a folder that can be written, with KILN_DATA."
    return (
        "Put a copy in its place (`kiln db backup` makes them, upgrades too), or choose another folder with KILN_DATA."
    )


def _weights(settings: Settings) -> tuple[Weights | None, Finding]:
    """The model's files; whole by their headers, which is quick: `kiln weights verify` reads every byte."""
    try:
        weights = find_weights(settings.weights)
        stored, listed = stored_as(weights.dit), read_listed(weights.folder)
    except WeightsMissing as error:
        cure = (
            "`kiln weights pull` fetches a model. Set KILN_WEIGHTS to a whole folder that this user can read, or "
            "leave it out for the demo's."
        )
        return None, fail("weights", str(error), cure)
    profile = weights.profile
    place = "which ships with Kiln" if weights.folder == DEMO_WEIGHTS else f"in {weights.folder}"
    detail = f"{profile.name}, {place}: {stored}, {profile.width}x{profile.height}, {profile.steps} steps"
    if not listed and weights.folder != DEMO_WEIGHTS:
        detail += "; whether its bytes are right is not known: `kiln weights verify` compares them"
    return weights, ok("weights", detail)


def _drawing(
    settings: Settings, weights: Weights | None, ask: Callable[[], Torch], read: Callable[[], Reading | None]
) -> Iterator[Finding]:
    """torch, card, plan, and in one sentence what will draw here."""
    try:
        torch = ask()
    except StartError as error:
        yield fail("torch", str(error), "Install Kiln's dependencies again: make demo, or pip install -e .")
        return
    profile = weights.profile if weights else None
    device, place = doctor_card.device(torch, settings, profile)
    yield doctor_card.torch_version(torch)
    yield doctor_card.driver(torch, settings)
    yield device
    yield from doctor_card.on_card(torch, settings)
    yield from doctor_card.sensors(torch, settings, read)
    if profile is not None and device.status is not Status.FAIL:
        yield doctor_card.plan(torch, settings, profile)
        kind = "the small demo model" if profile.is_demo else profile.name
        yield ok("here", f"draws on {place} with {kind}")


def _host(settings: Settings, weights: Weights | None) -> Iterator[Finding]:
    streams = weights is not None and not (weights.profile.is_demo and settings.tuning.is_plain)
    precision = Precision.BFLOAT16 if settings.precision == "bfloat16" else Precision.FLOAT8
    needed = doctor_host.packed_bytes(weights, precision) if weights and streams else 0
    yield doctor_host.memory(needed, most=settings.pinned_memory)
    yield looked_at("disk", lambda: doctor_host.disk(settings, needed))
    yield doctor_folders.loras(settings)
    yield doctor_folders.classifier(settings)
    yield doctor_host.web(settings)
    if settings.console:
        yield _console(settings)


def _console(settings: Settings) -> Finding:
    """May the console listen where it is told to, and is the port free?"""
    try:
        check_console(settings)
    except StartError as error:
        return fail("console", " ".join(str(error).splitlines()), "Do as it says, or leave KILN_CONSOLE out.")
    host, port = settings.console_host, settings.console_port
    if settings.web != OFF and clash((host, port), host_and_port(settings.web)):
        detail = f"{host}:{port} is where health and metrics are served too: KILN_WEB is {settings.web}"
        return fail("console", detail, "Choose another KILN_CONSOLE_PORT, or set KILN_WEB to another port, or to off.")
    cure = "Stop the program that listens there, unless it is Kiln itself, or choose another KILN_CONSOLE_PORT."
    return doctor_host.port("console", host, port, cure=cure)


def _commands() -> Finding:
    payloads = asyncio.run(create_bot().payloads())
    names = (f"/{payload['name']}" if payload.get("type", 1) == 1 else payload["name"] for payload in payloads)
    return ok("commands", ", ".join(names))
