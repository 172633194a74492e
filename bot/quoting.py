"""Text of people's, made inert: whatever they wrote, it shows as those characters and does nothing.

For prompts, reasons, rules, names of servers, roles, styles and LoRAs, wherever they go into a message. Knows no
Discord but its markup: mentions, markdown, links and their previews, invites, timestamps, custom emoji. Characters
that show nothing or turn the direction of a line become a space or go; what builds emoji and scripts stays.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

MARKS_MAX = 4  # combining marks on one letter: more climb over the lines around

_MARKUP = re.compile(r"([\\`*_~|<>\[\]#])")
_MENTION = re.compile(r"@(?=everyone|here|[!&]?\d)", re.IGNORECASE)
_CHANNEL = re.compile(r"\\<\\#(\d{1,20})\\>")  # a channel's mention, escaped
_INVITE = re.compile(r"(discord(?:app)?\.(?:gg|com))/", re.IGNORECASE)
_LIST = re.compile(r"^(\s*)(?:([-+])|(\d+)(\.))(?=\s|$)")
# Controls, soft hyphen, grapheme joiner, fillers, bidi marks, embeddings and isolates, zero width, interlinear
# notes, tags, private use, halves of pairs.
_INVISIBLE = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\ue000-\uf8ff\ud800-\udfff\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_STRAY_JOINER = re.compile("(?<![^\u0000-\u02ff])[\u200c\u200d\ufe00-\ufe0f]+|[\u200c\u200d]+(?![^\u0000-\u02ff])")
_JOINERS = re.compile("([\u200c\u200d])[\u200c\u200d]+")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_CLIMBING = re.compile(f"({_MARK}{{{MARKS_MAX}}}){_MARK}+")


def quoted(text: str, *, characters: int) -> str:
    """Fold `text` and make it inert: no mention, markdown, back-tick, link, invite or direction trick works in it.

    At most twice as many characters long.
    """
    shown = fold(visible(text), characters=characters)
    shown = _MARKUP.sub(r"\\\1", shown).replace("://", r":\//")
    shown = _LIST.sub(lambda at: f"{at[1]}\\{at[2]}" if at[2] else f"{at[1]}{at[3]}\\{at[4]}", shown)
    return _MENTION.sub("@\u200b", _INVITE.sub(r"\1\\/", shown))


def quoted_within(text: str, room: int, *, characters: int) -> str:
    """The same in `room` characters, escapes counted; of `text` no more than `characters`."""
    while len(shown := quoted(text, characters=characters)) > room and characters > 1:
        characters -= max(1, (len(shown) - room) // 2)  # each is one or two characters long when shown
    return shown


def explained(text: str, *, characters: int) -> str:
    """A sentence of Kiln's own with people's words in it: as `quoted`, but channels are linked: that pings nobody."""
    return _CHANNEL.sub(r"<#\1>", quoted(text, characters=characters))


def visible(text: str) -> str:
    """One line without what shows nothing or steers how the rest is shown; markup stays. For menus and alt texts."""
    text = _JOINERS.sub(r"\1", _STRAY_JOINER.sub("", _INVISIBLE.sub(" ", text)))
    return _CLIMBING.sub(r"\1", text)


def fold(text: str, *, characters: int) -> str:
    """Shorten `text` to `characters` at most, with an ellipsis where something was left out."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def ago(moment: datetime) -> str:
    """A time that Discord shows relative to now, and that ticks on the client by itself; rounded up, not to be past."""
    return f"<t:{math.ceil(moment.timestamp())}:R>"


def at(moment: datetime) -> str:
    """A time as Discord shows it to each in their own time zone; rounded up, so that coming back then works."""
    return f"<t:{math.ceil(moment.timestamp())}:f>"


def from_then(moment: datetime) -> str:
    """A time of day and how far it is, for a sentence that is as true when it has passed."""
    return f"<t:{math.ceil(moment.timestamp())}:t> ({ago(moment)})"


def message_link(guild_id: int | None, channel_id: int, message_id: int) -> str:
    """The address that jumps to a message; without a guild, of a direct message."""
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"
