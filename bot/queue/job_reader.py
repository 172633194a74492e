"""What the queue says of itself: a job, a person's jobs, places, what is left to post and to show. Changes nothing.

Each is one consistent view of the database, and may raise QueueUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Select, or_, select, union_all
from sqlalchemy.orm import Session

from bot.language import Message
from bot.queue.job import Job, JobStatus, Overview, Place
from bot.queue.outlook import Lookout
from bot.storage.database import Database
from bot.storage.tables import JobRow, has_status, is_unshown, to_job


class JobReader:
    """All that can be asked of the queue."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], prior: float) -> None:
        """`now` returns aware UTC; `prior` is `estimates.prior_rate` of the model."""
        self._database, self.now, self._prior = database, now, prior
        self._lookout = Lookout(database, now=now, prior=prior)
        self.held: Message | None = None  # why nothing is drawn now, for people

    def cooled(self) -> None:
        """The model left the memory: the next drawing takes as long as the first of a process."""
        self._lookout.cold = True

    def moved(self) -> None:
        """The line changed by other hands: places are looked at anew."""
        self._lookout.moved()

    async def line(self, *, limit: int) -> tuple[tuple[Job, Place], ...]:
        """The first so many queued jobs in the order of their turns, each with its place."""
        outlook = await self._lookout.look()
        ids = [job_id for job_id, turn in outlook.turns.items() if turn.position > 0][:limit]
        jobs = {job.id: job for job in await self._jobs(JobRow.id.in_(ids), has_status(JobStatus.QUEUED))}
        placed = ((jobs[job_id], self._held(outlook.place(job_id))) for job_id in ids if job_id in jobs)
        return tuple((job, place) for job, place in placed if place is not None)

    async def job(self, job_id: int) -> Job | None:
        """Read one job."""
        found = await self._jobs(JobRow.id == job_id)
        return found[0] if found else None

    async def batch(self, job: Job) -> tuple[Job, ...]:
        """All jobs of this one's interaction, in their order."""
        return await self._jobs(JobRow.interaction_id == job.interaction_id)

    async def of_message(self, message_id: int) -> tuple[Job, ...]:
        """The jobs whose card or picture this message is."""
        return await self._jobs(or_(JobRow.card_message_id == message_id, JobRow.result_message_id == message_id))

    async def active_jobs(self, user_id: int) -> tuple[Job, ...]:
        """This person's running, queued and held jobs, oldest first."""
        mine = select(JobRow.id).where(JobRow.user_id == user_id)
        active = [mine.where(has_status(status)) for status in (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.HELD)]
        return await self._jobs(JobRow.id.in_(union_all(*active)))  # with OR, SQLite would scan the table

    async def place(self, job_id: int) -> Place | None:
        """Where a queued or running job stands, and when it should be ready; None for any other."""
        return self._held((await self._lookout.look()).place(job_id))

    async def place_of_new(self, job_id: int) -> Place | None:
        """The same for a job that was accepted just now, without a look at a long line."""
        return self._held(await self._lookout.place_of_new(job_id))

    async def overview(self) -> Overview:
        """How many wait, who is being drawn, and when the last should be ready."""
        return (await self._lookout.look()).overview

    async def drawn_for(self, user_id: int, *, guild_id: int, limit: int) -> tuple[Job, ...]:
        """The last so many of a person's jobs in one place that have a picture, the newest first."""
        statement = (
            select(JobRow)
            .where(JobRow.user_id == user_id, JobRow.guild_id == guild_id, JobRow.picture.is_not(None))
            .order_by(JobRow.id.desc())
            .limit(limit)
        )
        return await self._fetch(statement)

    async def undelivered(self) -> tuple[Job, ...]:
        """Jobs whose picture is on disk and not yet posted, oldest first."""
        return await self._jobs(has_status(JobStatus.DRAWN))

    async def unshown(self) -> tuple[Job, ...]:
        """Jobs that are over and of whose end people may not have been told, oldest first."""
        return await self._jobs(is_unshown())

    def _held(self, place: Place | None) -> Place | None:
        return place if place is None or place.position == 0 else replace(place, held=self.held)

    async def _jobs(self, *conditions: ColumnElement[bool]) -> tuple[Job, ...]:
        return await self._fetch(select(JobRow).where(*conditions).order_by(JobRow.id))

    async def _fetch(self, statement: Select[JobRow]) -> tuple[Job, ...]:
        def fetch(session: Session) -> tuple[Job, ...]:
            return tuple(to_job(row) for row in session.scalars(statement))

        return await self._database.read(fetch)
