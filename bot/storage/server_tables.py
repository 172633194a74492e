"""The tables of servers and their keepers: settings, bans, the audit log, rules, held jobs. Knows no verbs.

`migrations/` must say the same as this (`kiln db check --models`).
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    Enum,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bot.servers.policy import Action, Where
from bot.servers.server import Act, HeldFor, LoraAccess, Standing
from bot.storage.tables import Base, UtcDateTime


def _by_value(kind: type[StrEnum]) -> Enum:
    return Enum(kind, native_enum=False, length=16, values_callable=lambda kinds: [one.value for one in kinds])


class ServerRow(Base):
    """One server's settings, see server.py; made by the first change. Its id may be EVERYWHERE."""

    __tablename__ = "servers"

    guild_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    standing: Mapped[Standing] = mapped_column(_by_value(Standing), server_default=Standing.OPEN.value)
    channel_ids: Mapped[list[int]] = mapped_column(JSON, server_default="[]")
    log_channel_id: Mapped[int | None] = mapped_column(BigInteger)
    default_style: Mapped[str | None] = mapped_column(Text)
    size_max: Mapped[str | None] = mapped_column(String(16))
    steps_max: Mapped[int | None] = mapped_column(Integer)
    lora_access: Mapped[LoraAccess] = mapped_column(_by_value(LoraAccess), server_default=LoraAccess.EVERYONE.value)
    lora_role_ids: Mapped[list[int]] = mapped_column(JSON, server_default="[]")
    private_allowed: Mapped[bool] = mapped_column(server_default=text("1"))
    default_rules: Mapped[bool] = mapped_column(server_default=text("1"))
    waiting_per_user: Mapped[int | None] = mapped_column(Integer)
    pictures_per_hour: Mapped[int | None] = mapped_column(Integer)
    burst: Mapped[int | None] = mapped_column(Integer)
    gpu_seconds_per_day: Mapped[float | None]
    server_gpu_seconds_per_day: Mapped[float | None]
    budget_day: Mapped[date | None] = mapped_column(Date)  # UTC; the day that `budget_seconds` belongs to
    budget_seconds: Mapped[float] = mapped_column(server_default=text("0"))  # GPU-seconds used or reserved that day


class BanRow(Base):
    """Who may ask for nothing, in one server or EVERYWHERE."""

    __tablename__ = "bans"

    guild_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    by_id: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """One act; it commits with what it tells of, and is the log channel's outbox as well."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_of_server", "guild_id", "id"),
        Index("audit_unposted", "id", sqlite_where=text("posted = 0")),
        Index("audit_of_message", "message_id", sqlite_where=text("message_id IS NOT NULL")),
        {"sqlite_autoincrement": True},  # an id names the post in the log channel
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    guild_id: Mapped[int] = mapped_column(BigInteger)
    act: Mapped[Act] = mapped_column(_by_value(Act))
    actor_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    job_id: Mapped[int | None] = mapped_column(Integer)  # no foreign key: the log outlives the job
    channel_id: Mapped[int | None] = mapped_column(BigInteger)
    message_id: Mapped[int | None] = mapped_column(BigInteger)
    values: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")
    posted: Mapped[bool] = mapped_column(server_default=text("0"))  # into the log channel, or there was none


class RuleRow(Base):
    """One rule of a server's prompt policy, see policy.py."""

    __tablename__ = "rules"
    __table_args__ = (UniqueConstraint("guild_id", "words", "place"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    guild_id: Mapped[int] = mapped_column(BigInteger)
    words: Mapped[str] = mapped_column(Text)
    action: Mapped[Action] = mapped_column(_by_value(Action))
    place: Mapped[Where] = mapped_column(_by_value(Where))


class HeldRow(Base):
    """Why a job with the status `held` is held; gone when it is not any more."""

    __tablename__ = "held"

    job_id: Mapped[int] = mapped_column(Integer, ForeignKey("jobs.id"), primary_key=True, autoincrement=False)
    why: Mapped[HeldFor] = mapped_column(_by_value(HeldFor))
    rule: Mapped[str | None] = mapped_column(Text)  # that asks for a review
