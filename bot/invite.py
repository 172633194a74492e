"""How an operator connects Kiln to a server: where the token is, and the link that invites the bot."""

from __future__ import annotations

import base64
import binascii

import discord

PORTAL = "https://discord.com/developers/applications"
SCOPES = ("bot", "applications.commands")
PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    attach_files=True,
    embed_links=True,
    read_message_history=True,
)
PERMISSION_NAMES = (
    "View Channels, Send Messages, Send Messages in Threads, Attach Files, Embed Links, Read Message History"
)


def client_id(token: str | None) -> int | None:
    """The application's id, which is a token's first part in base64; None if that cannot be read."""
    if not token or token.count(".") != 2:
        return None
    first = token.split(".", maxsplit=1)[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdecimal() and 17 <= len(decoded) <= 20 else None


def invite_link(token: str | None) -> str:
    """The link that adds the bot to a server with the permissions it needs, and no more."""
    application = client_id(token) or "YOUR_APPLICATION_ID"
    scopes = "+".join(SCOPES)
    return (
        f"https://discord.com/oauth2/authorize?client_id={application}&permissions={PERMISSIONS.value}&scope={scopes}"
    )


def how_to_connect(trouble: str, *, token: str | None) -> str:
    """What is wrong with the token, and what to do; several lines for the operator's terminal."""
    return "\n".join(
        (
            trouble,
            f"1. Open {PORTAL}, choose your application (or make one), then Bot, Reset Token, and copy the token.",
            "2. Put it into the file .env as DISCORD_TOKEN=... (see .env.example). Show it to nobody.",
            f"3. Invite the bot with the scopes {' and '.join(SCOPES)} and the permissions {PERMISSION_NAMES}:",
            f"   {invite_link(token)}",
        )
    )
