"""The server that the demo plays in: three people with different rights, and two channels.

Ids come from simcord's counter, so the order here is part of what a kept data folder remembers: add at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import discord

if TYPE_CHECKING:
    from simcord.actors import MemberActor
    from simcord.builders import ChannelHandle
    from simcord.env import Env

GREETING = "Type /imagine a red house at night and press Enter"
KEEPERS_TOPIC = "Only moderators see this channel: try /server and name it as the log channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """People and channels, the first of each being where the page opens."""

    people: tuple[MemberActor, ...]
    kinds: dict[int, str]  # a person's id: what they are, in a word
    channels: tuple[ChannelHandle, ...]

    def sees(self, person: MemberActor, channel: ChannelHandle) -> bool:
        """Whether `person` can read `channel`."""
        from simcord.backend.access import can_access_channel

        return can_access_channel(person._env, channel.id, person, history=True)

    def facts(self) -> dict[str, object]:
        """What the page's script must know, as plain values; ids as text, since JavaScript would round the numbers."""
        channels = [
            {"id": str(it.id), "name": it.name, "seenBy": [str(who.id) for who in self.people if self.sees(who, it)]}
            for it in self.channels
        ]
        return {"people": {str(person): kind for person, kind in self.kinds.items()}, "channels": channels}


def set_stage(env: Env) -> Stage:
    """Make the server with its people and channels."""
    guild = env.create_guild("Kiln's studio")
    pictures = guild.create_text_channel("pictures", topic=GREETING)
    rights = discord.Permissions(manage_guild=True, manage_messages=True, moderate_members=True)
    moderators, regulars = guild.create_role("Moderators", permissions=rights), guild.create_role("Regulars")
    hidden, shown = discord.PermissionOverwrite(view_channel=False), discord.PermissionOverwrite(view_channel=True)
    reach: dict[Any, discord.PermissionOverwrite] = {
        guild.default_role: hidden,
        moderators: shown,
        guild.roles["Kiln"]: shown,
    }
    keepers = guild.create_text_channel("keepers", topic=KEEPERS_TOPIC, overwrites=reach)
    cast = {"You": ("member", [regulars]), "Ada": ("moderator", [moderators]), "Ben": ("newcomer", [])}
    people = tuple(
        guild.add_member(env.create_user(name, global_name=name, avatar=name), roles=roles)
        for name, (_, roles) in cast.items()
    )
    kinds = {person.id: kind for person, (kind, _) in zip(people, cast.values(), strict=True)}
    return Stage(people=people, kinds=kinds, channels=(pictures, keepers))
