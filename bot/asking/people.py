"""What people have chosen for themselves: defaults for /imagine, and the language in which Kiln answers them.

Durable, and all of it in memory too, because every answer asks for the language: a person is a hundred bytes or two,
and one process writes. What is stored was valid when it was chosen; /imagine checks it again. Knows no Discord.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from bot.storage.database import Database
from bot.storage.people_tables import PreferencesRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """One person's defaults; None: the model's, the server's or Discord's."""

    size: str | None = None  # such as 768x512
    style: str | None = None  # a style's name
    steps: int | None = None
    guidance: float | None = None
    locale: str | None = None  # one of language.LOCALES
    private: bool | None = None  # pictures are shown to their author alone


NOTHING_CHOSEN = Preferences()
CHOICES = tuple(field.name for field in fields(Preferences))


class People:
    """Everybody's choices. One for the process; `open_people` makes it."""

    def __init__(self, database: Database, chosen: dict[int, Preferences]) -> None:
        self._database, self._chosen = database, chosen

    def of(self, user_id: int) -> Preferences:
        """What this person has chosen."""
        return self._chosen.get(user_id, NOTHING_CHOSEN)

    async def choose(self, user_id: int, **choices: Any) -> Preferences:
        """Change some choices (None takes one back), and return all of them. Raise QueueUnavailable."""
        assert choices.keys() <= set(CHOICES), choices
        row = insert(PreferencesRow).values(user_id=user_id, **choices)
        change = row.on_conflict_do_update(index_elements=[PreferencesRow.user_id], set_=choices)
        await self._database.write(lambda session: session.execute(change))
        self._chosen[user_id] = replace(self.of(user_id), **choices)  # as the database: the last word on each choice
        return self._chosen[user_id]

    async def forget(self, user_id: int) -> None:
        """Take all of a person's choices back. Raise QueueUnavailable."""
        gone = delete(PreferencesRow).where(PreferencesRow.user_id == user_id)
        await self._database.write(lambda session: session.execute(gone))
        self._chosen.pop(user_id, None)


async def open_people(database: Database) -> People:
    """Read everybody's choices."""
    rows: Sequence[PreferencesRow] = await database.read(lambda session: session.scalars(select(PreferencesRow)).all())
    return People(
        database, {row.user_id: Preferences(**{name: getattr(row, name) for name in CHOICES}) for row in rows}
    )
