"""The durable verbs for what a server's keepers choose; each writes its act into the audit log as it commits.

Knows no Discord: who may do it was checked before. Any verb may raise QueueUnavailable: then nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bot.errors import Refusal
from bot.language import msg
from bot.queue.roles import RoleTerms, put_terms, terms_of_guild
from bot.servers.audit import note
from bot.servers.policy import RULES_MAX, Rule
from bot.servers.server import Act, Entry, ServerSettings, Standing
from bot.storage.database import Database
from bot.storage.server_tables import RuleRow, ServerRow

_FIELDS = tuple(field.name for field in fields(ServerSettings))
_TERMS = tuple(field.name for field in fields(RoleTerms) if field.name not in ("guild_id", "role_id"))
_LISTS = ("channel_ids", "lora_role_ids")
_STANDING = select(ServerRow.standing).where(ServerRow.guild_id == bindparam("guild"))


# A log channel is new: it hears of all that waits for a review, whoever heard of it before.
_POST_REVIEWS = text(
    "UPDATE audit SET posted = 0 WHERE guild_id = :guild AND act = 'hold' "
    "AND job_id IN (SELECT job_id FROM held WHERE why = 'review')"
)


class Servers:
    """All servers' settings and rules."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        """`now` returns aware UTC."""
        self._database, self._now = database, now

    async def settings(self, guild_id: int) -> ServerSettings:
        """A server's settings as they are now."""
        return await self._database.read(lambda session: settings_of(session, guild_id))

    async def change(self, guild_id: int, *, actor_id: int, **changes: Any) -> ServerSettings:
        """Change some settings, and note each with its old and its new value; return all. Raise ValueError."""

        def apply(session: Session) -> ServerSettings:
            old = settings_of(session, guild_id)
            new = replace(old, **changes)
            for name in changes:
                before, after = getattr(old, name), getattr(new, name)
                if before != after:
                    values = {"setting": name, "old": before, "new": after}
                    entry = Entry(act=Act.SETTINGS, guild_id=guild_id, actor_id=actor_id, values=values)
                    note(session, entry, now=self._now())
            put_settings(session, new)
            if new.log_channel_id not in (None, old.log_channel_id):
                session.execute(_POST_REVIEWS, {"guild": guild_id})
            return new

        return await self._database.write(apply)

    async def set_role(self, terms: RoleTerms, *, actor_id: int) -> None:
        """Let these be a role's terms, in the place of any before; a role that says nothing is forgotten."""
        said = _said(terms)

        def put(session: Session) -> None:
            put_terms(session, terms)
            entry = Entry(
                act=Act.ROLE,
                guild_id=terms.guild_id,
                actor_id=actor_id,
                values={"role": terms.role_id, "terms": said},
            )
            note(session, entry, now=self._now())

        await self._database.write(put)

    async def forget_role(self, guild_id: int, role_id: int, *, name: str) -> None:
        """Let a role that was deleted say nothing any more; noted, as Kiln's own act, if it said anything."""

        def forget(session: Session) -> None:
            found = [terms for terms in terms_of_guild(session, guild_id) if terms.role_id == role_id]
            settings = settings_of(session, guild_id)
            if not found and role_id not in settings.lora_role_ids:
                return
            put_terms(session, RoleTerms(guild_id=guild_id, role_id=role_id))
            if role_id in settings.lora_role_ids:
                left = tuple(one for one in settings.lora_role_ids if one != role_id)
                put_settings(session, replace(settings, lora_role_ids=left))
            values = {"role": name, "terms": _said(found[0]) if found else {}}
            note(session, Entry(act=Act.ROLE_GONE, guild_id=guild_id, values=values), now=self._now())

        await self._database.write(forget)

    async def roles(self, guild_id: int) -> tuple[RoleTerms, ...]:
        """What the roles of a server say, by role id."""
        return await self._database.read(lambda session: tuple(terms_of_guild(session, guild_id)))

    async def rules(self, guild_id: int) -> tuple[Rule, ...]:
        """A server's own rules, the oldest first."""
        own = select(RuleRow).where(RuleRow.guild_id == guild_id).order_by(RuleRow.id)
        return await self._database.read(lambda session: tuple(map(to_rule, session.scalars(own))))

    async def add_rule(self, guild_id: int, rule: Rule, *, actor_id: int) -> Rule:
        """Add a rule to a server's own; raise Refusal if it is there already, or there are too many."""

        def add(session: Session) -> Rule:
            count = session.scalar(select(func.count()).where(RuleRow.guild_id == guild_id)) or 0
            if count >= RULES_MAX:
                raise Refusal(
                    msg("A server may have {limit} rules; this one has {count}."), limit=RULES_MAX, count=count
                )
            row = RuleRow(guild_id=guild_id, words=rule.words, action=rule.action, place=rule.where)
            session.add(row)
            try:
                session.flush()
            except IntegrityError:
                raise Refusal(msg("There is a rule with these words for these channels already.")) from None
            note(session, _of_rule(guild_id, actor_id, Act.RULE_ADDED, rule), now=self._now())
            return to_rule(row)

        return await self._database.write(add)

    async def remove_rule(self, guild_id: int, rule_id: int, *, actor_id: int) -> None:
        """Remove one of a server's own rules; raise Refusal if there is none of that number."""

        def remove(session: Session) -> None:
            gone = delete(RuleRow).where(RuleRow.guild_id == guild_id, RuleRow.id == rule_id).returning(RuleRow)
            row = session.scalar(gone)
            if row is None:
                raise Refusal(msg("That rule is gone already."))
            note(session, _of_rule(guild_id, actor_id, Act.RULE_REMOVED, to_rule(row)), now=self._now())

        await self._database.write(remove)


def settings_of(session: Session, guild_id: int) -> ServerSettings:
    """A server's settings; the usual ones if nobody ever changed them."""
    row = session.get(ServerRow, guild_id)
    if row is None:
        return ServerSettings(guild_id=guild_id)
    values = {name: getattr(row, name) for name in _FIELDS}
    return ServerSettings(**{**values, **{name: tuple(values[name]) for name in _LISTS}})


def put_settings(session: Session, settings: ServerSettings) -> None:
    """Let these be a server's settings."""
    values = {**asdict(settings), **{name: list(getattr(settings, name)) for name in _LISTS}}
    row = insert(ServerRow).values(values)
    session.execute(row.on_conflict_do_update(index_elements=[ServerRow.guild_id], set_=values))


def standing_of(session: Session, guild_id: int) -> Standing:
    """Whether a server, or EVERYWHERE, draws."""
    return session.scalar(_STANDING, {"guild": guild_id}) or Standing.OPEN


def to_rule(row: RuleRow) -> Rule:
    """The frozen value of a row."""
    return Rule(id=row.id, words=row.words, action=row.action, where=row.place)


def _said(terms: RoleTerms) -> dict[str, Any]:
    return {name: value for name in _TERMS if (value := getattr(terms, name)) is not None}


def _of_rule(guild_id: int, actor_id: int, act: Act, rule: Rule) -> Entry:
    values = {"rule": rule.words, "action": rule.action.value, "where": rule.where.value}
    return Entry(act=act, guild_id=guild_id, actor_id=actor_id, values=values)
