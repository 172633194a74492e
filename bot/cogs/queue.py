"""/queue and /cancel: where my jobs stand, and taking one back. Nobody sees another person's prompt here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import ANSWER_SECONDS, CHOICES_MAX, in_time, say
from bot.cards import ago, fold, place_words, quoted
from bot.errors import QueueUnavailable
from bot.forecast import why
from bot.job import Job, JobStatus, Overview, Place

if TYPE_CHECKING:
    from bot.client import KilnBot

CHOICE_CHARACTERS = 100  # Discord's limit for a choice's name
CONTENT_CHARACTERS = 2000  # Discord's limit for a message
JOBS_SHOWN = 15
PROMPT_CHARACTERS = 60
JOB_ID_MAX = 2**53 - 1  # Discord's largest integer


class Queue(commands.Cog):
    """The commands about jobs that are waiting or being drawn."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(description="See where your pictures stand, and how long the queue is")
    async def queue(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Show the person their jobs with place and time, and everyone's number."""
        await say(interaction, await in_time(interaction, self._words(interaction.user.id), alone=True))

    async def _words(self, user_id: int) -> str:
        queue = self._bot.kiln.queue
        jobs = await queue.active_jobs(user_id)
        places = [await queue.place(job.id) for job in jobs[:JOBS_SHOWN]]
        lines = [_line(job, place) for job, place in zip(jobs, places, strict=False)]
        reasons = [f"-# {why(place)}" for place in places if place and place.position > 1][:1]
        everyone = overview_words(await queue.overview())
        if not lines:
            return f"You have no picture waiting.\n{everyone}"
        return _fitted("**Your pictures**", lines, [*reasons, everyone], jobs=len(jobs))

    @app_commands.command(description="Take back one of your pictures that waits or is being drawn")
    @app_commands.describe(job="Choose from the list, or type the job's number")
    async def cancel(
        self, interaction: discord.Interaction[KilnBot], job: app_commands.Range[int, 1, JOB_ID_MAX]
    ) -> None:
        """Cancel a waiting job at once, a running one within a step."""
        kiln = self._bot.kiln
        cancelled = await in_time(interaction, kiln.queue.cancel(job, user_id=interaction.user.id), alone=True)
        name = f"job {cancelled.id}, **{_prompt(cancelled)}**"
        if cancelled.status is not JobStatus.RUNNING:
            kiln.delivery.cancelled(cancelled)
            words = f"Cancelled {name}."
        elif kiln.dispatcher.cancel(cancelled.id):
            words = f"Stopping {name}."
        else:
            words = f"Too late for {name}: it has just been drawn."
        await say(interaction, words)

    @cancel.autocomplete("job")
    async def my_jobs(
        self, interaction: discord.Interaction[KilnBot], current: int | str
    ) -> list[app_commands.Choice[int]]:
        """Offer the person's own waiting and running jobs that match what was typed."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                jobs = await self._bot.kiln.queue.active_jobs(interaction.user.id)
                labels = {job.id: await self._label(job) for job in jobs}
        except (TimeoutError, QueueUnavailable):
            return []  # the number can be typed
        typed = str(current).strip().casefold()
        found = [number for number, label in labels.items() if typed in label.casefold()]
        return [app_commands.Choice(name=labels[number], value=number) for number in found[:CHOICES_MAX]]

    async def _label(self, job: Job) -> str:
        place = await self._bot.kiln.queue.place(job.id)
        where = "drawing now" if place is None or place.position == 0 else f"place {place.position}"
        return fold(f"{job.id} · {where} · {job.request.prompt}", characters=CHOICE_CHARACTERS)


def _fitted(head: str, lines: list[str], tail: list[str], *, jobs: int) -> str:
    """As many whole lines as Discord takes in one message, and how many jobs are left out."""
    for shown in range(len(lines), -1, -1):
        more = [f"… and {jobs - shown} more"] if jobs > shown else []
        text = "\n".join([head, *lines[:shown], *more, *tail])
        if len(text) <= CONTENT_CHARACTERS:
            break
    return text


def _line(job: Job, place: Place | None) -> str:
    return f"`{job.id}` {place_words(place) if place else 'just drawn'}: {_prompt(job)}"


def overview_words(overview: Overview) -> str:
    """Everyone's queue in one line: how many pictures, how many people, when the last is ready."""
    if overview.waiting == 0 or overview.ready_at is None:
        return "Nothing else waits." if overview.running_job_id is None else "One picture is being drawn, none waits."
    pictures = "1 picture waits" if overview.waiting == 1 else f"{overview.waiting} pictures wait"
    people = "1 person" if overview.people == 1 else f"{overview.people} people"
    return f"{pictures}, from {people}; the last is ready {ago(overview.ready_at)}."


def _prompt(job: Job) -> str:
    return quoted(job.request.prompt, characters=PROMPT_CHARACTERS)
