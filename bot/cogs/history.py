"""/history: pictures of mine, or of somebody else where I can see them; pages with buttons that outlive a restart."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.answers import ANSWER_SECONDS, CHOICES_MAX, answer, answer_with, in_time, say_to
from bot.cards.buttons import JobButton, Press
from bot.cards.history import ADDRESS, SEARCH_CHARACTERS, Address, page_layout
from bot.cards.thumbnails import thumbnail
from bot.cogs.reposting import RepostButton
from bot.delivery.sight import still_posted, visible_channels
from bot.errors import QueueUnavailable
from bot.language import Say, msg
from bot.mistakes import tell_mistake
from bot.queue.job import JOB_ID_MAX, Job
from bot.queue.past import Page, Shown
from bot.quoting import fold, quoted

if TYPE_CHECKING:
    from bot.client import KilnBot

CHOICE_CHARACTERS = 100  # Discord's limit for a choice's name


class History(commands.Cog):
    """The command that looks back."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(
        description=msg("Look through your pictures, or somebody's that were posted where you can see")
    )
    @app_commands.describe(
        user=msg("Whose pictures; yours if left out"),
        search=msg("Words of the prompt"),
    )
    async def history(
        self,
        interaction: discord.Interaction[KilnBot],
        user: discord.User | None = None,
        search: app_commands.Range[str, 1, SEARCH_CHARACTERS] | None = None,
    ) -> None:
        """Show the newest page to the person alone."""
        whose = interaction.user if user is None else user
        words = " ".join((search or "").split())
        address = Address(user_id=whose.id, search=words, newest=JOB_ID_MAX, page=1)
        shown = await in_time(interaction, look(interaction, address), alone=True)
        if isinstance(shown, str):
            await answer(interaction, shown)
        else:
            view, files = shown
            await answer_with(interaction, view, files)

    @history.autocomplete("search")
    async def prompts(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer the person's own latest prompts; never another's."""
        whose = getattr(interaction.namespace, "user", None)
        if whose is not None and whose.id != interaction.user.id:
            return []
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._bot.kiln.past.prompts(interaction.user.id, current, limit=CHOICES_MAX)
        except (TimeoutError, QueueUnavailable):
            return []
        names = {_searchable(prompt): fold(prompt, characters=CHOICE_CHARACTERS) for prompt in reversed(found)}
        return [app_commands.Choice(name=name, value=value) for value, name in reversed(names.items())]


class PageButton(ui.DynamicItem[ui.Button[Any]], template=ADDRESS):
    """Turns to another page."""

    def __init__(self, address: Address, *, label: str = "…", disabled: bool = False) -> None:
        super().__init__(ui.Button(label=label, custom_id=address.custom_id, disabled=disabled))
        self._address = address

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> PageButton:
        """A button that was sent by this process or an earlier one."""
        return cls(Address.read(match))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Show that page in the place of this one, to whoever pressed, with their own rights."""
        try:
            await interaction.response.defer()
            shown = await look(interaction, self._address)
            if isinstance(shown, str):
                await answer(interaction, shown)
            else:
                view, files = shown
                await interaction.edit_original_response(view=view, attachments=files)
        except Exception as error:  # noqa: BLE001 - worded for the person, with its traceback in the log
            await tell_mistake(interaction, error, where="/history")


async def look(
    interaction: discord.Interaction[KilnBot], address: Address
) -> tuple[ui.LayoutView, list[discord.File]] | str:
    """The page at that address as this person may see it, or words in its place. May raise QueueUnavailable."""
    bot, say = interaction.client, say_to(interaction)
    shown = Shown(user_id=address.user_id, search=address.search, newest=address.newest, page=address.page)
    is_mine = address.user_id == interaction.user.id
    if not is_mine:
        assert isinstance(interaction.user, discord.Member)
        seen = visible_channels(interaction.user, here=interaction.channel_id)
        shown = replace(shown, guild_id=interaction.guild_id, channel_ids=seen)
    page = await bot.kiln.past.pictures(shown)
    if not page.jobs:
        return _nothing(say, address, is_mine=is_mine)
    newest = page.jobs[0].id if page.page == 1 else address.newest
    here = replace(address, page=page.page, newest=min(newest, address.newest))
    if not is_mine:
        posted = await still_posted(bot, page.jobs)
        page = replace(page, jobs=posted, hidden=len(page.jobs) - len(posted))
    hidden = await bot.kiln.keepers.audit.hidden(*(job.id for job in page.jobs))
    shown_small = [job for job in page.jobs if job.id not in hidden]  # the others lie behind their spoilers
    files = {job.id: thumb for job in shown_small if (thumb := await _thumbnail(bot, job.picture)) is not None}
    title = say("**Your pictures**") if is_mine else say("**Pictures of {name}**", name=f"<@{address.user_id}>")
    actions = {job.id: _actions(say, job, interaction, is_mine=is_mine) for job in page.jobs}
    return page_layout(say, page, title=title, thumbnails=files, actions=actions, turning=_turning(say, page, here))


def _actions(say: Say, job: Job, interaction: discord.Interaction[KilnBot], *, is_mine: bool) -> list[ui.Item[Any]]:
    """The buttons below a picture; none where they would only refuse: of another server."""
    if job.guild_id != interaction.guild_id:
        return []
    reroll = JobButton(job.id, Press.REROLL, label=say("Re-roll"), emoji="🎲")
    return [reroll, RepostButton(job.id, label=say("Post again"))] if is_mine else [reroll]


def _turning(say: Say, page: Page, here: Address) -> list[ui.Item[Any]]:
    """The buttons to the pages beside this one."""
    if page.pages == 1:
        return []
    newer = PageButton(here.beside(-1), label=say("◀ Newer"), disabled=page.page == 1)
    older = PageButton(here.beside(+1), label=say("Older ▶"), disabled=page.page == page.pages)
    return [newer, older]


def _nothing(say: Say, address: Address, *, is_mine: bool) -> str:
    if address.search:
        words = quoted(address.search, characters=SEARCH_CHARACTERS)
        return say("No picture is found whose prompt has: {words}", words=words)
    if is_mine:
        return say("You have no pictures yet. /imagine draws the first.")
    return say("There are no pictures of {name} that you can see in this server.", name=f"<@{address.user_id}>")


async def _thumbnail(bot: KilnBot, picture: str | None) -> bytes | None:
    return None if picture is None else await asyncio.to_thread(thumbnail, bot.kiln.data / picture)


def _searchable(prompt: str) -> str:
    """As much of a prompt as a search may have, in whole words where it has any."""
    words = " ".join(prompt.split())
    if len(words) <= SEARCH_CHARACTERS:
        return words
    return words[: SEARCH_CHARACTERS + 1].rpartition(" ")[0] or words[:SEARCH_CHARACTERS]
