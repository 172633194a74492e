"""A job's end: what it costs its owner, how it is undone when the picture is lost, and its line in the log.

Knows no verbs: the caller holds the transaction.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from bot.language import say_to_owner
from bot.queue import fairness
from bot.queue.admission import correct, refund_rate
from bot.queue.job import Job, JobStatus
from bot.storage.tables import JobRow, OutboxRow

LOSSES_MAX = 2  # a job whose picture is lost this often is not drawn again


def take_out(session: Session, row: JobRow) -> None:
    """The job is over: nothing of it is on its way any more."""
    session.execute(delete(OutboxRow).where(OutboxRow.job_id == row.id))


def settle(session: Session, row: JobRow) -> None:
    """Charge a job that ran and is over for what it used, to its owner's share and day; not if it failed."""
    assert row.finished_at is not None
    used = row.seconds
    if used is None:
        began, estimate = row.started_at or row.finished_at, row.charge or 0.0
        used = fairness.used_seconds(started_at=began, now=row.finished_at, estimate=estimate)
    failed = row.status in (JobStatus.FAILED, JobStatus.QUARANTINED)
    (fairness.refund if failed else fairness.settle)(session, row, used=used)
    correct(session, row, used=0.0 if failed else used)
    if failed:
        refund_rate(session, row)
    if row.status is not JobStatus.DRAWN:  # it may have been drawn before, and its picture lost
        take_out(session, row)


def quarantine(session: Session, row: JobRow, *, now: datetime) -> None:
    """Set a job aside whose process went down under it, so that it takes no other along; its owner pays nothing."""
    row.status, row.finished_at = JobStatus.QUARANTINED, now
    row.reason = say_to_owner(row)(
        "Kiln went down {n} times while drawing this, so it will not be tried again.", n=row.attempts
    )
    settle(session, row)


def give_back(session: Session, row: JobRow) -> None:
    """A drawn job reached nobody: its owner gets back what it cost, GPU-seconds and a place in their rate."""
    used = row.seconds or 0.0
    fairness.give_back(session, row, used=used)
    if row.reserved is not None:
        row.reserved = used  # what its end left of it
    correct(session, row, used=0.0)
    refund_rate(session, row)


def lose_picture(session: Session, row: JobRow) -> None:
    """The picture of a drawn job is lost: its owner gets back what it cost, and it waits again, or fails."""
    row.pictures_lost += 1
    if row.pictures_lost >= LOSSES_MAX:
        row.status = JobStatus.FAILED
        row.reason = say_to_owner(row)(
            "Its picture was drawn {n} times, and its file was lost each time.", n=row.pictures_lost
        )
        give_back(session, row)
        take_out(session, row)
        return
    row.charge = row.seconds or 0.0  # what it cost in the end; the next claim charges anew
    if row.reserved is not None:
        row.reserved = row.charge
    if row.account_id is None:  # drawn by a Kiln before accounts
        row.account_id, _ = fairness.open_account(session, user_id=row.user_id, server_id=None, weight=1.0)
    row.status, row.attempts = JobStatus.QUEUED, row.attempts - 1
    row.attempt_token = row.started_at = row.finished_at = row.picture = row.seconds = row.notice = None
    session.flush()
    fairness.again(session, row)


def log_end(log: logging.Logger, job: Job) -> None:
    """One line for the log, its numbers also as fields of their own; never the prompt."""
    numbers = _numbers(job)
    words = " ".join(f"{name}={value}" for name, value in numbers.items())
    log.info(
        "job %d %s: %s", job.id, job.status, words, extra={"fields": {"job": job.id, "state": job.status, **numbers}}
    )


def _numbers(job: Job) -> dict[str, float | int | str]:
    began, ended = job.started_at or job.finished_at, job.finished_at
    assert began is not None
    assert ended is not None
    seconds = (ended - began).total_seconds() if job.seconds is None else job.seconds
    return {
        "seconds": round(float(seconds), 1),
        "wait": round((began - job.created_at).total_seconds(), 1),
        "size": job.request.size,
        "steps": job.request.steps,
        "attempts": job.attempts,
    }
