"""Settings and acts in words, for the panel, for moderators and for the log channel. Knows no verbs and no network."""

from __future__ import annotations

from typing import Any

from bot.asking.styles import style_title
from bot.language import Say, msg
from bot.queue.roles import RoleTerms
from bot.quoting import quoted
from bot.servers.policy import Action, Rule, Where
from bot.servers.server import REASON_MAX_CHARACTERS, STYLE_MAX_CHARACTERS, Act, Entry, LoraAccess, Standing

RULE_CHARACTERS = 200  # of a rule, before escaping
SHOWN_MAX = 10  # channels or roles in one line

SETTINGS = {
    "weight": msg("weight"),
    "standing": msg("standing"),
    "channel_ids": msg("channels"),
    "log_channel_id": msg("log channel"),
    "default_style": msg("default style"),
    "size_max": msg("largest size"),
    "steps_max": msg("most steps"),
    "lora_access": msg("who may use LoRAs"),
    "lora_role_ids": msg("roles that may use LoRAs"),
    "private_allowed": msg("private pictures"),
    "default_rules": msg("the rules that Kiln brings"),
    "waiting_per_user": msg("waiting jobs a person"),
    "pictures_per_hour": msg("pictures an hour for a person"),
    "burst": msg("pictures in a row"),
    "gpu_seconds_per_day": msg("GPU-seconds a day for a person"),
    "server_gpu_seconds_per_day": msg("GPU-seconds a day for the whole server"),
}
_VALUES = {
    True: msg("yes"),
    False: msg("no"),
    LoraAccess.EVERYONE: msg("everyone"),
    LoraAccess.ROLES: msg("members of chosen roles"),
    LoraAccess.NOBODY: msg("nobody"),
    Standing.OPEN: msg("open"),
    Standing.PAUSED: msg("paused"),
    Standing.DRAINED: msg("drained: it takes no new pictures"),
}
ACTIONS = {
    Action.REFUSE: msg("refuse"),
    Action.HOLD: msg("hold for review"),
    Action.FLAG: msg("draw, and tell the log channel"),
}
PLACES = {
    Where.EVERYWHERE: msg("in all channels"),
    Where.OPEN: msg("in channels without age restriction"),
    Where.RESTRICTED: msg("in age-restricted channels"),
}
_NOT_SET = {
    "channel_ids": msg("all"),
    "log_channel_id": msg("none"),
    "default_style": msg("none"),
    "lora_role_ids": msg("none"),
}


def value_words(say: Say, setting: str, value: Any) -> str:
    """What a setting says; unset limits are the host's."""
    if value is None or value in ([], ()):
        return say(_NOT_SET[setting]) if setting in _NOT_SET else say("as the host has it")
    if setting == "channel_ids":
        return _listed(say, [f"<#{channel_id}>" for channel_id in value])
    if setting == "lora_role_ids":
        return _listed(say, [f"<@&{role_id}>" for role_id in value])
    if setting == "log_channel_id":
        return f"<#{value}>"
    if setting == "default_style":
        return quoted(style_title(say, value), characters=STYLE_MAX_CHARACTERS)
    if setting.endswith("gpu_seconds_per_day") and value == 0:
        return say("no limit")
    if isinstance(value, bool) or value in _VALUES:
        return say(_VALUES[value])
    return quoted(f"{value:g}" if isinstance(value, float) else str(value), characters=STYLE_MAX_CHARACTERS)


def terms_words(say: Say, terms: RoleTerms) -> str:
    """What a role may have, in one line."""
    return f"<@&{terms.role_id}>: " + said_words(say, said(terms))


def said(terms: RoleTerms) -> dict[str, float]:
    """What a role says, by setting."""
    return {name: value for name in SETTINGS if (value := getattr(terms, name, None)) is not None}


def said_words(say: Say, values: dict[str, float]) -> str:
    """Settings with their values."""
    shown = (f"{say(SETTINGS[name])} {value_words(say, name, value)}" for name, value in values.items())
    return say(", ").join(shown) or say("nothing of its own")


def rule_words(say: Say, rule: Rule) -> str:
    """A rule in one line."""
    shown = quoted(rule.words, characters=RULE_CHARACTERS)
    return say("{rule}: {action}, {where}", rule=shown, action=say(ACTIONS[rule.action]), where=say(PLACES[rule.where]))


