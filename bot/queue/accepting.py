"""One job's way into the queue, inside the submit's transaction: gate, admission, row, place in the fair order.

Raises what gate.py and admission.py refuse, and then nothing is stored. Knows no Discord, no GPU and no commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from bot.queue import fairness
from bot.queue.admission import admit
from bot.queue.job import Job, JobStatus, Limits, NewJob
from bot.queue.newcomers import Newcomer
from bot.queue.outlook import newcomer
from bot.queue.roles import terms_of
from bot.servers.gate import enter, settle_in
from bot.storage.tables import JobRow, to_job, to_row

_SAME = select(JobRow).where(JobRow.interaction_id == bindparam("interaction"), JobRow.number == bindparam("number"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for everybody, unless their server or roles say otherwise."""

    limits: Limits
    prior: float  # `estimates.prior_rate` of the model
    server_share: bool  # each Discord server has a share of its own


def accept(
    session: Session, new: NewJob, terms: Terms, *, weight: float | None, now: datetime
) -> tuple[Job, Newcomer | None]:
    """Store the job; with it comes how it enters the line, if nobody's place but its own must be looked for.

    A job of the same interaction and number is returned as it is, and nothing is charged.
    """
    first = session.scalar(_SAME, {"interaction": new.interaction_id, "number": new.number})
    if first is not None:
        return to_job(first), None
    entry = enter(session, new, usual=terms.limits, now=now)
    limits, share = terms_of(session, new, usual=entry.limits)
    admission = admit(session, new, limits=limits, server_seconds=entry.server_seconds, now=now, prior=terms.prior)
    server_id, share = new.guild_id if terms.server_share else None, share if weight is None else weight
    row = to_row(new, created_at=now)
    row.account_id, reshapes = fairness.open_account(session, user_id=new.user_id, server_id=server_id, weight=share)
    row.not_before, row.reserved = admission.not_before, admission.reserved
    row.rate_seconds = admission.rate_seconds
    session.add(row)
    session.flush()
    if row.not_before is None:
        fairness.enter(session, row)
    settle_in(session, row, entry, now=now)
    if reshapes or row.not_before is not None or row.status is not JobStatus.QUEUED:
        return to_job(row), None
    return to_job(row), newcomer(session, row, now=now, prior=terms.prior)
