"""What a role in a Discord server may have: its members' share of the GPU and their limits.

A member has the best of their roles at the moment they ask; what no role of theirs says is as for everybody. A role
with the server's own id is everyone's there. Knows no Discord: roles come as ids with the job.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from bot.queue.job import Limits, NewJob
from bot.storage.database import Database
from bot.storage.tables import RoleRow

WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0
USUAL_WEIGHT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTerms:
    """What the members of one role may have; None: the role says nothing about it. As in Limits."""

    guild_id: int
    role_id: int
    weight: float | None = None  # twice the weight, twice the GPU, while others wait
    waiting_per_user: int | None = None
    pictures_per_hour: int | None = None
    burst: int | None = None
    gpu_seconds_per_day: float | None = None  # 0: no such limit

    def __post_init__(self) -> None:
        """Raise ValueError, naming limit and value, for what a role cannot have."""
        if self.weight is not None and not WEIGHT_MIN <= self.weight <= WEIGHT_MAX:
            raise ValueError(f"a weight must be from {WEIGHT_MIN:g} to {WEIGHT_MAX:g}; it is {self.weight}")
        replace(Limits(), **_said(self))


class Roles:
    """The terms of all roles; a change holds for what is asked from then on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, terms: RoleTerms) -> None:
        """Let these be the role's terms, in the place of any before. Raise QueueUnavailable."""
        await self._database.write(lambda session: put_terms(session, terms))

    async def remove(self, guild_id: int, role_id: int) -> None:
        """Let the role say nothing any more. Raise QueueUnavailable."""
        gone = delete(RoleRow).where(RoleRow.guild_id == guild_id, RoleRow.role_id == role_id)
        await self._database.write(lambda session: session.execute(gone))

    async def of_guild(self, guild_id: int) -> tuple[RoleTerms, ...]:
        """The terms of a server's roles, by role id. Raise QueueUnavailable."""
        return await self._database.read(lambda session: tuple(terms_of_guild(session, guild_id)))


def put_terms(session: Session, terms: RoleTerms) -> None:
    """Let these be the role's terms; one that says nothing is forgotten."""
    key = [RoleRow.guild_id, RoleRow.role_id]
    if _said(terms) or terms.weight is not None:
        row = insert(RoleRow).values(asdict(terms))
        session.execute(row.on_conflict_do_update(index_elements=key, set_=asdict(terms)))
    else:
        gone = delete(RoleRow).where(RoleRow.guild_id == terms.guild_id, RoleRow.role_id == terms.role_id)
        session.execute(gone)


def terms_of(session: Session, new: NewJob, *, usual: Limits) -> tuple[Limits, float]:
    """The limits and the weight of whoever asks, by their roles in that server."""
    if not new.role_ids:
        return usual, USUAL_WEIGHT
    held = [terms for terms in terms_of_guild(session, new.guild_id) if terms.role_id in new.role_ids]
    weights = [terms.weight for terms in held if terms.weight is not None]
    said = [_said(terms) for terms in held]
    best: dict[str, Any] = {
        name: max(values) for name in _LIMITS if (values := [one[name] for one in said if name in one])
    }
    if any(one.get("gpu_seconds_per_day") == 0 for one in said):
        best["gpu_seconds_per_day"] = 0
    return replace(usual, **best), max(weights, default=USUAL_WEIGHT)


_LIMITS = tuple(field.name for field in fields(RoleTerms) if field.name not in ("guild_id", "role_id", "weight"))


def _said(terms: RoleTerms) -> dict[str, Any]:
    return {name: value for name in _LIMITS if (value := getattr(terms, name)) is not None}


def terms_of_guild(session: Session, guild_id: int) -> list[RoleTerms]:
    """What the roles of a server say, by role id."""
    found = select(RoleRow).where(RoleRow.guild_id == guild_id).order_by(RoleRow.role_id)
    names = [field.name for field in fields(RoleTerms)]
    return [RoleTerms(**{name: getattr(row, name) for name in names}) for row in session.scalars(found)]
