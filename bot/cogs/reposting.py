"""*Post again* below a picture in /history: the same picture with its words, in the channel where I am.

Only what could have been drawn there too: the same server, a channel of the same kind, with the rights to post files,
not by who is banned nor with words that are refused by now. What a classifier hid stays behind its spoiler.
"""

from __future__ import annotations

import asyncio
import io
import re
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.answers import in_time, say_to
from bot.asking.intake import Beginning, check_channel, new_job
from bot.cards.buttons import picture_view
from bot.cards.captions import alt_text, picture_words
from bot.delivery.posting import UPLOAD_LIMIT, file_stem
from bot.delivery.upload import Upload, largest_fitting
from bot.errors import NotAllowed, Refusal
from bot.language import msg
from bot.mistakes import tell_mistake
from bot.queue.job import Job

if TYPE_CHECKING:
    from bot.client import KilnBot


class RepostButton(ui.DynamicItem[ui.Button[Any]], template=re.compile(r"repost:(?P<job>[0-9]{1,15})")):
    """Posts one job's picture again."""

    def __init__(self, job_id: int, *, label: str = "…") -> None:
        self._job_id = job_id
        super().__init__(ui.Button(label=label, emoji="📌", custom_id=f"repost:{job_id}"))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> RepostButton:
        """A button that was sent by this process or an earlier one."""
        return cls(int(match["job"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Post it, or say why not."""
        try:
            await post_again(interaction, self._job_id)
        except Exception as error:  # noqa: BLE001 - worded for the person, with its traceback in the log
            await tell_mistake(interaction, error, where=f"posting job {self._job_id} again")


async def post_again(interaction: discord.Interaction[KilnBot], job_id: int) -> None:
    """Post the person's own picture here; raise Refusal with what stands in the way."""
    kiln, say = interaction.client.kiln, say_to(interaction)
    job = await kiln.queue.job(job_id)
    if job is None or job.user_id != interaction.user.id:
        raise NotAllowed(msg("You have no job {number}."), number=job_id)
    check_channel(interaction)
    _check_author(interaction)
    _check_kind(interaction, job)
    upload, hidden = await in_time(interaction, _ready(interaction, job), alone=False)
    if not interaction.response.is_done():
        await interaction.response.defer(thinking=True)
    message = await interaction.edit_original_response(
        content=picture_words(say, job),
        attachments=[
            discord.File(io.BytesIO(upload.data), filename=upload.name, description=alt_text(say, job), spoiler=hidden),
        ],
        view=picture_view(say, job),
        allowed_mentions=discord.AllowedMentions.none(),
    )
    await kiln.reposts.add(job.id, channel_id=message.channel.id, message_id=message.id)


async def _ready(interaction: discord.Interaction[KilnBot], job: Job) -> tuple[Upload, bool]:
    """The file, and whether it goes behind a spoiler; raise Refusal where the keepers would refuse it by now."""
    keepers = interaction.client.kiln.keepers
    await keepers.moderation.check_again(new_job(interaction, job.request, Beginning()))
    hidden = await keepers.audit.hidden(job.id)
    return await _upload(interaction, job), bool(hidden)


def _check_author(interaction: discord.Interaction[KilnBot]) -> None:
    """Raise Refusal unless the person could post a file here themselves."""
    rights = interaction.permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    if not (rights.send_messages_in_threads if in_thread else rights.send_messages) or not rights.attach_files:
        raise Refusal(msg("You may not post files in this channel, so I do not do it for you."))


def _check_kind(interaction: discord.Interaction[KilnBot], job: Job) -> None:
    """Raise Refusal unless the picture was drawn in this server, in a channel that is as open or restricted as here."""
    if job.guild_id != interaction.guild_id:
        raise Refusal(msg("Job {number} is from another server: it can only be posted again there."), number=job.id)
    client = interaction.client
    origin = client.get_channel(job.channel_id) or client.get_channel(job.parent_channel_id or 0)
    if _is_restricted(origin) and not _is_restricted(interaction.channel):
        raise Refusal(
            msg("Job {number} is from an age-restricted channel: it can only be posted again in one."), number=job.id
        )


def _is_restricted(channel: Any) -> bool:
    """Whether only adults come there; of a channel that is gone nobody knows, so it counts as such."""
    return channel is None or bool(channel.is_nsfw())


async def _upload(interaction: discord.Interaction[KilnBot], job: Job) -> Upload:
    """The file as it fits here; raise Refusal if there is none."""
    if job.deleted_at is not None:
        raise Refusal(msg("The picture of job {number} was deleted."), number=job.id)
    if job.picture is None:
        raise Refusal(msg("The file of job {number}'s picture is not kept any more."), number=job.id)
    path = interaction.client.kiln.data / job.picture
    limit = interaction.guild.filesize_limit if interaction.guild else UPLOAD_LIMIT
    try:
        png = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise Refusal(msg("The file of job {number}'s picture is not kept any more."), number=job.id) from None
    upload = await asyncio.to_thread(largest_fitting, png, stem=file_stem(job), limit=limit)
    if upload is None:
        raise Refusal(msg("The picture's file is too large for this server."))
    return upload
