"""Who is next, and what a turn costs: start-time fair queueing by GPU-seconds, as SQL on the accounts.

An account is a share of the GPU. `vtime` is what it was charged so far, in microseconds of GPU for each unit of its
weight; whole numbers, so that a refund restores it exactly. Next is the waiting account with the lowest vtime, among
equals the one that came first (`ticket`), and of its jobs the oldest.

    enter    0 -> 1 waiting: lift vtime to at least the virtual time of the GPU, so that absence earns no credit
    charge   at claim: add estimate / weight; the virtual time becomes the vtime that was lowest
    correct  once the pixels are there: add (used - estimate) / weight, and note `used` as what was charged
    settle   at the end: the same; nothing, if it was corrected
    put_back a drain or a crash: take the charge back, so that the job is at its old place
    again    its picture was lost, perhaps long after: the same; whoever waits for nothing else is lifted, as at enter

The virtual time is the start tag of the last claim (`virtual_time`, kept by the parent). It never runs ahead of the
lowest vtime that waits, it still says something when nobody waits, and so two who both keep waiting never differ by
more than Cmax_f / w_f + Cmax_g / w_g (Goyal, Vin, Cheng 1996; with GPU-seconds: Sheng et al., OSDI 2024).

Accounts are a tree: everyone -> people; or, with a share for each server, everyone -> servers -> their people. Each
level is fair in itself. Knows no verbs: the caller holds the transaction, and tells of each change exactly once.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, func, literal, or_, select, text
from sqlalchemy.orm import Session, aliased

from bot.queue.job import JobStatus
from bot.storage.tables import AccountRow, JobRow, has_status

EVERYONE = 1  # id of the account above all others
OVERRUN_MAX = 4  # a broken-off job is charged this many times its estimate at most: the clock may have jumped

# The account and those above it, but for everyone's. `account` is the id of a person's account.
_PATH = "parent_id IS NOT NULL AND id IN (:account, (SELECT parent_id FROM accounts WHERE id = :account))"
_MICROSECONDS = "CAST(round(1e6 * {seconds} / CASE id WHEN :account THEN :weight ELSE weight END) AS INTEGER)"
_CHARGE = _MICROSECONDS.format(seconds=":charge")
_USED = _MICROSECONDS.format(seconds=":used")

_OPEN = text(
    "INSERT INTO accounts (name, parent_id, weight) VALUES (:name, :parent, :weight) "
    "ON CONFLICT (name) DO UPDATE SET weight = excluded.weight RETURNING id"
)
_RESHAPES = text(
    "SELECT 1 FROM accounts WHERE name = :name AND waiting > 0 AND weight <> :weight UNION ALL "
    "SELECT 1 FROM jobs WHERE user_id = :user AND status = 'queued' AND not_before IS NOT NULL LIMIT 1"
)
_LIFT = (  # of an account that has so many waiting
    "vtime = CASE waiting WHEN {waiting} THEN "
    "max(vtime, (SELECT above.virtual_time FROM accounts AS above WHERE above.id = accounts.parent_id)) "
    "ELSE vtime END"
)
ENTER = text(
    "UPDATE accounts SET waiting = waiting + 1, ticket = CASE waiting WHEN 0 THEN :job ELSE ticket END, "
    f"{_LIFT.format(waiting=0)} WHERE {_PATH}"
)
_WEIGHT = text("SELECT weight FROM accounts WHERE id = :account")
_LEAVE = text(f"UPDATE accounts SET waiting = waiting - 1 WHERE {_PATH}")
_ADVANCE = text(
    "UPDATE accounts SET virtual_time = max(virtual_time, (SELECT min(below.vtime) FROM "
    f"(SELECT vtime, parent_id FROM accounts WHERE {_PATH}) AS below WHERE below.parent_id = accounts.id)) "
    f"WHERE id IN (SELECT parent_id FROM accounts WHERE {_PATH})"
)
_START = text(f"UPDATE accounts SET vtime = vtime + {_CHARGE}, waiting = waiting - 1 WHERE {_PATH}")
SETTLE = text(f"UPDATE accounts SET vtime = vtime + {_USED} - {_CHARGE}, failures = 0 WHERE {_PATH}")
CORRECT = text(f"UPDATE accounts SET vtime = vtime + {_USED} - {_CHARGE} WHERE {_PATH}")
_FAILED = text(
    f"UPDATE accounts SET vtime = vtime + CASE failures WHEN 0 THEN 0 ELSE {_USED} END - {_CHARGE}, "
    f"failures = failures + 1 WHERE {_PATH}"
)
_GIVE_BACK = text(f"UPDATE accounts SET vtime = vtime - {_CHARGE} WHERE {_PATH}")
_PUT_BACK = text(
    f"UPDATE accounts SET vtime = vtime - {_CHARGE}, waiting = waiting + 1, "
    f"ticket = CASE waiting WHEN 0 THEN :job ELSE min(ticket, :job) END WHERE {_PATH}"
)
_LIFT_LAST = text(f"UPDATE accounts SET {_LIFT.format(waiting=1)} WHERE {_PATH}")
_RECOUNT = (
    "UPDATE accounts SET waiting = counted.jobs FROM (SELECT own.id, count(jobs.id) AS jobs FROM accounts AS own "
    "LEFT JOIN jobs ON jobs.account_id = own.id AND jobs.status = 'queued' AND jobs.not_before IS NULL "
    "WHERE own.parent_id IS NOT NULL GROUP BY own.id) AS counted "
    "WHERE counted.id = accounts.id AND accounts.waiting <> counted.jobs AND accounts.name LIKE '%user:%'",
    "UPDATE accounts SET waiting = counted.jobs FROM (SELECT parent_id, sum(waiting) AS jobs FROM accounts "
    f"WHERE parent_id <> {EVERYONE} GROUP BY parent_id) AS counted "
    "WHERE counted.parent_id = accounts.id AND accounts.waiting <> counted.jobs",
)
_DEFERRED = (
    select(JobRow)
    .where(has_status(JobStatus.QUEUED), JobRow.not_before.is_not(None))  # as the partial index says it
    .order_by(JobRow.not_before, JobRow.id)
)
_DUE = _DEFERRED.where(or_(JobRow.not_before <= bindparam("now"), JobRow.created_at > bindparam("now")))


@cache
def next_in_line() -> ScalarSelect[int | None]:
    """The id of the job that is next, as a subquery: two or three seeks, however many wait. Deferred jobs are not."""
    top = _lowest(literal(EVERYONE))
    account = func.coalesce(_lowest(top), top)
    first = select(func.min(JobRow.id)).where(
        JobRow.account_id == account, has_status(JobStatus.QUEUED), JobRow.not_before.is_(None)
    )
    return first.scalar_subquery()


def used_seconds(*, started_at: datetime, now: datetime, estimate: float) -> float:
    """GPU-seconds of a job that was broken off, from the clock, which may have jumped meanwhile."""
    return min(max((now - started_at) / timedelta(seconds=1), 0.0), OVERRUN_MAX * estimate)


def open_account(session: Session, *, user_id: int, server_id: int | None, weight: float) -> tuple[int, bool]:
    """The id of a person's account, made at need, with `weight` from now on; and whether the line must be looked at.

    So it must where their waiting jobs got another weight, or are deferred: one more job may overtake those.
    With `server_id` it is their account within that server's; None: directly below everyone's.
    """
    if not 0 < weight < math.inf:
        raise ValueError(f"a weight must be a finite number above 0; it is {weight}")
    parent, name = EVERYONE, f"user:{user_id}"
    if server_id is not None:
        server = f"server:{server_id}"
        parent = session.scalar(_OPEN, {"name": server, "parent": EVERYONE, "weight": 1.0}) or EVERYONE
        name = f"{server}/{name}"
    reshapes = session.scalar(_RESHAPES, {"name": name, "weight": weight, "user": user_id}) is not None
    account: int = session.scalar(_OPEN, {"name": name, "parent": parent, "weight": weight})
    return account, reshapes


def enter(session: Session, job: JobRow) -> None:
    """A job began to wait for the GPU."""
    session.execute(ENTER, {"account": job.account_id, "job": job.id})


def leave(session: Session, job: JobRow) -> None:
    """A waiting job was taken back; a deferred one was not counted."""
    if job.not_before is None:
        session.execute(_LEAVE, {"account": job.account_id})


def charge(session: Session, job: JobRow, *, estimate: float) -> None:
    """A waiting job was claimed, and is expected to take `estimate` GPU-seconds."""
    job.charge, job.weight = estimate, session.scalar(_WEIGHT, {"account": job.account_id})
    session.execute(_ADVANCE, {"account": job.account_id})
    session.execute(_START, _charged(job))


def settle(session: Session, job: JobRow, *, used: float) -> None:
    """A running job ended after `used` GPU-seconds: drawn, or stopped for its owner."""
    session.execute(SETTLE, {**_charged(job), "used": used})


def correct(session: Session, job: JobRow, *, used: float) -> None:
    """A running job used so many GPU-seconds, and its end is still to come: the caller notes them as its charge."""
    session.execute(CORRECT, {**_charged(job), "used": used})


def refund(session: Session, job: JobRow, *, used: float) -> None:
    """A running job failed: it costs its owner nothing.

    Another failure right after it costs what it used. Otherwise somebody whose jobs all fail would stay first in
    line for ever, and nobody else would be drawn.
    """
    session.execute(_FAILED, {**_charged(job), "used": used})


def give_back(session: Session, job: JobRow, *, used: float) -> None:
    """A drawn job reached nobody: it costs its owner nothing after all."""
    session.execute(_GIVE_BACK, {**_charged(job), "charge": used})


def put_back(session: Session, job: JobRow) -> None:
    """A running job waits again, at its old place."""
    session.execute(_PUT_BACK, {**_charged(job), "job": job.id})


def again(session: Session, job: JobRow) -> None:
    """A drawn job waits again, whatever was drawn since: it brings no credit for that time."""
    put_back(session, job)
    session.execute(_LIFT_LAST, {"account": job.account_id})


def release_due(session: Session, *, now: datetime) -> None:
    """Deferred jobs whose time has come wait like any other from now on.

    So do those that come from the future: the clock was set back, and must not keep them for as long.
    """
    for job in session.scalars(_DUE, {"now": now}).all():
        _release(session, job)


def release_one(session: Session) -> bool:
    """Nobody else waits: let the deferred job go whose time comes first. False: there is none."""
    job = session.scalar(_DEFERRED.limit(1))
    if job is None:
        return False
    _release(session, job)
    return True


def recount(session: Session) -> None:
    """At start: count anew who waits. A wrong count, from a hand in the database, would hide jobs for ever."""
    for statement in _RECOUNT:
        session.execute(text(statement))


def _release(session: Session, job: JobRow) -> None:
    job.not_before = None
    session.flush()
    enter(session, job)


def _lowest(parent: ColumnElement[int]) -> ScalarSelect[int]:
    """The account below `parent` whose turn it is."""
    account = aliased(AccountRow)
    turn = select(account.id).where(account.parent_id == parent, account.waiting > 0)
    return turn.order_by(account.vtime, account.ticket, account.id).limit(1).scalar_subquery()


def _charged(job: JobRow) -> dict[str, float | int | None]:
    """What the last claim charged; nothing if a Kiln before accounts made it."""
    return {"account": job.account_id, "charge": job.charge or 0.0, "weight": job.weight or 1.0}
