"""The tables: jobs, people and their shares, roles, the outbox; and how a row becomes a Job. Knows no verbs.

`migrations/` must say the same as this (`kiln db check --models`).

Indexes are partial where only a few of many rows matter: a claim among 100,000 finished jobs reads one entry. SQLite
promises a partial index only to a query with the same literal condition, hence `has_status()`.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Computed,
    Date,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from bot.queue.job import Job, JobStatus, LetterState, NewJob, Verb
from bot.storage.columns import Values, stored
from gen.request import ImageRequest, LoraUse, Variation

_REALS = ("guidance", "cfg_scale")
_REQUEST_FIELDS = tuple(field.name for field in fields(ImageRequest))
_UNSHOWN = "end_shown = 0 AND status IN ('delivered', 'cancelled', 'failed', 'quarantined', 'kept', 'reply_unknown')"
_NEW_FIELDS = tuple(
    field.name for field in fields(NewJob) if field.name not in ("request", "role_ids", "age_restricted")
)
_JOB_COLUMNS = tuple(field.name for field in fields(Job) if field.name != "request")


def _stored_by_value(kind: type[StrEnum]) -> Enum:
    return Enum(kind, native_enum=False, length=16, values_callable=lambda kinds: [one.value for one in kinds])


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python, naive UTC text in SQLite, which knows no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: it could be any zone's."""
        if value is None:
            return None
        assert value.tzinfo is not None, f"a time without a zone: {value}"
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can drop it."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pk",
            "uq": "%(table_name)s_%(column_0_name)s_unique",
            "fk": "%(table_name)s_%(column_0_name)s_to_%(referred_table_name)s",
        }
    )


