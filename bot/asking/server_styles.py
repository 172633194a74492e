"""The styles that servers have beside the shipped ones. Durable, and all of them in memory, for autocomplete.

Knows no Discord: who may change them was checked before.
"""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.asking.styles import Style, style_named
from bot.errors import Refusal
from bot.language import msg
from bot.storage.database import Database
from bot.storage.style_tables import StyleRow

STYLES_MAX = 50  # of one server


async def open_styles(database: Database) -> ServerStyles:
    """Read all servers' styles."""

    def fetch(session: Session) -> dict[int, dict[str, Style]]:
        found: dict[int, dict[str, Style]] = {}
        for row in session.scalars(select(StyleRow).order_by(StyleRow.key)):
            found.setdefault(row.guild_id, {})[row.key] = _style(row)
        return found

    return ServerStyles(database, await database.read(fetch))


class ServerStyles:
    """One for the process; `open_styles` makes it."""

    def __init__(self, database: Database, known: dict[int, dict[str, Style]]) -> None:
        self._database, self._known = database, known

    def of(self, guild_id: int | None) -> tuple[Style, ...]:
        """A server's own styles, by name."""
        return tuple(style for _, style in sorted(self._known.get(guild_id or 0, {}).items()))

    async def put(self, guild_id: int, style: Style) -> None:
        """Add a style, or put it in the place of the one of its name. Raise Refusal or QueueUnavailable."""
        if style_named(style.name) is not None:
            raise Refusal(msg("{name} is a style that Kiln comes with: choose another name."), name=style.name)
        key, known = style.name.casefold(), self._known.get(guild_id, {})
        if key not in known and len(known) >= STYLES_MAX:
            raise Refusal(msg("A server may have {most} styles of its own, and has them."), most=STYLES_MAX)
        across, down = style.shape or (None, None)
        values = {
            "name": style.name,
            "prefix": style.prefix,
            "suffix": style.suffix,
            "negative": style.negative,
            "across": across,
            "down": down,
            "steps": style.steps,
            "guidance": style.guidance,
            "loras": style.loras,
        }
        row = insert(StyleRow).values(guild_id=guild_id, key=key, **values)
        change = row.on_conflict_do_update(index_elements=[StyleRow.guild_id, StyleRow.key], set_=values)
        await self._database.write(lambda session: session.execute(change))
        self._known.setdefault(guild_id, {})[key] = style

    async def remove(self, guild_id: int, name: str) -> Style:
        """Take a style away, and return it. Raise Refusal if the server has none of that name."""
        key = name.strip().casefold()
        style = self._known.get(guild_id, {}).get(key)
        if style is None:
            raise Refusal(msg("This server has no style {name!r} of its own."), name=name[:40])
        gone = delete(StyleRow).where(StyleRow.guild_id == guild_id, StyleRow.key == key)
        await self._database.write(lambda session: session.execute(gone))
        self._known.get(guild_id, {}).pop(key, None)
        return style


def _style(row: StyleRow) -> Style:
    return Style(
        name=row.name,
        prefix=row.prefix,
        suffix=row.suffix,
        negative=row.negative,
        shape=(row.across, row.down) if row.across is not None and row.down is not None else None,
        steps=row.steps,
        guidance=row.guidance,
        loras=row.loras,
    )
