"""The panel of /server as it looks: a server's settings in one message of menus and buttons.

Every part carries its meaning in its name, `server:<what>:<page>`, so an old panel works after a restart; what each
does is in server_actions.py. Knows no network: settings in, view out.
"""

from __future__ import annotations

from typing import Any

import discord
from discord import ui

from bot.language import Message, Say, msg
from bot.panel.log_channel import channel_problem
from bot.panel.words import SETTINGS, rule_words, terms_words, value_words
from bot.queue.roles import RoleTerms
from bot.quoting import fold, quoted, visible
from bot.servers.policy import Rule
from bot.servers.server import LoraAccess, ServerSettings

CHOICES_MAX = 25  # Discord's limit for a menu
NAME_CHARACTERS = 60  # of a server's name
ROLES_SHOWN, RULES_SHOWN = 15, 10  # on a page
TEXT_CHARACTERS = 3400  # of the panel's own words; a message holds 4,000
COLOUR = 0x5865F2

_SHOWN = tuple(name for name in SETTINGS if name not in ("weight", "lora_role_ids"))
_Item = ui.Item[Any]


def panel(say: Say, guild: discord.Guild, settings: ServerSettings, roles: tuple[RoleTerms, ...]) -> ui.LayoutView:
    """The panel of one server."""
    view = _view(_lines(say, guild, settings, roles))
    channels = [channel_id for channel_id in settings.channel_ids if guild.get_channel(channel_id)]
    log = [settings.log_channel_id] if settings.log_channel_id and guild.get_channel(settings.log_channel_id) else []
    lora_roles = [role_id for role_id in settings.lora_role_ids if guild.get_role(role_id)]
    menus: list[tuple[str, _Item]] = [
        ("channels", _channels(say("Channels where Kiln answers (none: all)"), channels, most=CHOICES_MAX)),
        ("log", _channels(say("Log channel, for moderators"), log, most=1)),
        ("loras", _lora_access(say, settings)),
        ("lora_roles", _roles(say("Roles that may use LoRAs"), lora_roles, most=CHOICES_MAX)),
        ("role", _roles(say("Set weight and limits of a role…"), [], most=1)),
    ]
    for what, item in menus:
        view.add_item(ui.ActionRow(_named(item, what)))
    view.add_item(ui.ActionRow(*_buttons(say, settings)))
    return view


def _lines(say: Say, guild: discord.Guild, settings: ServerSettings, roles: tuple[RoleTerms, ...]) -> list[str]:
    name = quoted(guild.name, characters=NAME_CHARACTERS)
    lines = ["### " + say("Kiln in {server}", server=name)]
    lines += [f"**{say(SETTINGS[setting])}**: {_value(say, settings, setting)}" for setting in _SHOWN]
    shown = [terms_words(say, terms) for terms in roles[:ROLES_SHOWN]]
    if len(roles) > ROLES_SHOWN:
        shown.append(say("… and {n} more", n=len(roles) - ROLES_SHOWN))
    lines += [f"- {line}" for line in shown]
    if settings.log_channel_id is None:
        lines.append("-# " + say("Without a log channel, reports are in /mod log, and what a rule holds in /mod held."))
    return lines + [f"⚠️ {problem.told(say)}" for problem in problems(guild, settings, roles)]


def problems(guild: discord.Guild, settings: ServerSettings, roles: tuple[RoleTerms, ...] = ()) -> list[Message]:
    """What was configured and is not there any more, or not allowed, for the keepers."""
    found = [problem for problem in [channel_problem(guild, settings.log_channel_id)] if problem is not None]
    gone = [channel_id for channel_id in settings.channel_ids if guild.get_channel(channel_id) is None]
    if gone and len(gone) == len(settings.channel_ids):
        found.append(Message(msg("All chosen channels were deleted, so Kiln answers nowhere: please choose others.")))
    elif gone:
        found.append(Message(msg("Chosen channels that were deleted: {n}."), n=len(gone)))
    ids = [*settings.lora_role_ids, *(terms.role_id for terms in roles)]
    lost = {role_id for role_id in ids if guild.get_role(role_id) is None}
    if lost:
        found.append(Message(msg("Roles with settings here that were deleted: {n}."), n=len(lost)))
    return found


