"""The two buttons under words that a rule holds: approve and deny.

Their state is in their names, so they live for ever. Whoever may moderate may press them; the first decides, and
everybody after is told that it is decided.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.answers import in_time, is_deferred, say_to
from bot.errors import NotAllowed, Refusal
from bot.language import Say
from bot.mistakes import told
from bot.queue.job import Job, JobStatus
from bot.rights import check_moderator

if TYPE_CHECKING:
    from bot.client import KilnBot


class Decision(ui.DynamicItem[ui.Button[Any]], template=r"review:(?P<job>\d{1,16}):(?P<verb>approve|deny)"):
    """One of the buttons."""

    def __init__(self, job_id: int, *, approve: bool, label: str) -> None:
        self.job_id, self.approve = job_id, approve
        style = discord.ButtonStyle.success if approve else discord.ButtonStyle.danger
        verb = "approve" if approve else "deny"
        super().__init__(ui.Button(style=style, label=label, custom_id=f"review:{job_id}:{verb}"))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> Decision:
        """The button that was pressed."""
        assert isinstance(item, ui.Button)
        return cls(int(match["job"]), approve=match["verb"] == "approve", label=item.label or "")

    @told
    async def callback(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Decide, say so in the log, and let the asker's card show it."""
        check_moderator(interaction)
        try:
            job = await in_time(interaction, decide(interaction, self.job_id, approve=self.approve), alone=True)
        except NotAllowed:
            raise
        except Refusal:
            await _close(interaction, None)
            raise
        await _close(interaction, job)


def buttons(say: Say, job_id: int) -> ui.View:
    """Both, for a message in the log channel."""
    view = ui.View(timeout=None)
    view.add_item(Decision(job_id, approve=True, label=say("Approve")))
    view.add_item(Decision(job_id, approve=False, label=say("Deny")))
    return view


async def decide(interaction: discord.Interaction[KilnBot], job_id: int, *, approve: bool) -> Job:
    """Approve or deny a held job, and let its card show it. Raise as `Moderation.decide`."""
    assert interaction.guild_id is not None
    kiln = interaction.client.kiln
    job = await kiln.keepers.moderation.decide(
        interaction.guild_id, job_id, actor_id=interaction.user.id, approve=approve
    )
    kiln.keepers.log_channel.wake()
    kiln.show_changed([job])
    return job


def decided_words(say: Say, job: Job) -> str:
    """What was decided."""
    if job.status is JobStatus.CANCELLED:
        return say("Job {number} is denied. Whoever asked is told.", number=job.id)
    return say("Job {number} is approved.", number=job.id)


async def _close(interaction: discord.Interaction[KilnBot], job: Job | None) -> None:
    """Take the buttons away, and say below the words what was decided."""
    say, message = say_to(interaction), interaction.message
    assert message is not None
    lines = [message.content] if message.content else []
    if job is not None:
        lines.append(f"-# {decided_words(say, job)} (<@{interaction.user.id}>)")
    content = "\n".join(lines)[:2000]
    if is_deferred(interaction):
        await message.edit(content=content, view=None)
        await interaction.delete_original_response()
    else:
        await interaction.response.edit_message(content=content, view=None)
