"""Jobs that are held: out of the line for a moderator's look or a pause of their server, and back into it.

A held job has its id, its place by age among its owner's, and what it took from rate and budget; it counts as waiting
for its owner's cap. It is in no account's line, so fairness does not know it. The caller holds the transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from bot.language import msg, say_to_owner
from bot.queue import fairness
from bot.queue.admission import correct, refund_rate
from bot.queue.endings import take_out
from bot.queue.job import JobStatus
from bot.servers.server import HeldFor
from bot.storage.server_tables import HeldRow
from bot.storage.tables import JobRow, has_status

_WHY = {
    HeldFor.REVIEW: msg("A moderator looks at your words first; you will see here what they decide."),
    HeldFor.PAUSE: msg("This server is paused by its moderators. It waits until they resume."),
}
BY_MODERATOR = msg("A moderator cancelled it.")


def hold(session: Session, row: JobRow, *, why: HeldFor, rule: str | None = None) -> None:
    """Hold a job that is new or waits."""
    if row.status is JobStatus.QUEUED:
        fairness.leave(session, row)
    row.status, row.reason = JobStatus.HELD, say_to_owner(row)(_WHY[why])
    session.add(HeldRow(job_id=row.id, why=why, rule=rule))
    session.flush()


def held_for(session: Session, job_id: int) -> HeldRow | None:
    """Why a job is held; None: it is not."""
    return session.get(HeldRow, job_id)


def release(session: Session, row: JobRow) -> None:
    """Let a held job wait like any other; one over its owner's rate waits for that still."""
    forget(session, row)
    row.status, row.reason = JobStatus.QUEUED, None
    session.flush()
    if row.not_before is None:
        fairness.enter(session, row)


def forget(session: Session, row: JobRow) -> None:
    """It is not held any more, whatever becomes of it."""
    session.execute(delete(HeldRow).where(HeldRow.job_id == row.id))


def explain(row: JobRow, reason: str | None) -> None:
    """Note why the job is cancelled, in its owner's language; `reason` is marked with `msg`. None: by its owner."""
    row.reason = say_to_owner(row)(reason) if reason else None


def take_back(session: Session, row: JobRow, *, now: datetime, reason: str | None = None) -> None:
    """Cancel a job that waits or is held: its owner gets back all that it took. `reason` is marked with `msg`."""
    if row.status is JobStatus.QUEUED:
        fairness.leave(session, row)
    else:
        forget(session, row)
    row.status, row.finished_at = JobStatus.CANCELLED, now
    explain(row, reason)
    correct(session, row, used=0.0)
    refund_rate(session, row)
    take_out(session, row)


def hold_waiting(session: Session, guild_id: int) -> list[JobRow]:
    """Hold all that waits in a server that pauses."""
    waiting = session.scalars(select(JobRow).where(has_status(JobStatus.QUEUED), JobRow.guild_id == guild_id)).all()
    for row in waiting:
        hold(session, row, why=HeldFor.PAUSE)
    return list(waiting)


def release_paused(session: Session, guild_id: int) -> list[JobRow]:
    """Let go all that a pause of this server held, the oldest first."""
    paused = (
        select(JobRow)
        .join(HeldRow, HeldRow.job_id == JobRow.id)
        .where(HeldRow.why == HeldFor.PAUSE, JobRow.guild_id == guild_id)
        .order_by(JobRow.id)
    )
    held = session.scalars(paused).all()
    for row in held:
        release(session, row)
    return list(held)
