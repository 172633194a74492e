"""/stats and /about: how much was drawn for whom, how the GPU is, and what Kiln is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import answer, in_time, say_to
from bot.cogs.queue import overview_words
from bot.host.card_reader import Reading
from bot.language import Say, msg
from bot.queue.past import DAYS, Tallies, Tally
from bot.quoting import ago, quoted
from gen import __version__
from gen.request import ModelProfile
from gen.streaming.planner import gib

if TYPE_CHECKING:
    from bot.client import KilnBot

ABOUT_CHARACTERS = 2000  # Discord's limit for a message
NAME_CHARACTERS = 60


class Stats(commands.Cog):
    """The commands about Kiln itself."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(description=msg("How much was drawn for you and this server, and how the GPU is doing"))
    async def stats(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Count, ask the card, and tell the person alone."""
        await answer(interaction, await in_time(interaction, self._stats(interaction), alone=True))

    async def _stats(self, interaction: discord.Interaction[KilnBot]) -> str:
        kiln, say = self._bot.kiln, say_to(interaction)
        everybody = await kiln.past.tallies()
        now = kiln.now()
        midnight = datetime.combine(now.date(), time(), tzinfo=UTC)
        elapsed = max(1.0, (now - midnight).total_seconds())
        lines = [
            say("**Drawn today, and in {days} days**", days=DAYS),
            say("You: {count}", count=_counts(say, await kiln.past.tallies(user_id=interaction.user.id))),
            say("This server: {count}", count=_counts(say, await kiln.past.tallies(guild_id=interaction.guild_id))),
            say("Everybody: {count}", count=_counts(say, everybody)),
            say("**The GPU**"),
            overview_words(say, await kiln.queue.overview()),
            _part(say, everybody.today.seconds / elapsed),
            card_words(say, await asyncio.to_thread(kiln.card.read)),
            "-# " + say("Days begin at midnight UTC; today began {when}.", when=ago(midnight)),
        ]
        return "\n".join(lines)

    @app_commands.command(description=msg("What Kiln is, what it draws with, and what it keeps"))
    async def about(self, interaction: discord.Interaction[KilnBot]) -> None:
        """Tell the person alone."""
        kiln, say = self._bot.kiln, say_to(interaction)
        known = self._bot.tree.get_commands(type=discord.AppCommandType.chat_input)  # families by their name
        lines = [
            say("**Kiln {version}**: one GPU, shared fairly", version=__version__),
            model_words(say, kiln.profile),
            say("Every picture is made by a computer from words, and marked as AI-generated."),
            say("What it keeps: your prompts, settings and pictures with your Discord id, on the machine it runs on."),
            say("Running since {when}. Its code is free: Apache License 2.0.", when=ago(kiln.started_at)),
            *(f"`/{command.name}` {say(command.description)}" for command in known),
        ]
        while len("\n".join(lines)) > ABOUT_CHARACTERS:
            lines.pop()
        await answer(interaction, "\n".join(lines))


def _part(say: Say, part: float) -> str:
    """How much of the day so far the GPU has drawn."""
    if 0 < part < 0.01:
        return say("It has drawn less than 1 % of today.")
    return say("It has drawn {part:.0%} of today.", part=min(1.0, part))


def _counts(say: Say, tallies: Tallies) -> str:
    return say("today {today} · lately {lately}", today=_count(say, tallies.today), lately=_count(say, tallies.lately))


def _count(say: Say, tally: Tally) -> str:
    """So many pictures, in so much of the GPU's time; of how many people, if of several."""
    pictures = say.many("{n} picture", "{n} pictures", tally.pictures, n=tally.pictures)
    if tally.people > 1:
        people = say.many("{n} person", "{n} people", tally.people, n=tally.people)
        return say(
            "{pictures} of {people} ({time})", pictures=pictures, people=people, time=duration(say, tally.seconds)
        )
    return say("{pictures} ({time})", pictures=pictures, time=duration(say, tally.seconds))


def duration(say: Say, seconds: float) -> str:
    """A length of time in the largest unit that leaves two digits."""
    if seconds < 100:
        return say("{n:.0f} s", n=seconds)
    if seconds < 100 * 60:
        return say("{n:.0f} min", n=seconds / 60)
    return say("{n:.0f} h", n=seconds / 3600)


def card_words(say: Say, reading: Reading | None) -> str:
    """What the card says of itself, as far as it does."""
    if reading is None:
        return say("There is no NVIDIA card here, or its driver does not answer.")
    facts = []
    if reading.temperature is not None:
        facts.append(say("{n} °C", n=reading.temperature))
    if reading.memory_used is not None and reading.memory_total is not None:
        facts.append(say("{used} of {total} in use", used=gib(reading.memory_used), total=gib(reading.memory_total)))
    if reading.load is not None:
        facts.append(say("load {n} %", n=reading.load))
    if reading.power is not None:
        facts.append(say("{n:.0f} W", n=reading.power))
    return " · ".join([quoted(reading.name, characters=NAME_CHARACTERS), *facts])


def model_words(say: Say, profile: ModelProfile) -> str:
    """The model by name, its defaults and its limits."""
    words = say(
        "It draws with {model}: {size}, {steps} and guidance {guidance:g} if you choose nothing else, "
        "up to {most:,} pixels.",
        model=quoted(profile.name, characters=NAME_CHARACTERS),
        size=f"{profile.width}x{profile.height}",
        steps=say.many("{n} step", "{n} steps", profile.steps, n=profile.steps),
        guidance=profile.guidance,
        most=profile.pixels_max,
    )
    if profile.is_demo:
        return words + " " + say("That is the small demo model, which knows simple scenes only.")
    return words
