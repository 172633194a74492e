"""What a server's keepers allow, checked inside the submit transaction: bans, channels, sizes, words, pauses.

Comes before admission, which counts. Each refusal names the limit and the value. Knows no Discord: what kind of channel
it is comes with the job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from bot.errors import Banned, NotAllowed, PromptRefused, Refusal, WrongChannel
from bot.language import msg
from bot.queue.holding import hold
from bot.queue.job import Limits, NewJob
from bot.quoting import quoted
from bot.servers.audit import note
from bot.servers.default_rules import ALWAYS, USUAL
from bot.servers.policy import Action, Rule, Verdict, judge
from bot.servers.server import (
    EVERYWHERE,
    REASON_MAX_CHARACTERS,
    Act,
    Entry,
    HeldFor,
    LoraAccess,
    ServerSettings,
    Standing,
)
from bot.servers.servers import settings_of, standing_of, to_rule
from bot.storage.server_tables import BanRow, RuleRow
from bot.storage.tables import JobRow

FOUND_CHARACTERS = 100  # of the words that a rule found

_OWN_RULES = select(RuleRow).where(RuleRow.guild_id == bindparam("guild")).order_by(RuleRow.id)
_BANS = (
    select(BanRow)
    .where(BanRow.user_id == bindparam("user"), BanRow.guild_id.in_((EVERYWHERE, bindparam("guild"))))
    .order_by(BanRow.guild_id)
)
_LIMITS = ("waiting_per_user", "pictures_per_hour", "burst", "gpu_seconds_per_day")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A job may come in, under these conditions."""

    limits: Limits  # of everybody in this server
    server_seconds: float  # a day, of all people in this server together; 0: no such limit
    paused: bool
    verdict: Verdict | None  # of a rule that flags or holds


def enter(session: Session, new: NewJob, *, usual: Limits, now: datetime) -> Pass:
    """Let a job in, or raise Refusal. `usual` are the host's limits."""
    _check_ban(session, new, now=now)
    if standing_of(session, EVERYWHERE) is Standing.DRAINED:
        raise Refusal(msg("Kiln takes no new pictures for now. What waits already is still drawn."))
    settings = settings_of(session, new.guild_id)
    if settings.standing is Standing.DRAINED:
        raise Refusal(
            msg("This server takes no new pictures for now, say its moderators. What waits already is still drawn.")
        )
    _check_channel(settings, new)
    _check_size(settings, new)
    _check_loras(settings, new)
    if new.private and not settings.private_allowed:
        raise NotAllowed(msg("This server allows no private pictures. Please ask without `private`."))
    verdict = judge(new.request.prompt, rules_of(session, settings), restricted=new.age_restricted)
    if verdict is not None and verdict.rule.action is Action.REFUSE:
        raise _refused(verdict)
    if new.guild_id == EVERYWHERE:
        return _pass_at_home(verdict, usual=usual)
    return Pass(
        limits=_limits(settings, usual),
        server_seconds=settings.server_gpu_seconds_per_day or 0.0,
        paused=settings.standing is Standing.PAUSED,
        verdict=verdict,
    )


def enter_again(session: Session, shown: NewJob, *, now: datetime) -> None:
    """Let the picture of these words be posted a second time, or raise Refusal, as for a new one."""
    _check_ban(session, shown, now=now)
    settings = settings_of(session, shown.guild_id)
    _check_channel(settings, shown)
    verdict = judge(shown.request.prompt, rules_of(session, settings), restricted=shown.age_restricted)
    if verdict is not None and verdict.rule.action is Action.REFUSE:
        raise _refused(verdict)


def _pass_at_home(verdict: Verdict | None, *, usual: Limits) -> Pass:
    """A job of no server, which is the console's: nobody there could let go what is held.

    A pause of everywhere holds no job, here as elsewhere: the queue itself stands still.
    """
    if verdict is not None and verdict.rule.action is Action.HOLD:
        raise PromptRefused(
            msg("A moderator would have to look at these words, and the console has none: {found}. Choose others."),
            found=quoted(verdict.found, characters=FOUND_CHARACTERS),
        )
    return Pass(limits=usual, server_seconds=0.0, paused=False, verdict=verdict)


