"""Where pictures stand a second time, because their author posted them again: known, so that *Delete* finds them all.

Each verb is one transaction, and may raise QueueUnavailable. Knows no Discord.
"""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from bot.storage.database import Database
from bot.storage.people_tables import RepostRow


class Reposts:
    """Messages that show a picture again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job_id: int, *, channel_id: int, message_id: int) -> None:
        """The job's picture stands in this message too."""
        row = insert(RepostRow).values(message_id=message_id, channel_id=channel_id, job_id=job_id)
        await self._database.write(lambda session: session.execute(row.on_conflict_do_nothing()))

    async def job_of(self, message_id: int) -> int | None:
        """The job whose picture this message shows again."""
        shown = select(RepostRow.job_id).where(RepostRow.message_id == message_id)
        return await self._database.read(lambda session: session.scalar(shown))

    async def take(self, job_id: int) -> tuple[tuple[int, int], ...]:
        """Forget all of them, and return each as (channel, message): the caller deletes them."""
        gone = delete(RepostRow).where(RepostRow.job_id == job_id).returning(RepostRow.channel_id, RepostRow.message_id)
        return await self._database.write(
            lambda session: tuple((channel, message) for channel, message in session.execute(gone))
        )
