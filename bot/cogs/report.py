"""*Report picture*: a member points at a picture of Kiln's, and the moderators hear of it in the log channel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.answers import answer, in_time, say_to
from bot.errors import Refusal
from bot.language import msg
from bot.panel.dialogs import Reason
from bot.servers.server import REASON_MAX_CHARACTERS, Act, Entry

if TYPE_CHECKING:
    from bot.client import KilnBot

    _Asked = discord.Interaction[KilnBot]


def report_menu() -> app_commands.ContextMenu:
    """The entry in a message's menu."""
    return app_commands.ContextMenu(name=app_commands.locale_str(msg("Report picture")), callback=_report)


async def _report(interaction: _Asked, message: discord.Message) -> None:
    """Ask why, if the message is a picture of Kiln's."""
    assert interaction.client.user is not None
    if message.author.id != interaction.client.user.id or not _has_picture(message):
        raise Refusal(msg("Only pictures of Kiln's can be reported here. For others, please use Discord's own report."))
    owner = next((user.id for user in message.mentions), None)
    then = partial(_noted, channel_id=message.channel.id, message_id=message.id, owner_id=owner)
    say = say_to(interaction)
    title = say("Report this picture to the moderators")
    await Reason(say, title=title, most=REASON_MAX_CHARACTERS, then=then).open(interaction)


async def _noted(
    interaction: _Asked, values: dict[str, Any], *, channel_id: int, message_id: int, owner_id: int | None
) -> None:
    """Write the report down; the log channel hears of it."""
    assert interaction.guild_id is not None
    entry = Entry(
        act=Act.REPORT,
        guild_id=interaction.guild_id,
        actor_id=interaction.user.id,
        user_id=owner_id,
        channel_id=channel_id,
        message_id=message_id,
        values={"reason": values["reason"] or "—"},
    )
    kiln, say = interaction.client.kiln, say_to(interaction)
    await in_time(interaction, kiln.keepers.moderation.report(entry), alone=True)
    kiln.keepers.log_channel.wake()
    await answer(interaction, say("Thank you. It is noted for the moderators of this server."))


def _has_picture(message: discord.Message) -> bool:
    """A file, or a gallery with one."""
    galleries = (discord.ComponentType.media_gallery, discord.ComponentType.container)
    return bool(message.attachments) or any(part.type in galleries for part in message.components)
