"""The styles that servers have beside the shipped ones. Durable, and all of them in memory, for autocomplete.

Knows no Discord: who may change them was checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Executable, delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.asking.styles import NAME_CHARACTERS, Style, style_named
from bot.errors import Refusal
from bot.language import msg, say_in
from bot.quoting import quoted
from bot.servers.audit import note
from bot.servers.server import Act, Entry
from bot.storage.database import Database
from bot.storage.style_tables import StyleRow

STYLES_MAX = 50  # of one server


async def open_styles(database: Database, *, now: Callable[[], datetime]) -> ServerStyles:
    """Read all servers' styles. `now` returns aware UTC."""

    def fetch(session: Session) -> dict[int, dict[str, Style]]:
        found: dict[int, dict[str, Style]] = {}
        for row in session.scalars(select(StyleRow).order_by(StyleRow.key)):
            found.setdefault(row.guild_id, {})[row.key] = _style(row)
        return found

    return ServerStyles(database, await database.read(fetch), now=now)


class ServerStyles:
    """One for the process; `open_styles` makes it."""

    def __init__(self, database: Database, known: dict[int, dict[str, Style]], *, now: Callable[[], datetime]) -> None:
        self._database, self._known, self._now = database, known, now

    def of(self, guild_id: int | None) -> tuple[Style, ...]:
        """A server's own styles, by name."""
        return tuple(style for _, style in sorted(self._known.get(guild_id or 0, {}).items()))

    async def put(self, guild_id: int, style: Style, *, actor_id: int) -> None:
        """Add a style, or put it in the place of the one of its name; noted. Raise Refusal or QueueUnavailable."""
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
        values = {"style": style.name, "told": style.told(say_in())}
        entry = Entry(act=Act.STYLE_SET, guild_id=guild_id, actor_id=actor_id, values=values)
        await self._write(change, entry)
        self._known.setdefault(guild_id, {})[key] = style

    async def remove(self, guild_id: int, name: str, *, actor_id: int) -> Style:
        """Take a style away, and return it; noted. Raise Refusal if the server has none of that name."""
        key = name.strip().casefold()
        style = self._known.get(guild_id, {}).get(key)
        if style is None:
            shown = quoted(name, characters=NAME_CHARACTERS)
            raise Refusal(msg("This server has no style **{name}** of its own."), name=shown)
        gone = delete(StyleRow).where(StyleRow.guild_id == guild_id, StyleRow.key == key)
        values = {"style": style.name}
        await self._write(gone, Entry(act=Act.STYLE_REMOVED, guild_id=guild_id, actor_id=actor_id, values=values))
        self._known.get(guild_id, {}).pop(key, None)
        return style

    async def _write(self, change: Executable, entry: Entry) -> None:
        """Change the row, and note the act with it."""

        def apply(session: Session) -> None:
            session.execute(change)
            note(session, entry, now=self._now())

        await self._database.write(apply)


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
