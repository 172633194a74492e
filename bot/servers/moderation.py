"""The durable verbs of moderators: ban, stand still, wipe, reset, approve, deny, report; each notes its act.

Each is one transaction and its line in the audit log. Knows no Discord: who may do it was checked before. Any verb
may raise QueueUnavailable: then nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.errors import NotAllowed, Refusal
from bot.language import Message, msg
from bot.queue.holding import BY_MODERATOR, forget, held_for, hold, hold_waiting, release, release_paused, take_back
from bot.queue.job import STATUS_WORDS, Job, JobStatus, NewJob
from bot.servers.audit import acts_since, note
from bot.servers.gate import enter_again
from bot.servers.server import EVERYWHERE, Act, Ban, Entry, HeldFor, Standing
from bot.servers.servers import put_settings, settings_of
from bot.storage.database import Database
from bot.storage.server_tables import AuditRow, BanRow, HeldRow
from bot.storage.tables import JobRow, UserRow, has_status, to_job

REPORTS_A_DAY = 20  # of one member in one server

_STANDING_ACTS = {Standing.OPEN: Act.RESUME, Standing.PAUSED: Act.PAUSE, Standing.DRAINED: Act.DRAIN}


class Moderation:
    """All that moderators do. `guild_id` may be EVERYWHERE for the host."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], moved: Callable[[], None]) -> None:
        """`now` returns aware UTC; `moved` is told when the line changed."""
        self._database, self._now, self._moved = database, now, moved

    async def ban(self, ban: Ban) -> None:
        """Keep somebody out from now on, in the place of any ban before."""

        def put(session: Session) -> None:
            row = insert(BanRow).values(asdict(ban))
            key = [BanRow.guild_id, BanRow.user_id]
            session.execute(row.on_conflict_do_update(index_elements=key, set_=asdict(ban)))
            until = None if ban.until is None else round(ban.until.timestamp())
            values = {"reason": ban.reason, "until": until}
            self._note(session, Act.BAN, ban.guild_id, ban.by_id, user_id=ban.user_id, **values)

        await self._database.write(put)

    async def unban(self, guild_id: int, user_id: int, *, actor_id: int) -> None:
        """Let somebody in again; raise Refusal if they are not kept out."""

        def lift(session: Session) -> None:
            gone = delete(BanRow).where(BanRow.guild_id == guild_id, BanRow.user_id == user_id).returning(BanRow)
            row = session.scalar(gone)
            if row is None or (row.until is not None and row.until <= self._now()):
                raise Refusal(msg("<@{user}> is not banned here."), user=user_id)
            self._note(session, Act.UNBAN, guild_id, actor_id, user_id=user_id)

        await self._database.write(lift)

    async def bans(self, guild_id: int) -> tuple[Ban, ...]:
        """Who is kept out of a server, or of all, the latest first."""
        found = select(BanRow).where(
            BanRow.guild_id == guild_id, or_(BanRow.until.is_(None), BanRow.until > self._now())
        )
        return await self._database.read(
            lambda session: tuple(_to_ban(row) for row in session.scalars(found.order_by(BanRow.at.desc())))
        )

    async def stand(self, guild_id: int, standing: Standing, *, actor_id: int) -> tuple[Job, ...]:
        """Pause, drain or resume; return the jobs that are held or let go by it. Raise Refusal if it is so already.

        EVERYWHERE holds no jobs: the queue itself stands still.
        """

        def change(session: Session) -> tuple[Job, ...]:
            settings = settings_of(session, guild_id)
            if settings.standing is standing:
                raise Refusal(_ALREADY[standing])
            put_settings(session, replace(settings, standing=standing))
            moved: list[JobRow] = []
            if guild_id != EVERYWHERE:
                paused = standing is Standing.PAUSED
                moved = hold_waiting(session, guild_id) if paused else release_paused(session, guild_id)
            self._note(session, _STANDING_ACTS[standing], guild_id, actor_id, jobs=len(moved))
            return tuple(to_job(row) for row in moved)

        moved = await self._database.write(change)
        self._moved()
        return moved

    async def wipe(self, guild_id: int, user_id: int, *, actor_id: int) -> tuple[Job, ...]:
        """Cancel all jobs of somebody's that wait or are held, in a server or EVERYWHERE; return them."""

        def cancel(session: Session) -> tuple[Job, ...]:
            mine = select(JobRow).where(JobRow.user_id == user_id)
            if guild_id != EVERYWHERE:
                mine = mine.where(JobRow.guild_id == guild_id)
            rows = [
                row
                for status in (JobStatus.QUEUED, JobStatus.HELD)
                for row in session.scalars(mine.where(has_status(status)).order_by(JobRow.id)).all()
            ]
            for row in rows:
                take_back(session, row, now=self._now(), reason=BY_MODERATOR)
            self._note(session, Act.WIPE, guild_id, actor_id, user_id=user_id, jobs=len(rows))
            return tuple(to_job(row) for row in rows)

        wiped = await self._database.write(cancel)
        self._moved()
        return wiped

    async def reset(self, guild_id: int, user_id: int, *, actor_id: int) -> None:
        """Give somebody their rate and the GPU time of today anew. Raise Refusal for somebody without jobs."""

        def anew(session: Session) -> None:
            user = session.get(UserRow, user_id)
            if user is None:
                raise Refusal(msg("<@{user}> has never asked for a picture, so nothing is used up."), user=user_id)
            user.theoretical_arrival, user.budget_day, user.budget_seconds = self._now(), None, 0.0
            self._note(session, Act.RESET, guild_id, actor_id, user_id=user_id)

        await self._database.write(anew)

    async def look(self, guild_id: int, job_id: int, *, actor_id: int) -> tuple[Job, HeldFor | None]:
        """Show a moderator a job of their server, and why it is held; that they looked is noted. Raise NotAllowed."""

        def read(session: Session) -> tuple[Job, HeldFor | None]:
            row = _job_of(session, guild_id, job_id)
            self._note(session, Act.LOOK, guild_id, actor_id, user_id=row.user_id, job_id=job_id)
            held = held_for(session, job_id)
            return to_job(row), None if held is None else held.why

        return await self._database.write(read)

    async def held(self, guild_id: int) -> tuple[Job, ...]:
        """The jobs of a server that wait for a decision, oldest first."""
        waiting = select(JobRow).join(HeldRow, HeldRow.job_id == JobRow.id).where(HeldRow.why == HeldFor.REVIEW)
        here = waiting.where(JobRow.guild_id == guild_id).order_by(JobRow.id)
        return await self._database.read(lambda session: tuple(to_job(row) for row in session.scalars(here)))

    async def decide(self, guild_id: int, job_id: int, *, actor_id: int, approve: bool) -> Job:
        """Approve a job that is held for review, or deny it. Raise NotAllowed, or Refusal if it is decided already."""

        def apply(session: Session) -> Job:
            row = _job_of(session, guild_id, job_id)
            held = held_for(session, job_id)
            if held is None or held.why is not HeldFor.REVIEW:
                text = msg("Job {job} waits for no decision: it is {state}.")
                raise Refusal(text, job=job_id, state=Message(STATUS_WORDS[row.status]))
            if approve:
                self._let_in(session, row)
            else:
                take_back(session, row, now=self._now(), reason=msg("A moderator did not approve of its words."))
            act = Act.APPROVE if approve else Act.DENY
            self._note(session, act, guild_id, actor_id, user_id=row.user_id, job_id=job_id)
            return to_job(row)

        job = await self._database.write(apply)
        self._moved()
        return job

    async def check_again(self, shown: NewJob) -> None:
        """Raise Refusal unless the picture of these words may be posted a second time there, by that person."""
        await self._database.read(lambda session: enter_again(session, shown, now=self._now()))

    async def report(self, entry: Entry) -> None:
        """Note that a member reports a message. Raise Refusal if they did already, or report too much."""

        def put(session: Session) -> None:
            again = select(AuditRow.id).where(
                AuditRow.message_id == entry.message_id, AuditRow.act == Act.REPORT, AuditRow.actor_id == entry.actor_id
            )
            if session.scalar(again) is not None:
                raise Refusal(msg("You have reported this picture already. The moderators know."))
            since = self._now() - timedelta(days=1)
            count = acts_since(session, Act.REPORT, guild_id=entry.guild_id, actor_id=entry.actor_id, since=since)
            if count >= REPORTS_A_DAY:
                raise Refusal(
                    msg("You may report {limit} pictures a day, and have reported {count}."),
                    limit=REPORTS_A_DAY,
                    count=count,
                )
            note(session, entry, now=self._now())

        await self._database.write(put)

    def _let_in(self, session: Session, row: JobRow) -> None:
        """An approved job waits for the GPU, or for its server's pause to end."""
        if settings_of(session, row.guild_id).standing is Standing.PAUSED:
            forget(session, row)
            hold(session, row, why=HeldFor.PAUSE)
        else:
            release(session, row)

    def _note(self, session: Session, act: Act, guild_id: int, actor_id: int, **about: object) -> None:
        who = {name: about.pop(name) for name in ("user_id", "job_id") if name in about}
        entry = Entry(act=act, guild_id=guild_id, actor_id=actor_id, values=about, **who)  # type: ignore[arg-type]
        note(session, entry, now=self._now())


_ALREADY = {
    Standing.OPEN: msg("Nothing is paused or drained here."),
    Standing.PAUSED: msg("It is paused already."),
    Standing.DRAINED: msg("It is drained already."),
}


def _job_of(session: Session, guild_id: int, job_id: int) -> JobRow:
    row = session.get(JobRow, job_id)
    if row is None or guild_id not in (row.guild_id, EVERYWHERE):
        raise NotAllowed(msg("This server has no job {job}."), job=job_id)
    return row


def _to_ban(row: BanRow) -> Ban:
    return Ban(
        guild_id=row.guild_id, user_id=row.user_id, reason=row.reason, until=row.until, by_id=row.by_id, at=row.at
    )
