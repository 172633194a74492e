"""Pictures on their way to people: what was begun where, and which channels take none. Durable, like the queue.

A letter is written in the transaction that records the result. Before each send it says where, so that after a crash
it is known where a message may stand; it goes when the job is over. Knows no Discord: delivery acts, this remembers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.background import PAUSE_MAX
from bot.queue.endings import give_back, log_end, take_out
from bot.queue.job import Job, JobStatus, LetterState
from bot.storage.database import Database
from bot.storage.tables import DeadChannelRow, JobRow, OutboxRow, has_status, to_job

DEAD_FOR = timedelta(hours=1)  # a channel that took no picture is left alone for so long; then rights may have changed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One picture in the outbox."""

    job: Job
    nonce: str
    attempts: int
    tried_channel_id: int | None  # a message of it may stand there
    next_try_at: datetime | None  # aware UTC

    def pause(self, now: datetime) -> float:
        """Seconds until the next try; a clock that was set back makes them no longer than a pause may be."""
        left = (self.next_try_at - now).total_seconds() if self.next_try_at is not None else 0.0
        return min(max(left, 0.0), 1.5 * PAUSE_MAX)


def nonce(job_id: int, interaction_id: int, *, mark: str = "-") -> str:
    """What Discord knows a job's message by: its id and its interaction, in the 25 characters that Discord takes.

    The id alone would not do: a new or restored database uses it again. Another `mark` of one character names another
    message of the job.
    """
    return f"{job_id}{mark}{interaction_id % 10**12}"


def put(session: Session, row: JobRow) -> None:
    """Put a job that is drawn into the outbox; drawn again, it keeps what is known of the first time."""
    letter = insert(OutboxRow).values(job_id=row.id, nonce=nonce(row.id, row.interaction_id), state=LetterState.WAITING)
    session.execute(letter.on_conflict_do_nothing())


class Outbox:
    """The verbs of delivery; each is one transaction, and may raise QueueUnavailable."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        """`now` is aware UTC."""
        self._database, self._now = database, now

    async def letters(self, *job_ids: int) -> tuple[Letter, ...]:
        """What is drawn and not yet posted, oldest first; with `job_ids`, of these jobs alone."""
        found = select(JobRow, OutboxRow).join(OutboxRow, OutboxRow.job_id == JobRow.id)
        found = found.where(has_status(JobStatus.DRAWN)).order_by(JobRow.id)
        if job_ids:
            found = found.where(JobRow.id.in_(job_ids))
        return await self._database.read(lambda session: tuple(map(_letter, session.execute(found).all())))

    async def begin(self, job_id: int, *, channel_id: int) -> None:
        """A send begins: from now on its message may stand in this channel."""
        await self._note(
            job_id,
            state=LetterState.SENDING,
            attempts=OutboxRow.attempts + 1,
            tried_channel_id=channel_id,
            next_try_at=None,
        )

    async def postpone(self, job_id: int, *, pause: timedelta, error: str) -> None:
        """A send failed in passing; it is tried again after the pause, also by another process."""
        await self._note(job_id, next_try_at=self._now() + pause, error=error)

    async def refuse(self, job_id: int, *, channel_id: int, error: str) -> None:
        """The channel takes no picture: no message stands there, and it is left alone for a while."""
        dead = insert(DeadChannelRow).values(channel_id=channel_id, until=self._now() + DEAD_FOR, error=error)
        dead = dead.on_conflict_do_update(
            index_elements=[DeadChannelRow.channel_id], set_={"until": dead.excluded.until, "error": error}
        )
        letter = update(OutboxRow).where(OutboxRow.job_id == job_id)
        values = {"state": LetterState.WAITING, "tried_channel_id": None, "error": error}

        def work(session: Session) -> None:
            session.execute(dead)
            session.execute(letter.values(values))

        await self._database.write(work)

    async def is_dead(self, channel_id: int) -> bool:
        """Whether this channel took no picture lately. A clock that was set back cannot make that long."""
        now = self._now()
        dead = select(DeadChannelRow.until).where(DeadChannelRow.channel_id == channel_id)
        until = await self._database.read(lambda session: session.scalar(dead))
        return until is not None and now < until <= now + DEAD_FOR

    async def keep(self, job_id: int, *, reason: str) -> Job | None:
        """Nobody can be reached: the picture stays on disk, and its owner gets back what it cost. None: it was over."""
        return await self._close(job_id, JobStatus.KEPT, reason=reason, then=give_back)

    async def give_up(self, job_id: int, *, reason: str) -> Job | None:
        """It may have been posted, and nobody can tell: it is never posted again. None: it was over."""
        return await self._close(job_id, JobStatus.REPLY_UNKNOWN, reason=reason, then=lambda session, row: None)

    async def _note(self, job_id: int, **values: Any) -> None:
        change = update(OutboxRow).where(OutboxRow.job_id == job_id).values(values)
        await self._database.write(lambda session: session.execute(change))

    async def _close(
        self, job_id: int, status: JobStatus, *, reason: str, then: Callable[[Session, JobRow], None]
    ) -> Job | None:
        def work(session: Session) -> Job | None:
            row = session.get(JobRow, job_id)
            if row is None or row.status is not JobStatus.DRAWN:
                return None
            row.status, row.reason = status, reason
            then(session, row)
            take_out(session, row)
            return to_job(row)

        job = await self._database.write(work)
        if job is not None:
            log_end(log, job)
        return job


def _letter(found: Any) -> Letter:
    row, letter = found
    return Letter(
        job=to_job(row),
        nonce=letter.nonce,
        attempts=letter.attempts,
        tried_channel_id=letter.tried_channel_id,
        next_try_at=letter.next_try_at,
    )
