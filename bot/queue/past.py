"""Looking back: a person's pictures, and how much was drawn. Changes nothing.

Each is one consistent view of the database, and may raise QueueUnavailable. Knows no Discord: who may see what comes
as the channels that they can see.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from bot.queue.job import HAD_A_PICTURE, Job, JobStatus
from bot.storage.database import Database
from bot.storage.tables import JobRow, has_status, to_job

PAGE = 5  # pictures
DAYS = 30  # of "lately"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which pictures are asked for; the newest first."""

    user_id: int
    search: str = ""  # every word of it is somewhere in the prompt
    newest: int | None = None  # a job's id: what came later is left out, so that pages stay as they are
    page: int = 1
    guild_id: int | None = None  # with `channel_ids`: only what stands in these channels of this server
    channel_ids: Collection[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a person's pictures."""

    jobs: tuple[Job, ...]
    page: int  # from 1; the last one where fewer are left than were asked for
    pages: int  # at least 1
    found: int
    hidden: int = 0  # jobs of this page whose message is gone, and that are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was drawn in a time."""

    pictures: int
    seconds: float  # of the GPU
    people: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallies:
    """The same since midnight UTC, and in the last 30 days."""

    today: Tally
    lately: Tally


class Past:
    """What was drawn."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        """`now` returns aware UTC."""
        self._database, self._now = database, now

    async def pictures(self, shown: Shown) -> Page:
        """One page of the pictures that are asked for."""

        def fetch(session: Session) -> Page:
            ids = _found(session, shown)
            pages = max(1, -(-len(ids) // PAGE))
            page = min(max(shown.page, 1), pages)
            wanted = ids[(page - 1) * PAGE : page * PAGE]
            rows = session.scalars(select(JobRow).where(JobRow.id.in_(wanted)).order_by(JobRow.id.desc()))
            return Page(jobs=tuple(map(to_job, rows)), page=page, pages=pages, found=len(ids))

        return await self._database.read(fetch)

    async def prompts(self, user_id: int, typed: str, *, limit: int) -> tuple[str, ...]:
        """This person's latest prompts with what was typed, each once."""

        def fetch(session: Session) -> tuple[str, ...]:
            prompts = session.scalars(select(JobRow.prompt).where(*_of(user_id)).order_by(JobRow.id.desc()))
            return tuple(dict.fromkeys(prompt for prompt in prompts if has_words(prompt, typed)))[:limit]

        return await self._database.read(fetch)

    async def tallies(self, *, user_id: int | None = None, guild_id: int | None = None) -> Tallies:
        """What was drawn for this person, in this server, or, with neither, for everybody."""
        now = self._now()
        midnight = datetime.combine(now.date(), time(), tzinfo=UTC)
        of = [JobRow.user_id == user_id] if user_id is not None else []
        of += [JobRow.guild_id == guild_id] if guild_id is not None else []

        def fetch(session: Session) -> Tallies:
            lately = now - timedelta(days=DAYS)
            return Tallies(today=_tally(session, midnight, of), lately=_tally(session, lately, of))

        return await self._database.read(fetch)


def has_words(prompt: str, search: str) -> bool:
    """Whether every word of `search` is somewhere in the prompt, in whatever case and width."""
    text = _plain(prompt)
    return all(word in text for word in _plain(search).split())


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _of(user_id: int) -> list[ColumnElement[bool]]:
    had_a_picture = or_(JobRow.picture.is_not(None), JobRow.status.in_(HAD_A_PICTURE))  # its file may be gone
    return [JobRow.user_id == user_id, had_a_picture, JobRow.deleted_at.is_(None)]


def _found(session: Session, shown: Shown) -> list[int]:
    """Ids of all that is asked for, newest first."""
    conditions = _of(shown.user_id)
    if shown.newest is not None:
        conditions.append(JobRow.id <= shown.newest)
    if shown.guild_id is not None:
        conditions += [JobRow.guild_id == shown.guild_id, has_status(JobStatus.DELIVERED), JobRow.private.is_(False)]
        conditions.append(JobRow.result_channel_id.in_(shown.channel_ids))
    if not shown.search.strip():
        return list(session.scalars(select(JobRow.id).where(*conditions).order_by(JobRow.id.desc())))
    rows = session.execute(select(JobRow.id, JobRow.prompt).where(*conditions).order_by(JobRow.id.desc()))
    return [job_id for job_id, prompt in rows if has_words(prompt, shown.search)]


def _tally(session: Session, since: datetime, of: list[ColumnElement[bool]]) -> Tally:
    counts = select(func.count(), func.coalesce(func.sum(JobRow.seconds), 0.0), func.count(JobRow.user_id.distinct()))
    drawn = counts.where(JobRow.seconds.is_not(None), JobRow.finished_at >= since, *of)
    pictures, seconds, people = session.execute(drawn).one()
    return Tally(pictures=pictures, seconds=seconds or 0.0, people=people)
