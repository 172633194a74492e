"""What the panel of /server does when something in it is chosen or pressed.

Each part is known by its name, so it works after a restart, and asks the database anew, so it never shows what is not
so. Who may use it is checked at each press.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.answers import in_time, is_deferred, say_to
from bot.asking.wishes import chosen_style
from bot.errors import NotAllowed, Refusal
from bot.language import msg
from bot.mistakes import told
from bot.panel.dialogs import LIMITS, ROLE, NewRule, Numbers, Pictures
from bot.panel.panel import panel, rules_page
from bot.queue.roles import RoleTerms
from bot.rights import check_keeper
from bot.servers.server import LoraAccess

if TYPE_CHECKING:
    from bot.client import KilnBot
    from bot.queue.job import Limits

    _Asked = discord.Interaction[KilnBot]

_View = Coroutine[Any, Any, ui.LayoutView]


class PanelItem(ui.DynamicItem[ui.Item[Any]], template=r"server:(?P<what>[a-z_]{1,20}):(?P<page>\d{1,3})"):
    """Any menu or button of the panel."""

    def __init__(self, item: ui.Item[Any], *, what: str, page: int) -> None:
        self.what, self.page = what, page
        super().__init__(item)

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> PanelItem:
        """What was pressed or chosen."""
        return cls(item, what=match["what"], page=int(match["page"]))

    @told
    async def callback(self, interaction: _Asked) -> None:
        """Do it, and show the panel as it is then."""
        check_keeper(interaction)
        do = _DO.get(self.what)
        if do is None:
            raise Refusal(msg("This button is of another version of Kiln: it does nothing any more."))
        await do(interaction, self)

    @property
    def chosen(self) -> list[Any]:
        """What was chosen in a menu."""
        return list(self.item.values)  # type: ignore[attr-defined]


async def current_panel(interaction: _Asked) -> ui.LayoutView:
    """The panel as it is now."""
    servers, guild = interaction.client.kiln.keepers.servers, guild_of(interaction)
    return panel(say_to(interaction), guild, await servers.settings(guild.id), await servers.roles(guild.id))


def guild_of(interaction: discord.Interaction[Any]) -> discord.Guild:
    """The server. Raise NotAllowed if the bot has just left it."""
    if interaction.guild is None:
        raise NotAllowed(msg("Kiln works in servers only: please ask in a channel of a server I am in."))
    return interaction.guild


async def _show(interaction: _Asked, work: _View) -> None:
    """Put a view in the panel's place, or below a "thinking…" where the database takes long."""
    view = await in_time(interaction, work, alone=True)
    if is_deferred(interaction):
        await interaction.edit_original_response(view=view)
    else:
        await interaction.response.edit_message(view=view)


async def _change(interaction: _Asked, changes: dict[str, Any]) -> None:
    async def work() -> ui.LayoutView:
        kiln, guild = interaction.client.kiln, guild_of(interaction)
        made = dict(changes)
        if (name := made.get("default_style")) is not None:
            style = chosen_style(name, kiln.styles.of(guild.id))  # that there is one, and what it is stored as
            made["default_style"] = style.name if style is not None else None
        await kiln.keepers.servers.change(guild.id, actor_id=interaction.user.id, **made)
        kiln.keepers.log_channel.chosen(guild.id)
        return await current_panel(interaction)

    await _show(interaction, work())


async def _rules(interaction: _Asked, *, page: int) -> ui.LayoutView:
    servers, guild = interaction.client.kiln.keepers.servers, guild_of(interaction)
    settings, rules = await servers.settings(guild.id), await servers.rules(guild.id)
    return rules_page(say_to(interaction), settings, rules, page=page)


# One function for each part, by its name


async def _channels(interaction: _Asked, item: PanelItem) -> None:
    await _change(interaction, {"channel_ids": tuple(channel.id for channel in item.chosen)})


async def _log(interaction: _Asked, item: PanelItem) -> None:
    await _change(interaction, {"log_channel_id": next((channel.id for channel in item.chosen), None)})


async def _loras(interaction: _Asked, item: PanelItem) -> None:
    await _change(interaction, {"lora_access": LoraAccess(item.chosen[0])})


async def _lora_roles(interaction: _Asked, item: PanelItem) -> None:
    await _change(interaction, {"lora_role_ids": tuple(role.id for role in item.chosen)})


async def _private(interaction: _Asked, item: PanelItem) -> None:
    settings = await interaction.client.kiln.keepers.servers.settings(guild_of(interaction).id)
    await _change(interaction, {"private_allowed": not settings.private_allowed})


