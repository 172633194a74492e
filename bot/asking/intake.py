"""From an interaction to durable jobs and their card: what /imagine, buttons and dialogs do once a request is known.

Checks the channel, stores, answers with the card, wakes the dispatcher; in this order. Caps and rates are the queue's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import aiohttp
import discord

from bot.answers import ALREADY_ANSWERED, in_time, is_deferred, say_to
from bot.cards.batch_card import Shown, batch_card
from bot.cards.job_card import card
from bot.delivery.posting import UNREACHABLE
from bot.errors import QueueUnavailable, Refusal
from bot.language import Message, msg, say_to_owner
from bot.queue.job import Job, NewJob, Place, Verb
from gen.request import ImageRequest

if TYPE_CHECKING:
    from bot.client import KilnBot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How requests came about, beside what they hold."""

    parent: Job | None = None
    verb: Verb | None = None
    style: str | None = None
    private: bool = False


class Asking:
    """Accepts requests of people."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    async def ask(
        self,
        interaction: discord.Interaction[KilnBot],
        *requests: ImageRequest,
        beginning: Beginning = Beginning(),
    ) -> None:
        """Accept pictures and answer with their card; raise Refusal or InvalidRequest with nothing stored."""
        kiln = self._bot.kiln
        if not beginning.private:
            check_channel(interaction)
        for request in requests:
            kiln.profile.check(request)
        await kiln.loras.check(requests[0].loras)
        if beginning.private:
            kiln.delivery.whispers.keep(interaction)
        new = [
            replace(new_job(interaction, request, beginning), number=number, count=len(requests))
            for number, request in enumerate(requests)
        ]
        jobs, places = await in_time(interaction, self._accept(new), alone=beginning.private)
        try:
            await self._show_card(interaction, jobs, places, parent=beginning.parent)
        finally:
            kiln.dispatcher.wake()

    async def _accept(self, new: list[NewJob]) -> tuple[tuple[Job, ...], list[Place | None]]:
        """Store the jobs, and look where they stand; once they are stored, nothing here fails."""
        queue = self._bot.kiln.queue
        jobs = await queue.submit_all(new)
        try:
            return jobs, [await queue.place_of_new(job.id) for job in jobs]
        except QueueUnavailable:
            return jobs, [None] * len(jobs)  # the card does without

    async def _show_card(
        self,
        interaction: discord.Interaction[KilnBot],
        jobs: tuple[Job, ...],
        places: list[Place | None],
        *,
        parent: Job | None,
    ) -> None:
        """Answer with the card and remember its message.

        The jobs are stored: whatever fails here must neither lose them nor tell the person that they were not accepted.
        """
        kiln, first = self._bot.kiln, jobs[0]
        try:
            if len(jobs) > 1:
                batch = [Shown(job=job, place=place) for job, place in zip(jobs, places, strict=True)]
                view = batch_card(say_to_owner(first), batch)
            else:
                view = card(say_to_owner(first), first, place=places[0], parent=parent)
            message_id = await self._answer(interaction, first, view=view)
            if message_id is None:
                return
            try:
                await kiln.queue.record_card(*(job.id for job in jobs), message_id=message_id)
            finally:
                for job in jobs:
                    kiln.delivery.card_shown(job.id, message_id=message_id)
        except (*UNREACHABLE, QueueUnavailable) as error:
            _log.warning("job %d: its card is not shown or not recorded: %s", first.id, error)

    async def _answer(
        self, interaction: discord.Interaction[KilnBot], job: Job, *, view: discord.ui.LayoutView
    ) -> int | None:
        """Send the card as the answer, or by channel when Discord no longer takes an answer; return its message.

        A connection that breaks may have brought the answer or not: it is sent once more, and then Discord either
        takes it or says that it has it. What a crash between here and `record_card` leaves is not looked for: that
        card goes on saying "waiting", and the picture comes all the same.
        """
        alone = job.private
        try:
            try:
                return await _send(interaction, view, alone=alone)
            except (aiohttp.ClientError, OSError) as error:
                _log.info("job %d: its card is sent once more (%s)", job.id, error)
                return await _send(interaction, view, alone=alone)
        except discord.InteractionResponded:
            return None
        except discord.HTTPException as error:
            if error.code == ALREADY_ANSWERED:  # a repeat, ours or the library's, hit the first one's success
                return await _original(interaction, view)
            _log.warning("job %d: the interaction takes no answer (%s); its card goes by channel", job.id, error)
            if alone:
                return None  # the picture comes all the same, directly
            channel = self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
            return (await channel.send(view=view)).id


async def _send(interaction: discord.Interaction[KilnBot], view: discord.ui.LayoutView, *, alone: bool) -> int | None:
    if is_deferred(interaction):
        return (await interaction.edit_original_response(view=view)).id
    return (await interaction.response.send_message(view=view, ephemeral=alone)).message_id


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


def new_job(interaction: discord.Interaction[KilnBot], request: ImageRequest, beginning: Beginning) -> NewJob:
    """What a submit has to know of this person, in this channel; of a command in a server."""
    assert interaction.guild_id is not None
    assert interaction.channel_id is not None
    person, channel = interaction.user, interaction.channel
    return NewJob(
        interaction_id=interaction.id,
        user_id=person.id,
        guild_id=interaction.guild_id,
        channel_id=interaction.channel_id,
        parent_channel_id=channel.parent_id if isinstance(channel, discord.Thread) else None,
        age_restricted=is_age_restricted(channel),
        role_ids=tuple(role.id for role in person.roles) if isinstance(person, discord.Member) else (),
        request=request,
        parent_id=beginning.parent.id if beginning.parent else None,
        verb=beginning.verb,
        style=beginning.style,
        locale=say_to(interaction).locale,
        private=beginning.private,
    )


def is_age_restricted(channel: object) -> bool:
    """Whether Discord shows a channel to adults only; a thread is what its parent is. Not known: no."""
    return isinstance(channel, _WITH_AGES) and channel.is_nsfw()


_WITH_AGES = (discord.TextChannel, discord.VoiceChannel, discord.StageChannel, discord.ForumChannel, discord.Thread)
