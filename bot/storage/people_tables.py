"""Rows about people: what each has chosen for themselves (people.py), and what they posted again (reposts.py)."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bot.storage.tables import Base


class PreferencesRow(Base):
    """One person's choices; None: not chosen. There need not be a job of theirs."""

    __tablename__ = "preferences"

    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    size: Mapped[str | None] = mapped_column(String(20))
    style: Mapped[str | None] = mapped_column(Text)
    steps: Mapped[int | None] = mapped_column(Integer)
    guidance: Mapped[float | None]
    locale: Mapped[str | None] = mapped_column(String(16))
    private: Mapped[bool | None]


class RepostRow(Base):
    """A message that shows a job's picture again."""

    __tablename__ = "reposts"
    __table_args__ = (Index("reposts_of_job", "job_id"),)

    message_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    channel_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(Integer, ForeignKey("jobs.id", ondelete="CASCADE"))