async def _limits(interaction: _Asked, item: PanelItem) -> None:
    settings = await interaction.client.kiln.keepers.servers.settings(guild_of(interaction).id)
    say, values = say_to(interaction), {name: getattr(settings, name) for name in LIMITS}
    title = say("Limits in this server")
    await Numbers(say, title=title, values=values, host=_host(interaction), then=_kept(_change)).open(interaction)


async def _pictures(interaction: _Asked, item: PanelItem) -> None:
    settings = await interaction.client.kiln.keepers.servers.settings(guild_of(interaction).id)
    dialog = Pictures(
        say_to(interaction),
        size=settings.size_max,
        steps=settings.steps_max,
        style=settings.default_style,
        then=_kept(_change),
    )
    await dialog.open(interaction)


async def _role(interaction: _Asked, item: PanelItem) -> None:
    if not item.chosen:
        await _show(interaction, current_panel(interaction))
        return
    role_id, say = item.chosen[0].id, say_to(interaction)
    known = await interaction.client.kiln.keepers.servers.roles(guild_of(interaction).id)
    terms = next((terms for terms in known if terms.role_id == role_id), None)
    values = {name: getattr(terms, name, None) for name in ROLE}
    then = _kept(partial(_set_role, role_id=role_id))
    title = say("What this role may have")
    await Numbers(say, title=title, values=values, host=_host(interaction), then=then).open(interaction)


async def _set_role(interaction: _Asked, values: dict[str, Any], *, role_id: int) -> None:
    async def work() -> ui.LayoutView:
        kiln, guild = interaction.client.kiln, guild_of(interaction)
        if guild.get_role(role_id) is None:
            raise Refusal(msg("That role was deleted meanwhile."))
        terms = RoleTerms(guild_id=guild.id, role_id=role_id, **values)
        await kiln.keepers.servers.set_role(terms, actor_id=interaction.user.id)
        kiln.keepers.log_channel.wake()
        return await current_panel(interaction)

    await _show(interaction, work())


async def _rules_shown(interaction: _Asked, item: PanelItem) -> None:
    await _show(interaction, _rules(interaction, page=item.page))


async def _add_rule(interaction: _Asked, item: PanelItem) -> None:
    then = _kept(partial(_put_rule, page=item.page))
    await NewRule(say_to(interaction), then=then).open(interaction)


async def _put_rule(interaction: _Asked, values: dict[str, Any], *, page: int) -> None:
    async def work() -> ui.LayoutView:
        kiln, guild = interaction.client.kiln, guild_of(interaction)
        await kiln.keepers.servers.add_rule(guild.id, values["rule"], actor_id=interaction.user.id)
        kiln.keepers.log_channel.wake()
        return await _rules(interaction, page=page)

    await _show(interaction, work())


async def _remove_rule(interaction: _Asked, item: PanelItem) -> None:
    async def work() -> ui.LayoutView:
        kiln, guild = interaction.client.kiln, guild_of(interaction)
        await kiln.keepers.servers.remove_rule(guild.id, int(item.chosen[0]), actor_id=interaction.user.id)
        kiln.keepers.log_channel.wake()
        return await _rules(interaction, page=item.page)

    await _show(interaction, work())


async def _usual(interaction: _Asked, item: PanelItem) -> None:
    async def work() -> ui.LayoutView:
        kiln, guild = interaction.client.kiln, guild_of(interaction)
        settings = await kiln.keepers.servers.settings(guild.id)
        on = not settings.default_rules
        await kiln.keepers.servers.change(guild.id, actor_id=interaction.user.id, default_rules=on)
        kiln.keepers.log_channel.wake()
        return await _rules(interaction, page=item.page)

    await _show(interaction, work())


async def _back(interaction: _Asked, item: PanelItem) -> None:
    await _show(interaction, current_panel(interaction))


def _host(interaction: _Asked) -> Limits | None:
    """The most that a server gives; the host's own people may give more."""
    keepers = interaction.client.kiln.keepers
    return None if interaction.user.id in keepers.owner_ids else keepers.limits


def _kept(then: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Check again when the dialog comes back: it may have been open for long."""

    async def checked(interaction: _Asked, values: dict[str, Any]) -> None:
        check_keeper(interaction)
        await then(interaction, values)

    return checked


_DO: dict[str, Callable[[_Asked, PanelItem], Coroutine[Any, Any, None]]] = {
    "channels": _channels,
    "log": _log,
    "loras": _loras,
    "lora_roles": _lora_roles,
    "role": _role,
    "limits": _limits,
    "pictures": _pictures,
    "private": _private,
    "rules": _rules_shown,
    "rules_next": _rules_shown,
    "add_rule": _add_rule,
    "remove_rule": _remove_rule,
    "usual": _usual,
    "back": _back,
}
