"""What a server's keepers may choose, and what they did: values, free of Discord and of the database.

Ids are Discord snowflakes. None means that the server says nothing: then the host's settings hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from gen.errors import InvalidRequest
from gen.request import STEPS_MAX, STEPS_MIN, parse_size

EVERYWHERE = 0  # stands for a server's id where the host speaks for all servers
STYLE_MAX_CHARACTERS = 80
GPU_SECONDS_MAX = 86400.0 * 7
COUNT_MAX = 3600
REASON_MAX_CHARACTERS = 300  # of a ban


class Standing(StrEnum):
    """Whether pictures are drawn; stored by value."""

    OPEN = "open"
    PAUSED = "paused"  # nothing is begun; new jobs are accepted and wait
    DRAINED = "drained"  # what waits is drawn; new jobs are refused


class LoraAccess(StrEnum):
    """Who may use LoRAs in a server; stored by value."""

    EVERYONE = "everyone"
    ROLES = "roles"  # the members of chosen roles
    NOBODY = "nobody"


class HeldFor(StrEnum):
    """Why a job is held; stored by value."""

    REVIEW = "review"  # a rule wants a moderator to look at its words
    PAUSE = "pause"  # its server is paused


class Act(StrEnum):
    """What the audit log knows; stored by value."""

    SETTINGS = "settings"
    ROLE = "role"
    ROLE_GONE = "role gone"  # it was deleted in Discord
    RULE_ADDED = "rule added"
    RULE_REMOVED = "rule removed"
    STYLE_SET = "style set"
    STYLE_REMOVED = "style removed"
    BAN = "ban"
    UNBAN = "unban"
    PAUSE = "pause"
    DRAIN = "drain"
    RESUME = "resume"
    WIPE = "wipe"
    CANCEL = "cancel"  # of somebody else's job, by its button
    DELETE = "delete"  # of somebody else's picture
    RESET = "reset"
    LOOK = "look"
    HOLD = "hold"  # by Kiln, for a rule; waits for a moderator
    FLAG = "flag"  # by Kiln, for a rule
    APPROVE = "approve"
    DENY = "deny"
    REPORT = "report"  # by a member
    SEEN = "seen"  # by the picture classifier


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """One server's settings; `ServerSettings(guild_id=…)` is one that was never touched."""

    guild_id: int
    standing: Standing = Standing.OPEN
    channel_ids: tuple[int, ...] = ()  # where Kiln answers; none: everywhere
    log_channel_id: int | None = None
    default_style: str | None = None
    size_max: str | None = None  # `1024x768`: a picture may have as many pixels as that, in any shape
    steps_max: int | None = None
    lora_access: LoraAccess = LoraAccess.EVERYONE
    lora_role_ids: tuple[int, ...] = ()
    private_allowed: bool = True
    default_rules: bool = True  # the rules that Kiln brings, but for those that always hold
    waiting_per_user: int | None = None  # as in Limits, from here on
    pictures_per_hour: int | None = None
    burst: int | None = None
    gpu_seconds_per_day: float | None = None  # of one person; 0: no such limit
    server_gpu_seconds_per_day: float | None = None  # of all together

    def __post_init__(self) -> None:
        """Raise ValueError, naming limit and value, for what a server cannot have."""
        for name in ("waiting_per_user", "pictures_per_hour", "burst"):
            _check(name, getattr(self, name), 1, COUNT_MAX)
        for name in ("gpu_seconds_per_day", "server_gpu_seconds_per_day"):
            _check(name, getattr(self, name), 0, GPU_SECONDS_MAX)
        _check("steps_max", self.steps_max, STEPS_MIN, STEPS_MAX)
        if self.size_max is not None and not self._pixels():
            raise ValueError(f"size_max must be a size such as 1024x768; it is {self.size_max!r}")
        if self.default_style is not None and not 1 <= len(self.default_style) <= STYLE_MAX_CHARACTERS:
            raise ValueError(f"default_style must have 1 to {STYLE_MAX_CHARACTERS} characters")

    @property
    def pixels_max(self) -> int | None:
        """Width times height of the largest picture."""
        return self._pixels() if self.size_max is not None else None

    def _pixels(self) -> int:
        try:
            width, height = parse_size(self.size_max or "")
        except InvalidRequest:
            return 0
        return width * height


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Somebody may ask for nothing, in one server or EVERYWHERE. Times are aware UTC."""

    guild_id: int
    user_id: int
    reason: str
    until: datetime | None  # None: until it is lifted
    by_id: int
    at: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it is still in force."""
        return self.until is None or self.until > now


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act, as the audit log keeps it. `actor_id` is who acted; 0: Kiln itself."""

    act: Act
    guild_id: int  # or EVERYWHERE
    actor_id: int = 0
    user_id: int | None = None  # whom it concerned
    job_id: int | None = None
    channel_id: int | None = None  # of a message that was reported
    message_id: int | None = None
    values: dict[str, Any] = field(default_factory=dict)  # JSON; what the act's words name beside these
    id: int = 0
    at: datetime | None = None  # aware UTC


def _check(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}; it is {value}")
