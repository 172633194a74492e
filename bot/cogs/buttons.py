"""What a press on a job's button does, and who may: today, after a restart, and on jobs of long ago.

Each press is one look at the job, one transaction at most, one answer. Knows nothing of how buttons look.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import discord

from bot.answers import ANSWER_SECONDS, answer, in_time, say_to
from bot.asking.children import child_request
from bot.asking.edit_dialog import edit_dialog, edited_request, submitted
from bot.asking.intake import Asking, Beginning
from bot.cards.buttons import Press
from bot.delivery.posting import UNREACHABLE
from bot.errors import NotAllowed, QueueUnavailable, Refusal
from bot.language import msg
from bot.queue.job import Job, JobStatus, Verb
from bot.queue.removal import unlink

if TYPE_CHECKING:
    from bot.client import KilnBot

_VERBS = {
    Press.REROLL: Verb.REROLL,
    Press.SUBTLE: Verb.SUBTLE,
    Press.STRONG: Verb.STRONG,
    Press.REPRODUCE: Verb.REPRODUCE,
    Press.RETRY: Verb.RETRY,
}
_OWNERS = frozenset({Press.CANCEL, Press.DELETE, Press.RETRY})  # what only its owner may do, or a moderator
_MODERATORS = frozenset({Press.CANCEL, Press.DELETE})

_log = logging.getLogger(__name__)


class Buttons:
    """Answers presses and dialogs."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot, self._asking = bot, Asking(bot)

    async def press(self, interaction: discord.Interaction[KilnBot], job_id: int, name: str) -> None:
        """Do what the button says; raise Refusal or InvalidRequest with what stands in the way."""
        try:
            press = Press(name)
        except ValueError:
            raise Refusal(msg("This button is of another version of Kiln: it does nothing any more.")) from None
        job = await self._job(interaction, job_id, press)
        match press:
            case Press.EDIT:
                await self._edit(interaction, job)
            case Press.CANCEL:
                await self._cancel(interaction, job)
            case Press.DELETE:
                await self._delete(interaction, job)
            case _:
                await self._make(interaction, job, _VERBS[press])

    async def submit(self, interaction: discord.Interaction[KilnBot], job_id: int | None, verb: Verb) -> None:
        """Ask for what a dialog came back with, about a job or about a file's recipe; raise as `press` does."""
        kiln = self._bot.kiln
        job = None if job_id is None else await self._job(interaction, job_id, Press.EDIT)
        values = submitted(interaction.data or {})
        parent = None if job is None else job.request
        request = edited_request(parent, values, kiln.profile, choose_seed=kiln.choose_seed)
        beginning = Beginning()
        if job is not None:
            beginning = Beginning(parent=job, verb=verb, private=job.private)
        await self._asking.ask(interaction, request, beginning=beginning)

    async def _job(self, interaction: discord.Interaction[KilnBot], job_id: int, press: Press) -> Job:
        """The job, if this person may do that with it; else raise NotAllowed or Refusal."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                job = await self._bot.kiln.queue.job(job_id)
        except TimeoutError:
            raise QueueUnavailable from None
        mine = job is not None and job.user_id == interaction.user.id
        if job is None or (job.guild_id != interaction.guild_id and not (interaction.guild_id is None and mine)):
            raise NotAllowed(msg("There is no job {number} here."), number=job_id)
        moderates = interaction.permissions.manage_messages and press in _MODERATORS
        if not mine and (job.private or press in _OWNERS) and not moderates:
            raise NotAllowed(msg("Job {number} is somebody else's: only they may do that."), number=job_id)
        if interaction.guild_id is None and press not in _MODERATORS:
            raise Refusal(msg("Kiln works in servers only: please ask in a channel of a server I am in."))
        if job.deleted_at is not None:
            raise Refusal(msg("The picture of job {number} was deleted."), number=job_id)
        return job

    async def _make(self, interaction: discord.Interaction[KilnBot], job: Job, verb: Verb) -> None:
        """Ask for a child of the job."""
        kiln = self._bot.kiln
        if verb is Verb.RETRY and job.status is not JobStatus.FAILED:
            raise Refusal(msg("Job {number} did not fail, so there is nothing to try again."), number=job.id)
        if verb is Verb.REPRODUCE and job.picture is None:
            raise Refusal(msg("Job {number} has no picture to compare with."), number=job.id)
        request = child_request(job.request, verb, seed=kiln.choose_seed())
        beginning = Beginning(parent=job, verb=verb, style=job.style, private=job.private)
        await self._asking.ask(interaction, request, beginning=beginning)

    async def _edit(self, interaction: discord.Interaction[KilnBot], job: Job) -> None:
        say, profile = say_to(interaction), self._bot.kiln.profile
        title = say("Edit job {number}", number=job.id)
        dialog = edit_dialog(say, job.request, profile, title=title, name=f"job:{job.id}:edited")
        await interaction.response.send_modal(dialog)

    async def _cancel(self, interaction: discord.Interaction[KilnBot], job: Job) -> None:
        """As /cancel does; a moderator cancels for its owner."""
        kiln, say = self._bot.kiln, say_to(interaction)
        cancel = kiln.queue.cancel(job.id, user_id=job.user_id, moderator_id=_moderator_id(interaction, job))
        cancelled = await in_time(interaction, cancel, alone=True)
        kiln.keepers.log_channel.wake()
        if cancelled.status is not JobStatus.RUNNING:
            kiln.delivery.cancelled(cancelled)
            words = say("Job {number} is cancelled.", number=job.id)
        elif kiln.dispatcher.cancel(job.id):
            words = say("Job {number} is being stopped.", number=job.id)
        else:
            words = say("Too late for job {number}: it has just been drawn.", number=job.id)
        await answer(interaction, words)

    async def _delete(self, interaction: discord.Interaction[KilnBot], job: Job) -> None:
        """Take the picture away: from the database, the disk, and Discord."""
        kiln, say = self._bot.kiln, say_to(interaction)
        remove = kiln.queue.removal.remove(job.id, moderator_id=_moderator_id(interaction, job))
        deleted = await in_time(interaction, remove, alone=True)
        kiln.keepers.log_channel.wake()
        await unlink(kiln.data, deleted)
        kiln.delivery.deleted(await kiln.queue.job(job.id) or deleted)
        messages = await kiln.reposts.take(job.id)
        if deleted.result_message_id is not None:
            messages += ((deleted.result_channel_id or deleted.channel_id, deleted.result_message_id),)
        if all([await self._take_away(job.id, *message) for message in messages]):
            words = say("The picture of job {number} is deleted.", number=job.id)
        else:
            words = say(
                "The picture of job {number} is deleted here, but its message stays: I cannot take it away.",
                number=job.id,
            )
        await answer(interaction, words)

    async def _take_away(self, job_id: int, channel_id: int, message_id: int) -> bool:
        """Delete a message with the picture; False: Discord does not let me, or does not answer."""
        try:
            await self._bot.get_partial_messageable(channel_id).get_partial_message(message_id).delete()
        except discord.NotFound:
            return True
        except UNREACHABLE as error:
            _log.warning("job %d: its message is not deleted: %s", job_id, error)
            return False
        return True


def _moderator_id(interaction: discord.Interaction[KilnBot], job: Job) -> int | None:
    """Who does it, if it is not the job's owner."""
    return None if interaction.user.id == job.user_id else interaction.user.id
