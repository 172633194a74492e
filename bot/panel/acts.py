"""What a moderator or the host does by command, from the checked person to the words of the answer.

`guild_id` is the server that a moderator speaks for, or EVERYWHERE for the host. Each act is a verb of
bot.servers.moderation; here its cards are shown anew, the log channel is woken, and the answer is worded.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import discord

from bot.cards.captions import is_in_server, picture_link, settings_line
from bot.errors import Refusal
from bot.language import Say, msg
from bot.panel.log_channel import MESSAGE_CHARACTERS, channel_problem
from bot.panel.words import entry_words
from bot.queue.job import STATUS_WORDS, Job
from bot.quoting import ago, explained, fold, message_link, quoted, quoted_within
from bot.servers.server import EVERYWHERE, REASON_MAX_CHARACTERS, Ban, Standing

if TYPE_CHECKING:
    from bot.client import KilnBot

    _Asked = discord.Interaction[KilnBot]

BAN_MAX = timedelta(days=3660)
CONTENT_CHARACTERS = 1750  # of a list; what is wrong with the log channel comes below it
LINES_MAX = 15  # of a list
PROMPT_CHARACTERS = 700  # of a job that a moderator looks at, before escaping

_LENGTH = re.compile(r"(\d{1,5})\s*(m|min|分钟|h|小时|d|天|w|周)", re.IGNORECASE)
_UNITS = {
    **dict.fromkeys(("m", "min", "分钟"), timedelta(minutes=1)),
    **dict.fromkeys(("h", "小时"), timedelta(hours=1)),
    **dict.fromkeys(("d", "天"), timedelta(days=1)),
    **dict.fromkeys(("w", "周"), timedelta(weeks=1)),
}


def parse_length(text: str) -> timedelta:
    """`30m`, `2h`, `3d`, `1w` as a time; raise Refusal, naming the limit and the value, for anything else."""
    found = _LENGTH.fullmatch(text.strip())
    length = int(found[1]) * _UNITS[found[2].lower()] if found else timedelta()
    if not timedelta() < length <= BAN_MAX:
        raise Refusal(
            msg("A length is a number with m, h, d or w, up to {limit} days, like 2h or 3d; it is {value}."),
            limit=BAN_MAX.days,
            value=quoted(text, characters=20),
        )
    return length


async def ban(
    interaction: _Asked, say: Say, guild_id: int, person: discord.abc.Snowflake, *, reason: str, length: str | None
) -> str:
    """Keep somebody out, and take back what they have waiting."""
    kiln = interaction.client.kiln
    now = kiln.now()
    until = None if length is None else now + parse_length(length)
    reason = " ".join(reason.split())[:REASON_MAX_CHARACTERS]
    actor = interaction.user.id
    await kiln.keepers.moderation.ban(
        Ban(guild_id=guild_id, user_id=person.id, reason=reason, until=until, by_id=actor, at=now)
    )
    wiped = await kiln.keepers.moderation.wipe(guild_id, person.id, actor_id=actor)
    _changed(interaction, wiped)
    end = _end(say, until)
    return say("<@{user}> is banned {end}. Waiting jobs cancelled: {n}.", user=person.id, end=end, n=len(wiped))


async def unban(interaction: _Asked, say: Say, guild_id: int, person: discord.abc.Snowflake) -> str:
    """Let somebody in again."""
    await interaction.client.kiln.keepers.moderation.unban(guild_id, person.id, actor_id=interaction.user.id)
    _changed(interaction, ())
    return say("<@{user}> may use Kiln again.", user=person.id)


async def bans(interaction: _Asked, say: Say, guild_id: int) -> str:
    """Who is kept out, why, until when."""
    found = await interaction.client.kiln.keepers.moderation.bans(guild_id)
    lines = [
        say(
            "<@{user}> {end}, by <@{by}>: {reason}",
            user=one.user_id,
            end=_end(say, one.until),
            by=one.by_id,
            reason=quoted(one.reason, characters=80),
        )
        for one in found
    ]
    return listed(say, lines) or say("Nobody is banned.")


async def stand(interaction: _Asked, say: Say, guild_id: int, standing: Standing) -> str:
    """Pause, drain or resume."""
    moved = await interaction.client.kiln.keepers.moderation.stand(guild_id, standing, actor_id=interaction.user.id)
    _changed(interaction, moved)
    return say(_STANDING[guild_id == EVERYWHERE, standing])


_STANDING = {
    (False, Standing.PAUSED): msg(
        "Paused in this server: new and waiting jobs are held until /mod resume. What is being drawn is finished."
    ),
    (False, Standing.DRAINED): msg("Draining: this server takes no new pictures; what waits is drawn."),
    (False, Standing.OPEN): msg("Kiln works in this server again."),
    (True, Standing.PAUSED): msg(
        "Paused: nothing more is begun, in any server; new jobs wait. What is being drawn is finished."
    ),
    (True, Standing.DRAINED): msg("Draining: no server takes new pictures; what waits is drawn."),
    (True, Standing.OPEN): msg("Kiln works again."),
}


async def wipe(interaction: _Asked, say: Say, guild_id: int, person: discord.abc.Snowflake) -> str:
    """Cancel what somebody has waiting."""
    wiped = await interaction.client.kiln.keepers.moderation.wipe(guild_id, person.id, actor_id=interaction.user.id)
    _changed(interaction, wiped)
    return say("Waiting jobs of <@{user}> cancelled: {n}.", n=len(wiped), user=person.id)


async def reset(interaction: _Asked, say: Say, guild_id: int, person: discord.abc.Snowflake) -> str:
    """Give somebody their rate and the day's GPU time anew."""
    await interaction.client.kiln.keepers.moderation.reset(guild_id, person.id, actor_id=interaction.user.id)
    _changed(interaction, ())
    return say("<@{user}> has all of their rate and GPU time of today again.", user=person.id)


