"""`kiln doctor` about Discord: is the token taken, of which application, what may it do in each server, and the clock.

Asks Discord's HTTP side twice and changes nothing there. Never shows the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import discord
from discord.http import Route

from bot.doctor.finding import Finding, fail, ok, warn
from bot.errors import StartError
from bot.invite import PERMISSIONS, PORTAL, SCOPES, invite_link

ASK_SECONDS = 10.0
SKEW_WARN, SKEW_FAIL = timedelta(seconds=5), timedelta(minutes=5)
_PRIVILEGED = {"gateway_presence": "Presence", "gateway_guild_members": "Server Members"}
_PRIVILEGED |= {"gateway_message_content": "Message Content"}
_SERVERS_SHOWN = 200  # Discord's page


class Refused(StartError):
    """Discord answered, and not with what was asked for."""

    def __init__(self, status: int, path: str) -> None:
        super().__init__(f"Discord answers {status} to GET {path}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What Discord said."""

    application: Mapping[str, Any]
    servers: list[Mapping[str, Any]]
    date: str  # of its clock, as HTTP has it
    asked_at: datetime  # aware UTC, by our clock


def on_discord(token: str, *, data: Path, now: Callable[[], datetime]) -> list[Finding]:
    """The findings about a token that looks like one."""
    try:
        answers = asyncio.run(_ask(token, now))
    except Refused as error:
        if error.status == 401:
            cure = f"Copy it again: {PORTAL}, your application, Bot, Reset Token."
            return [fail("discord", "Discord does not accept DISCORD_TOKEN", cure)]
        return [warn("discord", str(error), "Ask again in a while; see https://discordstatus.com.")]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        detail = f"Discord cannot be reached: {error or type(error).__name__}"
        return [fail("discord", detail, "Check this machine's network, its DNS and its clock.")]
    return [
        _signed_in(answers, data),
        _flags(answers),
        clock(answers.date, answers.asked_at),
        *_servers(answers, token),
    ]


async def _ask(token: str, now: Callable[[], datetime]) -> Answers:
    headers = {
        "Authorization": f"Bot {token}",
        "User-Agent": discord.http.HTTPClient(asyncio.get_running_loop()).user_agent,
    }
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        application, date = await _get(session, "/applications/@me")
        asked_at = now()
        servers, _ = await _get(session, f"/users/@me/guilds?limit={_SERVERS_SHOWN}")
    return Answers(application=application, servers=servers, date=date, asked_at=asked_at)


async def _get(session: aiohttp.ClientSession, path: str) -> tuple[Any, str]:
    async with session.get(Route.BASE + path) as answer:
        if answer.status != 200:
            raise Refused(answer.status, path.partition("?")[0])
        return await answer.json(), answer.headers.get("Date", "")


def _signed_in(answers: Answers, data: Path) -> Finding:
    application = answers.application
    detail = f"signed in as {application['name']} (application {application['id']}), in {len(answers.servers)} servers"
    before = _used_before(data)
    if before and before != str(application["id"]):
        detail = f"{detail}; {data} was last used by application {before}, another bot"
        cure = "Put that bot's token back, or choose a new KILN_DATA: a bot cannot edit another one's cards."
        return warn("discord", detail, cure)
    return ok("discord", detail)


def _used_before(data: Path) -> str:
    """The application that told Discord its commands from this data folder; empty if that is not known."""
    try:
        return (data / "commands.sha256").read_text("utf-8").partition(" ")[2].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _flags(answers: Answers) -> Finding:
    """How the application is set up in the developer portal."""
    application = answers.application
    if application.get("bot_require_code_grant"):
        cure = f"{PORTAL}, your application, Bot: switch off Requires OAuth2 Code Grant."
        return fail("application", "nobody can invite the bot: it requires an OAuth2 code grant", cure)
    flags = discord.ApplicationFlags._from_value(int(application.get("flags", 0)))
    asked = [
        name
        for flag, name in _PRIVILEGED.items()
        if getattr(flags, flag, False) or getattr(flags, f"{flag}_limited", False)
    ]
    if asked:
        cure = f"{PORTAL}, your application, Bot: switch them off. Kiln needs none, and fewer rights can be abused."
        return warn("application", f"privileged intents are on: {', '.join(asked)}", cure)
    public = "anyone may invite it" if application.get("bot_public", True) else "only its owner may invite it"
    return ok("application", f"no privileged intents; {public}")


def clock(date: str, ours: datetime) -> Finding:
    """This machine's clock beside Discord's; `date` is HTTP's, to the second."""
    try:
        off = ours - parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return ok("clock", "Discord did not tell its time")
    seconds = off.total_seconds()
    detail = f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} Discord's"
    cure = "Switch on time synchronisation: timedatectl set-ntp true. Times on cards and limits would be wrong."
    if abs(off) >= SKEW_FAIL:
        return fail("clock", detail, cure)
    return warn("clock", detail, cure) if abs(off) >= SKEW_WARN else ok("clock", detail)


def _servers(answers: Answers, token: str) -> list[Finding]:
    """One line for each server: may the bot do there what it needs?"""
    if not answers.servers:
        detail = "the bot is in no server yet"
        return [warn("servers", detail, f"Invite it, with the scopes {' and '.join(SCOPES)}: {invite_link(token)}")]
    return [_server(server, token) for server in answers.servers]


def _server(server: Mapping[str, Any], token: str) -> Finding:
    name = "server " + "".join(letter for letter in str(server["name"]) if letter.isprintable())
    has = discord.Permissions(int(server.get("permissions", 0)))
    missing = [right for right, wanted in PERMISSIONS if wanted and not (has.administrator or getattr(has, right))]
    if missing:
        words = ", ".join(right.replace("_", " ").title() for right in missing)
        cure = f"Give its role these rights (Server Settings, Roles), or invite it again: {invite_link(token)}"
        return warn(name, f"the bot lacks {words}", cure)
    return ok(name, "all permissions that Kiln needs; channels may take some away")
