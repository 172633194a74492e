"""The people and channels of a server with keepers, on the stage of conftest.py: owner, keeper, moderator, member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import discord
from simcord import ChannelHandle, InteractionResult, MemberActor

from tests.bot.conftest import Stage, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepers:
    """Who is there beside alice, a member."""

    stage: Stage
    keeper: MemberActor  # Manage Server
    moderator: MemberActor  # Timeout Members
    log: ChannelHandle

    async def panel(self) -> InteractionResult:
        """Open the panel as a keeper."""
        return await self.keeper.slash(self.stage.channel, "server")

    async def use(self, shown: InteractionResult, what: str, *values: Any) -> InteractionResult:
        """Choose in a menu of the panel, or press a button when there is nothing to choose."""
        return await press(self.keeper, shown, f"server:{what}:0", *values)

    async def change(self, **changes: Any) -> None:
        """Change settings as the panel does."""
        kiln = self.stage.kiln
        await kiln.keepers.servers.change(self.stage.guild.id, actor_id=self.keeper.id, **changes)

    def posts(self) -> list[str]:
        """What the log channel heard."""
        return [text_of(message) for message in self.log.history()]


def enter(stage: Stage) -> Keepers:
    """Let the keepers join, and make a channel for the log."""
    guild, env = stage.guild, stage.env
    keeper_role = guild.create_role("keepers", permissions=discord.Permissions(manage_guild=True))
    moderator_role = guild.create_role("moderators", permissions=discord.Permissions(moderate_members=True))
    return Keepers(
        stage=stage,
        keeper=guild.add_member(env.create_user("keeper"), roles=[keeper_role]),
        moderator=guild.add_member(env.create_user("moderator"), roles=[moderator_role]),
        log=guild.create_text_channel("log"),
    )


async def allow(stage: Stage, name: str, *people: MemberActor) -> None:
    """Let people see a command that Discord hides from them, as a server may."""
    known = await stage.bot.tree.fetch_commands()
    command = next(command for command in known if command.name == name)
    stage.guild.set_command_permissions(command, dict.fromkeys(people, True))


async def press(person: MemberActor, shown: InteractionResult, custom_id: str, *values: Any) -> InteractionResult:
    """Use a part of a message that an answer showed."""
    assert shown.response is not None
    if values:
        return await person.select(shown.response, list(values), custom_id=custom_id)
    return await person.click(shown.response, custom_id=custom_id)