def settle_in(session: Session, row: JobRow, entry: Pass, *, now: datetime) -> None:
    """The job has its row: hold it, or tell the moderators of it, as its pass says."""
    verdict = entry.verdict
    held = verdict is not None and verdict.rule.action is Action.HOLD
    if verdict is not None:
        act = Act.HOLD if held else Act.FLAG
        note(session, _of_job(row, act, rule=verdict.found), now=now)
    if held and verdict is not None:
        hold(session, row, why=HeldFor.REVIEW, rule=verdict.found)
    elif entry.paused:
        hold(session, row, why=HeldFor.PAUSE)


def rules_of(session: Session, settings: ServerSettings) -> list[Rule]:
    """All rules of a server: those that always hold, the usual ones unless it turned them off, and its own."""
    own = session.scalars(_OWN_RULES, {"guild": settings.guild_id})
    usual = USUAL if settings.default_rules else ()
    return [*ALWAYS, *usual, *map(to_rule, own)]


def ban_of(session: Session, guild_id: int, user_id: int, *, now: datetime) -> BanRow | None:
    """The ban that keeps somebody out of a server, that of the host first."""
    found = session.scalars(_BANS, {"user": user_id, "guild": guild_id})
    return next((ban for ban in found if ban.until is None or ban.until > now), None)


def _check_ban(session: Session, new: NewJob, *, now: datetime) -> None:
    ban = ban_of(session, new.guild_id, new.user_id, now=now)
    if ban is not None:
        raise Banned(
            everywhere=ban.guild_id == EVERYWHERE,
            reason=quoted(ban.reason, characters=REASON_MAX_CHARACTERS),
            until=ban.until,
        )


def _check_channel(settings: ServerSettings, new: NewJob) -> None:
    allowed = settings.channel_ids
    if allowed and new.channel_id not in allowed and new.parent_channel_id not in allowed:
        raise WrongChannel(channel_ids=allowed)


def _check_size(settings: ServerSettings, new: NewJob) -> None:
    request, limit = new.request, settings.pixels_max
    if limit is not None and request.width * request.height > limit:
        raise NotAllowed(
            msg("The largest size in this server is {limit} ({pixels:,} pixels); {size} has {asked:,}."),
            limit=settings.size_max,
            pixels=limit,
            size=request.size,
            asked=request.width * request.height,
        )
    if settings.steps_max is not None and request.steps > settings.steps_max:
        raise NotAllowed(
            msg("In this server a picture may take {limit} steps; you asked for {steps}."),
            limit=settings.steps_max,
            steps=request.steps,
        )


def _check_loras(settings: ServerSettings, new: NewJob) -> None:
    if not new.request.loras or settings.lora_access is LoraAccess.EVERYONE:
        return
    if settings.lora_access is LoraAccess.NOBODY or not settings.lora_role_ids:  # none was chosen, or all were deleted
        raise NotAllowed(msg("Nobody may use LoRAs in this server. Please ask without one."))
    if not set(settings.lora_role_ids) & set(new.role_ids):
        roles = ", ".join(f"<@&{role_id}>" for role_id in settings.lora_role_ids)
        raise NotAllowed(msg("In this server LoRAs are for members with one of these roles: {roles}."), roles=roles)


def _limits(settings: ServerSettings, usual: Limits) -> Limits:
    said = {name: value for name in _LIMITS if (value := getattr(settings, name)) is not None}
    return replace(usual, **said)


def _refused(verdict: Verdict) -> PromptRefused:
    if verdict.rule in ALWAYS:
        return PromptRefused(msg("Kiln draws no sexual pictures of minors, whatever the server."))
    return PromptRefused(
        msg("A rule of this server refuses these words here: {found}. Please choose other words."),
        found=quoted(verdict.found, characters=FOUND_CHARACTERS),
    )


def _of_job(row: JobRow, act: Act, **values: object) -> Entry:
    return Entry(act=act, guild_id=row.guild_id, user_id=row.user_id, job_id=row.id, values=values)