def entry_words(say: Say, entry: Entry) -> str:
    """One act in a sentence; every mention in it is to be sent without a notification."""
    values = {name: _shown(value) for name, value in entry.values.items()}
    actor = f"<@{entry.actor_id}>" if entry.actor_id else "Kiln"
    about: dict[str, Any] = {"actor": actor, "user": _user(say, entry.user_id), "job": entry.job_id}
    match entry.act:
        case Act.SETTINGS:
            setting = entry.values["setting"]
            old, new = (value_words(say, setting, entry.values[name]) for name in ("old", "new"))
            name = say(SETTINGS[setting])
            return say("{actor} changed {setting}: {new} (it was: {old}).", actor=actor, setting=name, old=old, new=new)
        case Act.ROLE:
            role, terms = f"<@&{entry.values['role']}>", said_words(say, entry.values["terms"])
            return say("{actor} set what {role} may have: {terms}.", actor=actor, role=role, terms=terms)
        case Act.ROLE_GONE:
            terms = said_words(say, entry.values["terms"])
            return say(
                "The role {role} was deleted. What it had here is gone too: {terms}.", **{**values, "terms": terms}
            )
        case Act.RULE_ADDED | Act.RULE_REMOVED:
            return _rule_changed(say, entry, actor)
        case Act.BAN:
            until = entry.values["until"]
            end = say("for ever") if until is None else say("until {when}", when=f"<t:{until}:f>")
            return say("{actor} banned {user} {end}. Reason: {reason}", **about, end=end, reason=values["reason"])
        case Act.REPORT:
            link = f"https://discord.com/channels/{entry.guild_id}/{entry.channel_id}/{entry.message_id}"
            if entry.job_id is None:
                return say("{actor} reports [a picture]({link}) by {user}: {reason}", **about, link=link, **values)
            text = msg("{actor} reports [the picture]({link}) of job {job} by {user} (`{user_id}`): {reason}")
            return say(text, **about, link=link, user_id=entry.user_id, **values)
    return say(_SENTENCES[entry.act], **about, **values)


_SENTENCES = {
    Act.STYLE_SET: msg("{actor} set the style {style}: {told}"),
    Act.STYLE_REMOVED: msg("{actor} took the style {style} away."),
    Act.UNBAN: msg("{actor} lifted the ban of {user}."),
    Act.PAUSE: msg("{actor} paused Kiln. Waiting jobs held: {jobs}."),
    Act.DRAIN: msg("{actor} lets the queue run out: no new pictures."),
    Act.RESUME: msg("{actor} resumed Kiln. Held jobs let go: {jobs}."),
    Act.WIPE: msg("{actor} cancelled waiting jobs of {user}: {jobs}."),
    Act.CANCEL: msg("{actor} cancelled job {job} of {user}."),
    Act.DELETE: msg("{actor} deleted the picture of job {job} of {user}."),
    Act.RESET: msg("{actor} gave {user} their rate and GPU time of today anew."),
    Act.LOOK: msg("{actor} looked at job {job} of {user}."),
    Act.HOLD: msg("Job {job} of {user} waits for your decision. A rule found: {rule}"),
    Act.FLAG: msg("Job {job} of {user} is drawn. A rule found: {rule}"),
    Act.APPROVE: msg("{actor} approved job {job} of {user}."),
    Act.DENY: msg("{actor} denied job {job} of {user}."),
    Act.SEEN: msg("The picture of job {job} of {user} is hidden behind a spoiler. The classifier found: {label}"),
}


def _user(say: Say, user_id: int | None) -> str:
    return say("somebody") if user_id is None else f"<@{user_id}>"


def _rule_changed(say: Say, entry: Entry, actor: str) -> str:
    rule = Rule(words=entry.values["rule"], action=Action(entry.values["action"]), where=Where(entry.values["where"]))
    if entry.act is Act.RULE_ADDED:
        return say("{actor} added a rule: {rule}", actor=actor, rule=rule_words(say, rule))
    return say("{actor} removed a rule: {rule}", actor=actor, rule=rule_words(say, rule))


def _shown(value: Any) -> Any:
    return quoted(value, characters=REASON_MAX_CHARACTERS) if isinstance(value, str) else value


def _listed(say: Say, shown: list[str]) -> str:
    more = [say("… and {n} more", n=len(shown) - SHOWN_MAX)] if len(shown) > SHOWN_MAX else []
    return say(", ").join(shown[:SHOWN_MAX] + more)
