"""/queue and /cancel: where my jobs stand, and taking one back. Nobody sees another person's prompt here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import ANSWER_SECONDS, CHOICES_MAX, answer, in_time, say_to
from bot.cards.job_card import place_words
from bot.errors import QueueUnavailable
from bot.language import Say, msg
from bot.queue.forecast import why
from bot.queue.job import JOB_ID_MAX, Job, JobStatus, Overview, Place
from bot.quoting import ago, fold, quoted

if TYPE_CHECKING:
    from bot.client import KilnBot

CHOICE_CHARACTERS = 100  # Discord's limit for a choice's name
CONTENT_CHARACTERS = 2000  # Discord's limit for a message
JOBS_SHOWN = 15
PROMPT_CHARACTERS = 60


class Queue(commands.Cog):
    """The commands about jobs that are waiting or being drawn."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(description=msg("See where your pictures stand, and how long the queue is"))
    async def queue(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Show the person their jobs with place and time, and everyone's number."""
        words = self._words(say_to(interaction), interaction.user.id)
        await answer(interaction, await in_time(interaction, words, alone=True))

    async def _words(self, say: Say, user_id: int) -> str:
        queue = self._bot.kiln.queue
        jobs = await queue.active_jobs(user_id)
        places = [await queue.place(job.id) for job in jobs[:JOBS_SHOWN]]
        lines = [_line(say, job, place) for job, place in zip(jobs, places, strict=False)]
        reasons = [f"-# {why(say, place)}" for place in places if place and place.position > 1][:1]
        everyone = overview_words(say, await queue.overview())
        if queue.held is not None:
            everyone += f"\n-# {queue.held.told(say)}"
        if not lines:
            return say("You have no picture waiting.") + f"\n{everyone}"
        return _fitted(say, [say("**Your pictures**"), *lines], [*reasons, everyone], jobs=len(jobs))

    @app_commands.command(description=msg("Take back one of your pictures that waits or is being drawn"))
    @app_commands.describe(job=msg("Choose from the list, or type the job's number"))
    async def cancel(
        self, interaction: discord.Interaction[KilnBot], job: app_commands.Range[int, 1, JOB_ID_MAX]
    ) -> None:
        """Cancel a waiting job at once, a running one within a step."""
        kiln, say = self._bot.kiln, say_to(interaction)
        cancelled = await in_time(interaction, kiln.queue.cancel(job, user_id=interaction.user.id), alone=True)
        job_named = say("job {number}, **{prompt}**", number=cancelled.id, prompt=_prompt(cancelled))
        if cancelled.status is not JobStatus.RUNNING:
            kiln.delivery.cancelled(cancelled)
            words = say("Cancelled {job}.", job=job_named)
        elif kiln.dispatcher.cancel(cancelled.id):
            words = say("Stopping {job}.", job=job_named)
        else:
            words = say("Too late for {job}: it has just been drawn.", job=job_named)
        await answer(interaction, words)

    @cancel.autocomplete("job")
    async def my_jobs(
        self, interaction: discord.Interaction[KilnBot], current: int | str
    ) -> list[app_commands.Choice[int]]:
        """Offer the person's own waiting and running jobs that match what was typed."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                jobs = await self._bot.kiln.queue.active_jobs(interaction.user.id)
                labels = {job.id: await self._label(say_to(interaction), job) for job in jobs}
        except (TimeoutError, QueueUnavailable):
            return []  # the number can be typed
        typed = str(current).strip().casefold()
        found = [number for number, label in labels.items() if typed in label.casefold()]
        return [app_commands.Choice(name=labels[number], value=number) for number in found[:CHOICES_MAX]]

    async def _label(self, say: Say, job: Job) -> str:
        place = await self._bot.kiln.queue.place(job.id)
        if job.status is JobStatus.HELD:
            where = say("held")
        elif place is None or place.position == 0:
            where = say("drawing now")
        else:
            where = say("place {position}", position=place.position)
        return fold(f"{job.id} · {where} · {job.request.prompt}", characters=CHOICE_CHARACTERS)


def _fitted(say: Say, lines: list[str], tail: list[str], *, jobs: int) -> str:
    """A head and as many whole lines as Discord takes in one message, and how many jobs are left out."""
    head, *rows = lines
    for shown in range(len(rows), -1, -1):
        more = [say("… and {n} more", n=jobs - shown)] if jobs > shown else []
        text = "\n".join([head, *rows[:shown], *more, *tail])
        if len(text) <= CONTENT_CHARACTERS:
            break
    return text


def _line(say: Say, job: Job, place: Place | None) -> str:
    where = place_words(say, place) if place else _where_otherwise(say, job)
    return say("`{number}` {where}: {prompt}", number=job.id, where=where, prompt=_prompt(job))


def _where_otherwise(say: Say, job: Job) -> str:
    return say("held") if job.status is JobStatus.HELD else say("just drawn")


def overview_words(say: Say, overview: Overview) -> str:
    """Everyone's queue in one line: how many pictures, how many people, when the last is ready."""
    if overview.waiting == 0 or overview.ready_at is None:
        idle = overview.running_job_id is None
        return say("No picture waits.") if idle else say("One picture is being drawn, none waits.")
    return say.many(
        "{n} picture waits, from {people}; the last is ready {when}.",
        "{n} pictures wait, from {people}; the last is ready {when}.",
        overview.waiting,
        n=overview.waiting,
        people=say.many("{n} person", "{n} people", overview.people, n=overview.people),
        when=ago(overview.ready_at),
    )


def _prompt(job: Job) -> str:
    return quoted(job.request.prompt, characters=PROMPT_CHARACTERS)
