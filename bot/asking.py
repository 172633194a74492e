"""From an interaction to durable jobs and their card: what /imagine, buttons and dialogs do once a request is known.

Checks the channel, stores, answers with the card, wakes the dispatcher; in this order. Caps and rates are the queue's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import discord

from bot.answers import ALREADY_ANSWERED, in_time, is_deferred, say_to
from bot.cards import card
from bot.errors import QueueUnavailable, Refusal
from bot.job import Job, NewJob, Place, Verb
from bot.language import Message, msg, say_to_owner
from bot.posting import UNREACHABLE
from gen.request import ImageRequest

if TYPE_CHECKING:
    from bot.client import KilnBot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How a request came about, beside what it holds."""

    parent: Job | None = None
    verb: Verb | None = None
    style: str | None = None


class Asking:
    """Accepts requests of people."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    async def ask(
        self,
        interaction: discord.Interaction[KilnBot],
        request: ImageRequest,
        beginning: Beginning = Beginning(),
    ) -> None:
        """Accept one picture and answer with its card; raise Refusal or InvalidRequest with nothing stored."""
        check_channel(interaction)
        kiln = self._bot.kiln
        kiln.profile.check(request)
        new = _new_job(interaction, request, beginning)
        job, place = await in_time(interaction, self._accept(new), alone=False)
        try:
            await self._show_card(interaction, job, place, parent=beginning.parent)
        finally:
            kiln.dispatcher.wake()

    async def _accept(self, new: NewJob) -> tuple[Job, Place | None]:
        """Store the job, and look where it stands; once it is stored, nothing here fails."""
        queue = self._bot.kiln.queue
        job = await queue.submit(new)
        try:
            return job, await queue.place_of_new(job.id)
        except QueueUnavailable:
            return job, None  # the card does without

    async def _show_card(
        self, interaction: discord.Interaction[KilnBot], job: Job, place: Place | None, *, parent: Job | None
    ) -> None:
        """Answer with the card and remember its message.

        The job is stored: whatever fails here must neither lose it nor tell the person that it was not accepted.
        """
        kiln = self._bot.kiln
        try:
            view = card(say_to_owner(job), job, place=place, parent=parent)
            message_id = await self._answer(interaction, job, view=view)
            if message_id is None:
                return
            try:
                await kiln.queue.record_card(job.id, message_id=message_id)
            finally:
                kiln.delivery.card_shown(job.id, message_id=message_id)
        except (*UNREACHABLE, QueueUnavailable) as error:
            _log.warning("job %d: its card is not shown or not recorded: %s", job.id, error)

    async def _answer(
        self, interaction: discord.Interaction[KilnBot], job: Job, *, view: discord.ui.LayoutView
    ) -> int | None:
        """Send the card as the answer, or by channel when Discord no longer takes an answer; return its message.

        A connection that breaks may have brought the answer or not: it is sent once more, and then Discord either
        takes it or says that it has it. What a crash between here and `record_card` leaves is not looked for: that
        card goes on saying "waiting", and the picture comes all the same.
        """
        try:
            try:
                return await _send(interaction, view)
            except (aiohttp.ClientError, OSError) as error:
                _log.info("job %d: its card is sent once more (%s)", job.id, error)
                return await _send(interaction, view)
        except discord.InteractionResponded:
            return None
        except discord.HTTPException as error:
            if error.code == ALREADY_ANSWERED:  # a repeat, ours or the library's, hit the first one's success
                return await _original(interaction, view)
            _log.warning("job %d: the interaction takes no answer (%s); its card goes by channel", job.id, error)
            channel = self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
            return (await channel.send(view=view)).id


async def _send(interaction: discord.Interaction[KilnBot], view: discord.ui.LayoutView) -> int | None:
    if is_deferred(interaction):
        return (await interaction.edit_original_response(view=view)).id
    return (await interaction.response.send_message(view=view)).message_id


async def _original(interaction: discord.Interaction[KilnBot], view: discord.ui.LayoutView) -> int:
    """The message of an answer that Discord has already; the card replaces a "thinking…" whose deferral broke off."""
    shown = await interaction.original_response()
    if shown.flags.loading:
        await interaction.edit_original_response(view=view)
    return shown.id


def check_channel(interaction: discord.Interaction[KilnBot]) -> None:
    """Raise Refusal, naming what is missing, unless the bot may post a picture in this channel later."""
    allowed = interaction.app_permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    needed = {
        msg("View Channel"): allowed.view_channel,
        msg("Send Messages in Threads"): allowed.send_messages_in_threads or not in_thread,
        msg("Send Messages"): allowed.send_messages or in_thread,
        msg("Attach Files"): allowed.attach_files,
    }
    missing = [Message(name) for name, given in needed.items() if not given]
    if missing and not allowed.administrator:
        raise Refusal(
            msg(
                "I may not post pictures here: in this channel I lack {permissions}. "
                "Please ask a moderator, or try another channel."
            ),
            permissions=tuple(missing),
        )


def _new_job(interaction: discord.Interaction[KilnBot], request: ImageRequest, beginning: Beginning) -> NewJob:
    assert interaction.guild_id is not None
    assert interaction.channel_id is not None
    person, channel = interaction.user, interaction.channel
    return NewJob(
        interaction_id=interaction.id,
        user_id=person.id,
        guild_id=interaction.guild_id,
        channel_id=interaction.channel_id,
        parent_channel_id=channel.parent_id if isinstance(channel, discord.Thread) else None,
        role_ids=tuple(role.id for role in person.roles) if isinstance(person, discord.Member) else (),
        request=request,
        parent_id=beginning.parent.id if beginning.parent else None,
        verb=beginning.verb,
        style=beginning.style,
        locale=say_to(interaction).locale,
    )
