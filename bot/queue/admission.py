"""May this person have one more job: waiting cap, rate and daily budget, inside the submit transaction.

What a limit has to remember is in the person's row and commits with the job, so a restart or a crash changes nothing.
Knows no queue order: being admitted says nothing about being next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from sqlalchemy import select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.errors import BudgetSpent, QueueFull, RateLimited, Refusal, ServerBudgetSpent
from bot.language import msg
from bot.queue import estimates
from bot.queue.job import Limits, NewJob, OverLimit, Verb
from bot.queue.limits import take
from bot.storage.server_tables import ServerRow
from bot.storage.tables import JobRow, UserRow

_CORRECT = text(
    "UPDATE users SET budget_seconds = max(0, budget_seconds + :used - :reserved) "
    "WHERE id = :user AND budget_day = :day"
)
_CORRECT_SERVER = text(
    "UPDATE servers SET budget_seconds = max(0, budget_seconds + :used - :reserved) "
    "WHERE guild_id = :server AND budget_day = :day"
)
_WAITING = text(
    "SELECT (SELECT count(*) FROM jobs WHERE user_id = :user AND status = 'queued') "
    "+ (SELECT count(*) FROM jobs WHERE user_id = :user AND status = 'held')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What was agreed: when the job may go before others, and what it took from the day's budget."""

    not_before: datetime | None  # aware UTC; None: it waits like any other
    rate_seconds: float | None  # what it took from the rate; None: it costs nothing
    reserved: float | None  # GPU-seconds; None: there is no budget


def admit(
    session: Session, new: NewJob, *, limits: Limits, server_seconds: float, now: datetime, prior: float
) -> Admission:
    """Charge one job to the person's rate and budget, or raise QueueFull, RateLimited or BudgetSpent.

    `server_seconds`: GPU-seconds a day of all people in that server together; 0: no such limit.

    To try a failed job again costs nothing, once.
    """
    _check_waiting(session, new.user_id, limits)
    if new.verb is Verb.RETRY:
        _check_first_retry(session, new)
        return Admission(not_before=None, rate_seconds=None, reserved=None)
    user = session.get(UserRow, new.user_id)
    every = timedelta(hours=1) / limits.pictures_per_hour
    defers = limits.over_limit is OverLimit.DEFER
    verdict = take(
        user.theoretical_arrival if user else None,
        now=now,
        every=every,
        burst=limits.burst,
        deferrable=limits.waiting_per_user if defers else 0,
    )
    if verdict.retry_at is not None and not defers:
        raise RateLimited(pictures_per_hour=limits.pictures_per_hour, retry_at=verdict.retry_at)
    values: dict[str, object] = {"theoretical_arrival": verdict.arrival + (every if verdict.retry_at else timedelta())}
    reserved = None
    if limits.gpu_seconds_per_day or server_seconds:
        reserved = estimates.expected(session, estimates.shape_of(new.request), now=now, prior=prior)
        used = user.budget_seconds if user and user.budget_day == now.date() else 0.0
        _check_budget(used, reserved, limits=limits, now=now)
        values |= {"budget_day": now.date(), "budget_seconds": used + reserved}
        server = session.get(ServerRow, new.guild_id)
        if server is not None:
            _charge_server(server, reserved, now=now)
    change = insert(UserRow).values(id=new.user_id, **values)
    session.execute(change.on_conflict_do_update(index_elements=[UserRow.id], set_=values))
    return Admission(not_before=verdict.retry_at, rate_seconds=every.total_seconds(), reserved=reserved)


def correct(session: Session, job: JobRow, *, used: float) -> None:
    """A job is over and used so many GPU-seconds; 0.0 gives back all that it took from its day's budget."""
    if job.reserved is not None:
        day = job.created_at.date().isoformat()
        change = {"user": job.user_id, "server": job.guild_id, "day": day, "used": used, "reserved": job.reserved}
        session.execute(_CORRECT, change)
        session.execute(_CORRECT_SERVER, change)


def refund_rate(session: Session, job: JobRow) -> None:
    """A job failed by our doing, or was taken back before its turn: it does not count into the rate.

    Exact if the person asked again before the place that this job took had come back by itself; else they may ask
    for one picture more.
    """
    user = session.get(UserRow, job.user_id)
    if user is not None and job.rate_seconds is not None:
        user.theoretical_arrival -= timedelta(seconds=job.rate_seconds)
        job.rate_seconds = None


def _check_waiting(session: Session, user_id: int, limits: Limits) -> None:
    waiting = session.scalar(_WAITING, {"user": user_id}) or 0
    if waiting >= limits.waiting_per_user:
        raise QueueFull(waiting=waiting, allowed=limits.waiting_per_user)


def _check_first_retry(session: Session, new: NewJob) -> None:
    tried = select(JobRow.id).where(JobRow.parent_id == new.parent_id, JobRow.verb == Verb.RETRY)
    first = session.scalar(tried.limit(1))
    if first is not None:
        raise Refusal(msg("Job {number} was tried again already, as job {again}."), number=new.parent_id, again=first)


def _check_budget(used: float, estimate: float, *, limits: Limits, now: datetime) -> None:
    """Raise BudgetSpent unless `estimate` more GPU-seconds fit into the person's day."""
    per_day = limits.gpu_seconds_per_day
    if per_day and used + estimate > per_day:
        raise BudgetSpent(used=used, estimate=estimate, per_day=per_day, retry_at=_midnight(now))


def _charge_server(server: ServerRow, estimate: float, *, now: datetime) -> None:
    """Charge the day of all people in a server together; raise ServerBudgetSpent if it does not suffice."""
    used = server.budget_seconds if server.budget_day == now.date() else 0.0
    per_day = server.server_gpu_seconds_per_day
    if per_day and used + estimate > per_day:
        raise ServerBudgetSpent(used=used, estimate=estimate, per_day=per_day, retry_at=_midnight(now))
    server.budget_day, server.budget_seconds = now.date(), used + estimate


def _midnight(now: datetime) -> datetime:
    return datetime.combine(now.date() + timedelta(days=1), time(), tzinfo=UTC)
