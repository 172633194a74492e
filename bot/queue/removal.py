"""Taking a picture away: the row says so first, then the file goes. Knows no Discord; who may is the caller's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from bot.errors import NotAllowed, Refusal
from bot.language import Message, msg
from bot.queue.job import STATUS_WORDS, Job, JobStatus
from bot.servers.audit import note_of_job
from bot.servers.server import Act
from bot.storage.database import Database
from bot.storage.tables import JobRow, to_job

PICTURED = (JobStatus.DELIVERED, JobStatus.KEPT, JobStatus.REPLY_UNKNOWN)  # over, and with a picture

log = logging.getLogger(__name__)


class Removal:
    """Deletes pictures; jobs stay, without them."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        """`now` is aware UTC."""
        self._database, self._now = database, now

    async def remove(self, job_id: int, *, moderator_id: int | None = None) -> Job:
        """Note that the job's picture is deleted, and return it as it was before.

        With `moderator_id` it is not its owner who does it, and that is in the audit log. Raise NotAllowed if there is
        none, Refusal if it has no picture or none any more.
        """

        def decide(session: Session) -> Job:
            row = session.get(JobRow, job_id)
            if row is None:
                raise NotAllowed(msg("There is no job {number}."), number=job_id)
            if row.deleted_at is not None:
                raise Refusal(msg("The picture of job {number} was deleted before."), number=job_id)
            if row.status not in PICTURED:
                state = Message(STATUS_WORDS[row.status])
                raise Refusal(msg("Job {number} has no picture to delete: it is {state}."), number=job_id, state=state)
            before = to_job(row)
            row.deleted_at = self._now()
            if moderator_id is not None:
                note_of_job(session, Act.DELETE, row, actor_id=moderator_id, now=self._now())
            return before

        return await self._database.write(decide)


async def unlink(data: Path, job: Job) -> None:
    """Take the picture's file off the disk; one that is gone or cannot go is logged."""
    if job.picture is None:
        return
    try:
        await asyncio.to_thread((data / job.picture).unlink, missing_ok=True)
    except OSError as error:
        log.warning("job %d: its deleted picture %s stays on the disk: %s", job.id, job.picture, error)