def _value(say: Say, settings: ServerSettings, setting: str) -> str:
    words = value_words(say, setting, getattr(settings, setting))
    if setting == "lora_access" and settings.lora_access is LoraAccess.ROLES:
        words += f" ({value_words(say, 'lora_role_ids', settings.lora_role_ids)})"
    return words


def _channels(placeholder: str, chosen: list[int], *, most: int) -> _Item:
    return ui.ChannelSelect(
        channel_types=[discord.ChannelType.text, discord.ChannelType.news, discord.ChannelType.voice]
        + [discord.ChannelType.forum] * (most > 1),
        placeholder=placeholder,
        min_values=0,
        max_values=most,
        default_values=[discord.SelectDefaultValue(id=one, type=_CHANNEL) for one in chosen[:most]],
    )


def _roles(placeholder: str, chosen: list[int], *, most: int) -> _Item:
    return ui.RoleSelect(
        placeholder=placeholder,
        min_values=0,
        max_values=most,
        default_values=[discord.SelectDefaultValue(id=one, type=_ROLE) for one in chosen[:most]],
    )


def _lora_access(say: Say, settings: ServerSettings) -> _Item:
    options = [
        discord.SelectOption(
            label=say("LoRAs: {who}", who=value_words(say, "lora_access", access)),
            value=access.value,
            default=access is settings.lora_access,
        )
        for access in LoraAccess
    ]
    return ui.Select(options=options)


def _buttons(say: Say, settings: ServerSettings) -> list[_Item]:
    private = say("Forbid private") if settings.private_allowed else say("Allow private")
    labels = {"limits": say("Limits…"), "pictures": say("Pictures…"), "private": private, "rules": say("Rules…")}
    return [_named(ui.Button(label=label), what) for what, label in labels.items()]


def rules_page(say: Say, settings: ServerSettings, rules: tuple[Rule, ...], *, page: int) -> ui.LayoutView:
    """The rules, a page at a time, with a menu that removes one."""
    pages = max(1, -(-len(rules) // RULES_SHOWN))
    page = min(page, pages - 1)
    shown = rules[page * RULES_SHOWN : (page + 1) * RULES_SHOWN]
    title = say("Rules of this server, page {page} of {pages}", page=page + 1, pages=pages)
    usual = f"**{say(SETTINGS['default_rules'])}**: {value_words(say, 'default_rules', settings.default_rules)}"
    lines = [f"- {rule_words(say, rule)}" for rule in shown] or [say("There is no rule yet.")]
    view = _view([f"### {title}", usual, *lines])
    if shown:
        options = [_removal(say, rule) for rule in shown]
        menu: _Item = ui.Select(options=options, placeholder=say("Remove a rule…"))
        view.add_item(ui.ActionRow(_named(menu, "remove_rule", page=page)))
    view.add_item(ui.ActionRow(*_rules_buttons(say, settings, page=page, pages=pages)))
    return view


def _removal(say: Say, rule: Rule) -> discord.SelectOption:
    return discord.SelectOption(label=fold(visible(rule.words), characters=100), value=str(rule.id))


def _rules_buttons(say: Say, settings: ServerSettings, *, page: int, pages: int) -> list[_Item]:
    usual = say("Switch Kiln's rules off") if settings.default_rules else say("Switch Kiln's rules on")
    return [
        _named(ui.Button(label="◀", disabled=page == 0), "rules", page=max(0, page - 1)),
        _named(ui.Button(label="▶", disabled=page + 1 >= pages), "rules_next", page=page + 1),
        _named(ui.Button(label=say("Add…")), "add_rule", page=page),
        _named(ui.Button(label=usual), "usual", page=page),
        _named(ui.Button(label=say("Back")), "back"),
    ]


def _view(lines: list[str]) -> ui.LayoutView:
    """A message with these words, to which menus are added. discord.py need not remember it: its parts have names."""
    view = ui.LayoutView(timeout=None)
    view.stop()
    text = fold("\n".join(lines), characters=TEXT_CHARACTERS)
    view.add_item(ui.Container(ui.TextDisplay(text), accent_colour=COLOUR))
    return view


def _named(item: _Item, what: str, *, page: int = 0) -> _Item:
    item.custom_id = f"server:{what}:{page}"  # type: ignore[attr-defined]
    return item


_CHANNEL, _ROLE = discord.SelectDefaultValueType.channel, discord.SelectDefaultValueType.role
