"""/recipe, *Show recipe* and *Remix*: what a picture was drawn from, and the same dialog to go on from there.

A recipe comes from a job, if the message is one's, else out of the file. Nobody reads a message here that they could
not open in Discord, and a private job is its owner's. What files hold is checked by `gen.recipe_reader`.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import ANSWER_SECONDS, in_time, say_to, show
from bot.asking.edit_dialog import edit_dialog
from bot.cards.recipes import Found, recipe_view
from bot.delivery.posting import UNREACHABLE
from bot.delivery.sight import visible_channels
from bot.errors import NotAllowed, QueueUnavailable, Refusal
from bot.language import msg
from bot.queue.job import Job
from gen.recipe_reader import FILE_MAX_BYTES, read_parameters, read_recipe

if TYPE_CHECKING:
    from bot.client import KilnBot

LINK_CHARACTERS = 200
READ_SECONDS = 10.0  # for a file to come from Discord
_LINK = re.compile(
    r"<?https://(?:\w+\.)?discord(?:app)?\.com/channels/(?P<guild>\d{1,20}|@me)/(?P<channel>\d{1,20})/"
    r"(?P<message>\d{1,20})/?>?"
)


class Recipe(commands.Cog):
    """The commands that read recipes."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot
        self.menus = (
            app_commands.ContextMenu(name=app_commands.locale_str(msg("Show recipe")), callback=self._show_of_message),
            app_commands.ContextMenu(name=app_commands.locale_str(msg("Remix")), callback=self._remix),
        )

    @app_commands.command(description=msg("See what a picture was drawn from"))
    @app_commands.describe(
        picture=msg("A PNG file that Kiln drew"), message=msg("The link of a message with a picture of Kiln's")
    )
    async def recipe(
        self,
        interaction: discord.Interaction[KilnBot],
        picture: discord.Attachment | None = None,
        message: app_commands.Range[str, 1, LINK_CHARACTERS] | None = None,
    ) -> None:
        """Show a file's recipe, or a message's."""
        if (picture is None) == (message is None):
            raise Refusal(msg("Give either a picture or a message's link."))
        look = self._of_link(interaction, message) if message is not None else _of_files([picture] if picture else [])
        await self._show(interaction, await in_time(interaction, look, alone=True))

    async def _show_of_message(self, interaction: discord.Interaction[KilnBot], message: discord.Message) -> None:
        await self._show(interaction, await in_time(interaction, self._of_message(interaction, message), alone=True))

    async def _remix(self, interaction: discord.Interaction[KilnBot], message: discord.Message) -> None:
        """Open the dialog with the recipe in it; a dialog must be the first answer, so there is little time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._of_message(interaction, message)
        except TimeoutError:
            raise QueueUnavailable from None
        if found.request is None:
            raise Refusal(msg("Another program drew this picture: Kiln can show its recipe, but not go on from it."))
        name = f"job:{found.job.id}:remixed" if found.job is not None else "recipe:remixed"
        say = say_to(interaction)
        lost = found.job is None and found.request.negative  # the dialog has five fields, and its name no room
        title = say("Remix, without its negative prompt") if lost else say("Remix")
        dialog = edit_dialog(say, found.request, self._bot.kiln.profile, title=title, name=name)
        await interaction.response.send_modal(dialog)

    async def _show(self, interaction: discord.Interaction[KilnBot], found: Found) -> None:
        await show(interaction, recipe_view(say_to(interaction), found, here=self._bot.kiln.profile.name))

    async def _of_message(self, interaction: discord.Interaction[KilnBot], message: discord.Message) -> Found:
        """The recipe of a message that the person pointed at; raise Refusal if it has none."""
        job = await self._job_of(interaction, message.id) or await self._reposted(message.id)
        return Found(job=job, request=job.request) if job is not None else await _of_files(message.attachments)

    async def _of_link(self, interaction: discord.Interaction[KilnBot], link: str) -> Found:
        """The recipe of a message by its link; raise Refusal or NotAllowed."""
        found = _LINK.fullmatch(link.strip())
        if found is None:
            raise Refusal(msg("This is no link of a message. In a message's menu, choose Copy Message Link."))
        if found["guild"] != str(interaction.guild_id):
            raise NotAllowed(msg("That message is not in this server: I read only those of this one."))
        channel = self._visible(interaction, int(found["channel"]))
        job = await self._job_of(interaction, int(found["message"]), channel_id=channel.id)
        if job is not None:
            return Found(job=job, request=job.request)
        try:
            message = await channel.fetch_message(int(found["message"]))
        except UNREACHABLE as error:
            raise Refusal(msg("I cannot read that message.")) from error
        return await _of_files(message.attachments)

    def _visible(self, interaction: discord.Interaction[KilnBot], channel_id: int) -> discord.PartialMessageable:
        """The channel, if the person may read it; else raise NotAllowed, whether or not there is one."""
        person = interaction.user
        may = isinstance(person, discord.Member) and channel_id in visible_channels(person, here=interaction.channel_id)
        if not may and channel_id != interaction.channel_id:
            raise NotAllowed(msg("You cannot read that message, or there is none."))
        return self._bot.get_partial_messageable(channel_id, guild_id=interaction.guild_id)

    async def _reposted(self, message_id: int) -> Job | None:
        """The job whose picture was posted again as this message; of a private one its file says enough."""
        number = await self._bot.kiln.reposts.job_of(message_id)
        job = None if number is None else await self._bot.kiln.queue.job(number)
        return None if job is None or job.private or job.deleted_at is not None else job

    async def _job_of(
        self, interaction: discord.Interaction[KilnBot], message_id: int, *, channel_id: int | None = None
    ) -> Job | None:
        """The job whose card or picture a message is; None if it is no job's. Raise NotAllowed or Refusal."""
        for job in await self._bot.kiln.queue.of_message(message_id):
            places = (job.channel_id, job.result_channel_id, job.parent_channel_id)
            if job.guild_id != interaction.guild_id or (channel_id is not None and channel_id not in places):
                continue
            if job.private and job.user_id != interaction.user.id:
                raise NotAllowed(msg("Job {number} is somebody else's: only they may do that."), number=job.id)
            if job.deleted_at is not None:
                raise Refusal(msg("The picture of job {number} was deleted."), number=job.id)
            return job
        return None


async def _of_files(files: list[discord.Attachment]) -> Found:
    """The recipe of the first picture that has one; raise Refusal or InvalidRequest if none has."""
    if not files:
        raise Refusal(msg("That message has no picture."))
    file = next((one for one in files if one.filename.lower().endswith(".png")), files[0])
    if file.size > FILE_MAX_BYTES:
        raise Refusal(msg("The file has {value:,} bytes; {most:,} is the most."), value=file.size, most=FILE_MAX_BYTES)
    try:
        async with asyncio.timeout(READ_SECONDS):
            data = await file.read()
    except UNREACHABLE as error:
        raise Refusal(msg("Discord does not hand me that file.")) from error
    recipe = await asyncio.to_thread(read_recipe, data)
    if recipe is not None:
        return Found(request=recipe.request, recipe=recipe)
    parameters = await asyncio.to_thread(read_parameters, data)
    if parameters is None:
        raise Refusal(msg("This picture has no recipe: the original file has it, a preview or a screenshot has not."))
    return Found(parameters=parameters)
