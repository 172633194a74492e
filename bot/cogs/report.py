"""*Report picture*: a member points at a picture of Kiln's, and the moderators hear of it in the log channel."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.answers import ANSWER_SECONDS, answer, in_time, say_to
from bot.cards.captions import is_in_server
from bot.errors import QueueUnavailable, Refusal
from bot.language import Message, msg
from bot.panel.dialogs import Reason
from bot.queue.job import STATUS_WORDS, Job
from bot.servers.server import REASON_MAX_CHARACTERS, Act, Entry

if TYPE_CHECKING:
    from bot.client import KilnBot

    _Asked = discord.Interaction[KilnBot]


def report_menu() -> app_commands.ContextMenu:
    """The entry in a message's menu."""
    return app_commands.ContextMenu(name=app_commands.locale_str(msg("Report picture")), callback=_report)


async def _report(interaction: _Asked, message: discord.Message) -> None:
    """Ask why, if the message shows a picture of Kiln's. A dialog must be the first answer, so there is little time."""
    assert interaction.client.user is not None
    if message.author.id != interaction.client.user.id:
        raise Refusal(_NO_PICTURE)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            entry = await _entry(interaction, message)
    except TimeoutError:
        raise QueueUnavailable from None
    say = say_to(interaction)
    title = say("Report this picture to the moderators")
    then = partial(_noted, entry=entry)
    await Reason(say, title=title, most=REASON_MAX_CHARACTERS, then=then).open(interaction)


async def _entry(interaction: _Asked, message: discord.Message) -> Entry:
    """What is to be noted: the picture that the message is, or whose card it is. Raise Refusal if it is neither."""
    assert interaction.guild_id is not None
    jobs = await _jobs(interaction, message)
    job = next((job for job in jobs if job.result_message_id is not None), jobs[0] if jobs else None)
    channel_id, message_id = message.channel.id, message.id
    if job is None and not message.attachments:
        raise Refusal(_NO_PICTURE)
    if job is not None and message.id == job.card_message_id:
        if job.deleted_at is not None:
            raise Refusal(msg("The picture of job {number} was deleted."), number=job.id)
        if job.result_message_id is None:
            text = msg("Job {number} has no picture to report: it is {state}.")
            raise Refusal(text, number=job.id, state=Message(STATUS_WORDS[job.status]))
        if is_in_server(job) and not job.private:
            channel_id, message_id = job.result_channel_id or job.channel_id, job.result_message_id
    owner = job.user_id if job is not None else next((user.id for user in message.mentions), None)
    return Entry(
        act=Act.REPORT,
        guild_id=interaction.guild_id,
        actor_id=interaction.user.id,
        user_id=owner,
        job_id=None if job is None else job.id,
        channel_id=channel_id,
        message_id=message_id,
    )


async def _jobs(interaction: _Asked, message: discord.Message) -> tuple[Job, ...]:
    """The jobs whose card or picture a message is, also one that was posted again."""
    kiln = interaction.client.kiln
    if jobs := await kiln.queue.of_message(message.id):
        return jobs
    number = await kiln.reposts.job_of(message.id)
    job = None if number is None else await kiln.queue.job(number)
    return () if job is None else (job,)


async def _noted(interaction: _Asked, values: dict[str, Any], *, entry: Entry) -> None:
    """Write the report down; the log channel hears of it."""
    entry = replace(entry, values={"reason": values["reason"] or "—"})
    kiln, say = interaction.client.kiln, say_to(interaction)
    await in_time(interaction, kiln.keepers.moderation.report(entry), alone=True)
    kiln.keepers.log_channel.wake()
    await answer(interaction, say("Thank you. It is noted for the moderators of this server."))


_NO_PICTURE = msg("Only pictures of Kiln's can be reported here. For others, please use Discord's own report.")
