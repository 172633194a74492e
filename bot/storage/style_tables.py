"""Rows of the styles that servers have of their own; see styles.py for the meaning of the columns."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from bot.storage.columns import Values
from bot.storage.tables import Base
from gen.request import LoraUse


class StyleRow(Base):
    """One style of one server."""

    __tablename__ = "styles"

    guild_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, primary_key=True)  # the name, upper and lower case made one
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    suffix: Mapped[str] = mapped_column(Text)
    negative: Mapped[str] = mapped_column(Text)
    across: Mapped[int | None] = mapped_column(Integer)
    down: Mapped[int | None] = mapped_column(Integer)
    steps: Mapped[int | None] = mapped_column(Integer)
    guidance: Mapped[float | None]
    loras: Mapped[tuple[LoraUse, ...]] = mapped_column(Values(LoraUse), server_default=text("'[]'"))