class UserRow(Base):
    """One person, made by their first job."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    theoretical_arrival: Mapped[datetime] = mapped_column(UtcDateTime)  # GCRA's only memory, see limits.py
    budget_day: Mapped[date | None] = mapped_column(Date)  # UTC; the day that `budget_seconds` belongs to
    budget_seconds: Mapped[float] = mapped_column(server_default=text("0"))  # GPU-seconds used or reserved that day


class AccountRow(Base):
    """A share of the GPU: everyone's, a server's or a person's; fairness.py says what the columns mean."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index("accounts_waiting", "parent_id", "vtime", "ticket", "id", sqlite_where=text("waiting > 0")),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)  # everyone, user:5, server:7, server:7/user:5
    parent_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("accounts.id"))  # None: everyone's
    weight: Mapped[float] = mapped_column(server_default=text("1"))
    vtime: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    virtual_time: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    waiting: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    ticket: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class JobRow(Base):
    """One job; see job.py for the meaning of the columns."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_queued", "id", sqlite_where=text("status = 'queued'")),
        Index("jobs_queued_by_user", "user_id", "id", sqlite_where=text("status = 'queued'")),
        Index(
            "jobs_queued_by_account",
            "account_id",
            "id",
            sqlite_where=text("status = 'queued' AND not_before IS NULL"),
        ),
        Index("jobs_deferred", "not_before", "id", sqlite_where=text("status = 'queued' AND not_before IS NOT NULL")),
        Index("jobs_held_by_user", "user_id", "id", sqlite_where=text("status = 'held'")),
        Index("jobs_running", "id", sqlite_where=text("status = 'running'")),
        Index("jobs_drawn", "id", sqlite_where=text("status = 'drawn'")),
        Index("jobs_cards", "card_message_id", sqlite_where=text("card_message_id IS NOT NULL")),
        Index("jobs_results", "result_message_id", sqlite_where=text("result_message_id IS NOT NULL")),
        Index("jobs_children", "parent_id", sqlite_where=text("parent_id IS NOT NULL")),
        Index("jobs_unshown", "id", sqlite_where=text(_UNSHOWN)),
        Index("jobs_pictures", "user_id", "id", sqlite_where=text("picture IS NOT NULL")),
        Index("jobs_timed", "finished_at", sqlite_where=text("seconds IS NOT NULL")),
        Index(
            "jobs_timed_by_shape",
            *("width", "height", "passes", "cold", "finished_at"),
            sqlite_where=text("seconds IS NOT NULL"),
        ),
        UniqueConstraint("interaction_id", "number"),
        {"sqlite_autoincrement": True},  # an id is never used again in this file: it names a picture
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)  # the order of acceptance
    status: Mapped[JobStatus] = mapped_column(_stored_by_value(JobStatus))
    interaction_id: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # of the interaction's jobs, from 0
    count: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # how many these are
    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("users.id"))
    guild_id: Mapped[int] = mapped_column(BigInteger)
    channel_id: Mapped[int] = mapped_column(BigInteger)
    parent_channel_id: Mapped[int | None] = mapped_column(BigInteger)  # of a thread
    card_message_id: Mapped[int | None] = mapped_column(BigInteger)
    prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    steps: Mapped[int] = mapped_column(Integer)
    guidance: Mapped[float]
    negative: Mapped[str] = mapped_column(Text, server_default=text("''"))
    cfg_scale: Mapped[float] = mapped_column(server_default=text("1"))
    loras: Mapped[tuple[LoraUse, ...]] = mapped_column(Values(LoraUse), server_default=text("'[]'"))
    variations: Mapped[tuple[Variation, ...]] = mapped_column(Values(Variation), server_default=text("'[]'"))
    passes: Mapped[int] = mapped_column(
        Integer, Computed("steps * (1 + (cfg_scale > 1))", persisted=False), nullable=True
    )  # through the model, see ImageRequest.passes
    parent_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("jobs.id", ondelete="SET NULL"))  # made from it
    verb: Mapped[Verb | None] = mapped_column(_stored_by_value(Verb))
    style: Mapped[str | None] = mapped_column(Text)
    locale: Mapped[str | None] = mapped_column(String(16))  # in which whoever asked is answered
    private: Mapped[bool] = mapped_column(server_default=text("0"))
    model: Mapped[str | None] = mapped_column(Text)
    result_channel_id: Mapped[int | None] = mapped_column(BigInteger)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer)
    attempt_token: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(Text)
    picture: Mapped[str | None] = mapped_column(Text)
    result_message_id: Mapped[int | None] = mapped_column(BigInteger)
    seconds: Mapped[float | None]
    notice: Mapped[str | None] = mapped_column(Text)
    account_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("accounts.id"))  # who is charged
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)  # deferred: others go first until then
    charge: Mapped[float | None]  # GPU-seconds, what the last claim charged the account
    weight: Mapped[float | None]  # of the account at that claim
    reserved: Mapped[float | None]  # GPU-seconds of the day's budget, from submit on
    rate_seconds: Mapped[float | None]  # what it took from its owner's rate
    cold: Mapped[bool] = mapped_column(server_default=text("0"))  # the first drawing of its process
    end_shown: Mapped[bool] = mapped_column(server_default=text("0"))  # people saw the end, or Discord takes no word
    pictures_lost: Mapped[int] = mapped_column(server_default=text("0"))  # times its file was gone before it was posted


class OutboxRow(Base):
    """A drawn picture on its way to people; written with the result, gone when people have it or cannot get it."""

    __tablename__ = "outbox"

    job_id: Mapped[int] = mapped_column(Integer, ForeignKey("jobs.id"), primary_key=True, autoincrement=False)
    nonce: Mapped[str] = mapped_column(String(25))  # Discord's limit
    state: Mapped[LetterState] = mapped_column(_stored_by_value(LetterState))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    tried_channel_id: Mapped[int | None] = mapped_column(BigInteger)  # where a message of it may stand
    next_try_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)  # of the last try


class DeadChannelRow(Base):
    """A channel that took no picture; it is not asked again before `until`."""

    __tablename__ = "dead_channels"

    channel_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    until: Mapped[datetime] = mapped_column(UtcDateTime)
    error: Mapped[str] = mapped_column(Text)


class RoleRow(Base):
    """What the members of a role may have; None: what everybody may."""

    __tablename__ = "roles"

    guild_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    role_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    weight: Mapped[float | None]
    waiting_per_user: Mapped[int | None] = mapped_column(Integer)
    pictures_per_hour: Mapped[int | None] = mapped_column(Integer)
    burst: Mapped[int | None] = mapped_column(Integer)
    gpu_seconds_per_day: Mapped[float | None]


def has_status(status: JobStatus) -> ColumnElement[bool]:
    """`status = '…'` as a literal, which lets SQLite use the partial index of that status."""
    return JobRow.status == literal_column(f"'{status.value}'")


def is_unshown() -> ColumnElement[bool]:
    """Over, and nobody may have seen it; as a literal for the same reason."""
    return literal_column(_UNSHOWN)


def to_row(new: NewJob, *, created_at: datetime) -> JobRow:
    """A queued row for a new job; the database gives it its id."""
    return JobRow(
        status=JobStatus.QUEUED,
        attempts=0,
        created_at=created_at,
        **{name: getattr(new, name) for name in _NEW_FIELDS},
        **{name: getattr(new.request, name) for name in _REQUEST_FIELDS},
    )


def to_job(row: JobRow) -> Job:
    """The frozen value of a row."""
    values = {name: getattr(row, name) for name in _JOB_COLUMNS}
    return Job(request=_stored_request(row), **values)


def _stored_request(row: JobRow) -> ImageRequest:
    """The request as it was accepted, not validated again.

    It was valid then. If the limits have changed since, the executor refuses it with words for its owner; refusing
    here would make the row unreadable for every verb.
    """
    values = {name: getattr(row, name) for name in _REQUEST_FIELDS}
    for name in _REALS:  # SQLite's RETURNING gives a whole real as an integer; a recipe would say 5 for 5.0
        values[name] = float(values[name])
    request: ImageRequest = stored(ImageRequest, values)
    return request
