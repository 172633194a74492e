"""Buttons that live for ever: what one does is in its name, `job:17:reroll`, so they work after a restart.

What they look like, and which a job has in each state. What a press does is `bot.cogs.buttons`'s business. Knows no
queue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import ui

from bot.language import Say, msg
from bot.queue.job import Job, JobStatus

if TYPE_CHECKING:
    from bot.client import KilnBot

NAME = re.compile(r"job:(?P<job>[0-9]{1,15}):(?P<press>[a-z]{1,20})")
ROW_MAX = 5  # buttons in a row


class Press(StrEnum):
    """What a button does; its name for ever."""

    REROLL = "reroll"
    SUBTLE = "subtle"
    STRONG = "strong"
    EDIT = "edit"
    REPRODUCE = "reproduce"
    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"


_LOOKS = {
    Press.REROLL: ("🎲", msg("Re-roll")),
    Press.SUBTLE: ("🌗", msg("Vary a little")),
    Press.STRONG: ("🌗", msg("Vary a lot")),
    Press.EDIT: ("✏️", msg("Edit")),
    Press.REPRODUCE: ("♻️", msg("Reproduce")),
    Press.RETRY: ("🔁", msg("Try again")),
    Press.CANCEL: ("⏹", msg("Cancel")),
    Press.DELETE: ("🗑", msg("Delete")),
}
_OF_CARD = {
    JobStatus.HELD: (Press.CANCEL,),
    JobStatus.QUEUED: (Press.CANCEL,),
    JobStatus.RUNNING: (Press.CANCEL,),
    JobStatus.FAILED: (Press.RETRY, Press.EDIT),
    JobStatus.CANCELLED: (Press.REROLL, Press.EDIT),
    JobStatus.QUARANTINED: (Press.EDIT,),
    JobStatus.KEPT: (Press.REROLL, Press.EDIT),
}
_OF_PICTURE = (Press.REROLL, Press.SUBTLE, Press.STRONG, Press.EDIT, Press.REPRODUCE, Press.DELETE)


class JobButton(ui.DynamicItem[ui.Button[Any]], template=NAME):
    """One button of one job."""

    def __init__(self, job_id: int, press: str, *, label: str = "", emoji: str | None = None) -> None:
        style = discord.ButtonStyle.primary if press == Press.RETRY else discord.ButtonStyle.secondary
        self.job_id, self.press = job_id, press
        super().__init__(ui.Button(label=label, emoji=emoji, style=style, custom_id=f"job:{job_id}:{press}"))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """The button of a press."""
        return cls(int(match["job"]), match["press"])

    async def callback(self, interaction: discord.Interaction[KilnBot]) -> None:  # type: ignore[override]
        """Hand the press on."""
        await interaction.client.pressed(interaction, self.job_id, self.press)


def card_row(say: Say, job: Job) -> ui.ActionRow[Any] | None:
    """The buttons of a job's card in its state; None: it has none."""
    presses = () if job.deleted_at else _OF_CARD.get(job.status, ())
    return ui.ActionRow(*_buttons(say, job, presses)) if presses else None


def batch_row(say: Say, jobs: Sequence[Job]) -> ui.ActionRow[Any] | None:
    """The buttons of several jobs' common card: for each the first of its state, with its number."""
    row: ui.ActionRow[Any] = ui.ActionRow()
    for job in jobs:
        for press in () if job.deleted_at else _OF_CARD.get(job.status, ())[:1]:
            emoji, label = _LOOKS[press]
            row.add_item(JobButton(job.id, press, label=f"{say(label)} {job.id}", emoji=emoji))
    return row if row.children else None


def failure_view(say: Say, job: Job) -> ui.View:
    """The buttons of a job whose card is gone, under the message that tells of its end."""
    view = ui.View(timeout=None)
    for button in _buttons(say, job, _OF_CARD[job.status]):
        view.add_item(button)
    return view


def picture_view(say: Say, job: Job) -> ui.View:
    """The buttons under a picture."""
    view = ui.View(timeout=None)
    for number, button in enumerate(_buttons(say, job, _OF_PICTURE)):
        button.row = number // (ROW_MAX - 1)
        view.add_item(button)
    return view


def _buttons(say: Say, job: Job, presses: Sequence[Press]) -> list[JobButton]:
    return [JobButton(job.id, press, label=say(_LOOKS[press][1]), emoji=_LOOKS[press][0]) for press in presses]