async def log_lines(interaction: _Asked, say: Say, guild_id: int) -> str:
    """The last acts, newest first."""
    entries = await interaction.client.kiln.keepers.audit.of_server(guild_id, limit=LINES_MAX)
    lines = [f"{ago(entry.at)} {entry_words(say, entry)}" for entry in entries if entry.at is not None]
    return listed(say, lines) or say("Nothing was done yet.")


def job_words(say: Say, job: Job) -> str:
    """A job as a moderator sees it, with as much of its prompt as a message holds beside the rest."""
    above = say(
        "Job {number} of <@{user}>, {state}", number=job.id, user=job.user_id, state=say(STATUS_WORDS[job.status])
    )
    below = [f"-# {settings_line(say, job.request)} · <#{job.channel_id}> · {ago(job.created_at)}"]
    if job.reason:
        below.append(explained(job.reason, characters=REASON_MAX_CHARACTERS))
    below += _links(say, job)
    room = MESSAGE_CHARACTERS - len("\n".join([above, "****", *below]))
    return "\n".join([above, f"**{quoted_within(job.request.prompt, room, characters=PROMPT_CHARACTERS)}**", *below])


def _links(say: Say, job: Job) -> list[str]:
    """Ways to what stands in the server: nobody but its owner can open a private job's, or a direct message."""
    if job.private:
        return []
    links = []
    if job.card_message_id is not None:
        links.append(f"[{say('card')}]({message_link(job.guild_id, job.channel_id, job.card_message_id)})")
    if job.result_message_id is not None and is_in_server(job) and (link := picture_link(job)) is not None:
        links.append(f"[{say('picture')}]({link})")
    return links


def held_line(say: Say, job: Job) -> str:
    """A job that waits for a decision, in one line."""
    prompt = quoted(job.request.prompt, characters=80)
    return say(
        "`{number}` of <@{user}>, {when}: {prompt}",
        number=job.id,
        user=job.user_id,
        when=ago(job.created_at),
        prompt=prompt,
    )


async def with_problem(interaction: _Asked, say: Say, words: str) -> str:
    """The answer, and what is wrong with the log channel, which its moderators should know."""
    if interaction.guild is None:
        return words
    settings = await interaction.client.kiln.keepers.servers.settings(interaction.guild.id)
    problem = channel_problem(interaction.guild, settings.log_channel_id)
    return words if problem is None else f"{words}\n⚠️ {problem.told(say)}"


def listed(say: Say, lines: list[str]) -> str:
    """As many whole lines as a message takes, and how many are left out."""
    for shown in range(min(len(lines), LINES_MAX), -1, -1):
        more = [say("… and {n} more", n=len(lines) - shown)] if len(lines) > shown else []
        text = "\n".join([*lines[:shown], *more])
        if len(text) <= CONTENT_CHARACTERS:
            return text
    return fold(text, characters=CONTENT_CHARACTERS)


def _changed(interaction: _Asked, jobs: tuple[Job, ...]) -> None:
    kiln = interaction.client.kiln
    kiln.keepers.log_channel.wake()
    kiln.show_changed(jobs)


def _end(say: Say, until: datetime | None) -> str:
    return say("for ever") if until is None else say("until {when}", when=f"<t:{until.timestamp():.0f}:f>")
