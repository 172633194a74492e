"""What a job is: the values that the queue takes and returns. Frozen, and free of Discord and of the database.

A job's life, each arrow one committed transaction:

    held (a moderator is to look at its words, or its server is paused)
      │  ▲
      ▼  │
    queued ──► running ──► drawn ──► delivered, kept (nobody could be reached), reply_unknown
      │  ▲        │
      │  └────────┤  requeued: by a drain (not counted), or at start after the process died
      ▼           ▼
    cancelled   cancelled, failed (with a reason), quarantined (its process died under it twice)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.language import Message, msg
from gen.request import ImageRequest

JOB_ID_MAX = 2**53 - 1  # Discord's largest integer


class JobStatus(StrEnum):
    """Where a job stands; stored by value."""

    HELD = "held"  # not in line: waits for a moderator, or for its server's pause to end; see holding.py
    QUEUED = "queued"  # waits for the GPU
    RUNNING = "running"  # is being drawn, or its process died
    DRAWN = "drawn"  # its picture is on disk, not yet posted
    DELIVERED = "delivered"  # its picture was posted
    KEPT = "kept"  # neither its channel nor its owner takes the picture: it is on disk, and cost nothing
    REPLY_UNKNOWN = "reply_unknown"  # posted or not, nobody can tell; never posted again
    CANCELLED = "cancelled"  # by its owner, or a moderator; then `reason` says why
    FAILED = "failed"  # broken while running; `reason` says why
    QUARANTINED = "quarantined"  # its process died under it twice; never tried again


STATUS_WORDS = {
    JobStatus.HELD: msg("held"),
    JobStatus.QUEUED: msg("waiting"),
    JobStatus.RUNNING: msg("being drawn"),
    JobStatus.DRAWN: msg("drawn"),
    JobStatus.DELIVERED: msg("delivered"),
    JobStatus.KEPT: msg("kept"),
    JobStatus.REPLY_UNKNOWN: msg("perhaps delivered"),
    JobStatus.CANCELLED: msg("cancelled"),
    JobStatus.FAILED: msg("failed"),
    JobStatus.QUARANTINED: msg("set aside"),
}


HAD_A_PICTURE = frozenset({JobStatus.DELIVERED, JobStatus.KEPT, JobStatus.REPLY_UNKNOWN})


class Verb(StrEnum):
    """How a job was made from another; stored by value."""

    REROLL = "reroll"  # another seed
    EDIT = "edit"
    SUBTLE = "subtle"  # a little of another noise mixed in
    STRONG = "strong"  # much of it
    REPRODUCE = "reproduce"  # the same again, to compare
    RETRY = "retry"  # the same again, after a failure
    REMIX = "remix"  # from the recipe of a picture


class LetterState(StrEnum):
    """Where a picture in the outbox stands; stored by value."""

    WAITING = "waiting"  # no message of it can stand anywhere
    SENDING = "sending"  # a send was begun: its message may stand there, whatever was answered


class OverLimit(StrEnum):
    """What becomes of a job over its owner's rate."""

    REFUSE = "refuse"
    DEFER = "defer"  # it waits until the rate allows it, or until nobody else waits


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A request as it comes from Discord. Ids are Discord snowflakes."""

    interaction_id: int
    user_id: int
    guild_id: int
    channel_id: int
    request: ImageRequest
    parent_channel_id: int | None = None  # where a thread hangs
    role_ids: tuple[int, ...] = ()  # the person's roles in this server, everyone's among them
    age_restricted: bool = False  # the channel, or the one above a thread
    number: int = 0  # of the interaction's jobs, from 0
    count: int = 1  # how many these are
    parent_id: int | None = None  # the job that it is made from
    verb: Verb | None = None  # how
    style: str | None = None  # the name of a style that went into the request
    locale: str | None = None  # in which the person is answered
    private: bool = False  # for nobody else's eyes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the queue, as it was when it was read. Times are aware UTC."""

    id: int
    status: JobStatus
    interaction_id: int
    user_id: int
    guild_id: int
    channel_id: int
    card_message_id: int | None
    request: ImageRequest  # valid when it was accepted; the executor checks it again before drawing
    attempts: int  # times taken from the queue, drains not counted
    attempt_token: str | None  # of the running attempt; a result with another token is dropped
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    reason: str | None  # why it failed or is held or was cancelled for them, in words for its owner
    picture: str | None  # path relative to the data folder, with forward slashes
    result_message_id: int | None
    seconds: float | None  # on the GPU
    notice: str | None  # from the generator, one line for the owner
    parent_channel_id: int | None = None  # where a thread hangs
    number: int = 0  # of its interaction's jobs, from 0
    count: int = 1  # how many these are; they share a card
    parent_id: int | None = None  # the job that it was made from
    verb: Verb | None = None  # how
    style: str | None = None  # the name of a style that went into the request
    locale: str | None = None  # in which the person is answered
    private: bool = False  # for nobody else's eyes
    model: str | None = None  # that drew it
    result_channel_id: int | None = None  # where its picture stands; None, of older jobs: in its channel
    deleted_at: datetime | None = None  # its picture was taken away

    @property
    def is_picture_removed(self) -> bool:
        """Whether its picture was drawn and its file was removed since, to make room."""
        return self.picture is None and self.status in HAD_A_PICTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one person may ask for."""

    waiting_per_user: int = 5
    pictures_per_hour: int = 30
    burst: int = 10  # pictures at once after a pause
    gpu_seconds_per_day: float = 0.0  # from midnight to midnight UTC; 0: no such limit
    over_limit: OverLimit = OverLimit.REFUSE  # the rate; the other limits always refuse

    def __post_init__(self) -> None:
        """Raise ValueError for a count under one, or a budget under zero."""
        for name in ("waiting_per_user", "pictures_per_hour", "burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; it is {getattr(self, name)}")
        if not self.gpu_seconds_per_day >= 0:
            raise ValueError(f"gpu_seconds_per_day must be 0 or more; it is {self.gpu_seconds_per_day}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job stands in the queue."""

    position: int  # 0 is being drawn now, 1 is next
    waiting: int  # all queued jobs
    ready_at: datetime  # estimate, aware UTC; who comes later and had less of the GPU may still go before
    uncertainty: timedelta = timedelta()  # standard deviation of `ready_at`, from the spread of recent timings
    mine: int = 0  # of the jobs before it, how many are its owner's
    people: int = 0  # how many others have jobs before it
    deferred_until: datetime | None = None  # its owner was over their rate: it waits until then if others wait
    held: Message | None = None  # why nothing is drawn now; then `ready_at` is worth little


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The whole queue at a glance."""

    waiting: int  # queued jobs
    people: int  # who wait
    running_job_id: int | None
    ready_at: datetime | None  # of the last job, estimate, aware UTC; None when nothing waits or runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What became of the jobs that the last process left running."""

    requeued: tuple[Job, ...]
    quarantined: tuple[Job, ...]
