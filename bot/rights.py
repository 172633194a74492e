"""Who may do what, checked by us too: what Discord hides from whom is each server's to change.

Knows no command.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import discord

from bot.errors import NotAllowed
from bot.language import Message, msg


def check_keeper(interaction: discord.Interaction[Any]) -> None:
    """Raise NotAllowed unless the person may change the server's settings."""
    if not _may(interaction).manage_guild:
        raise _lacking(msg("Manage Server"))


def check_moderator(interaction: discord.Interaction[Any]) -> None:
    """Raise NotAllowed unless the person may moderate the server's members."""
    if not (_may(interaction).moderate_members or _may(interaction).manage_guild):
        raise _lacking(msg("Timeout Members"))


def check_owner(interaction: discord.Interaction[Any], owner_ids: Collection[int]) -> None:
    """Raise NotAllowed unless the person is one of the host's."""
    if interaction.user.id not in owner_ids:
        raise NotAllowed(msg("That is for the host of this Kiln alone. Its owners are named in its settings."))


def check_target(interaction: discord.Interaction[Any], person: discord.Member | discord.User) -> None:
    """Raise NotAllowed where a moderator would ban themselves, or somebody who may change the server's settings."""
    if person.id == interaction.user.id:
        raise NotAllowed(msg("You cannot ban yourself."))
    keeps = (
        isinstance(person, discord.Member) and (person.resolved_permissions or person.guild_permissions).manage_guild
    )
    if keeps and not _may(interaction).manage_guild:
        raise NotAllowed(msg("<@{user}> may manage this server, and you may not: you cannot ban them."), user=person.id)


def _may(interaction: discord.Interaction[Any]) -> discord.Permissions:
    may = interaction.permissions
    return discord.Permissions.all() if may.administrator else may


def _lacking(permission: str) -> NotAllowed:
    return NotAllowed(msg("You need the permission {permission} in this server."), permission=Message(permission))
