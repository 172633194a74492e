"""Text of people's made inert, and what Discord's own markup looks like. Knows no job and no language."""

from __future__ import annotations

import math
import re
from datetime import datetime

_MARKUP = re.compile(r"([\\`*_~|<>\[\]#])")
_MENTION = re.compile(r"@(?=everyone|here|[!&]?\d)")
_INVITE = re.compile(r"(discord(?:app)?\.(?:gg|com))/", re.IGNORECASE)
_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def quoted(text: str, *, characters: int) -> str:
    """Fold `text` and make it inert: no mention, markdown, back-tick, link, invite or direction trick works in it."""
    shown = fold(_INVISIBLE.sub(" ", text), characters=characters)
    shown = _MARKUP.sub(r"\\\1", shown).replace("://", r":\//")
    return _MENTION.sub("@\u200b", _INVITE.sub(r"\1\\/", shown))


def fold(text: str, *, characters: int) -> str:
    """Shorten `text` to `characters` at most, with an ellipsis where something was left out."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def ago(moment: datetime) -> str:
    """A time that Discord shows relative to now, and that ticks on the client by itself; rounded up, not to be past."""
    return f"<t:{math.ceil(moment.timestamp())}:R>"


def message_link(guild_id: int | None, channel_id: int, message_id: int) -> str:
    """The address that jumps to a message; without a guild, of a direct message."""
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"
