"""What a job looks like in Discord, state by state, and the words that go with its picture.

A card is Components V2 from its first send, because a message cannot change its style later; a picture is a plain
message with a file, so that Discord's search finds its prompt and every app sees the original. Knows no queue, no
network: job in, message out.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

import discord
from discord import ui

from bot.job import Job, JobStatus, Place
from gen.request import ImageRequest, StepReport

CARD_PROMPT_CHARACTERS = 300  # of the prompt on a card, before escaping
PICTURE_PROMPT_CHARACTERS = 500  # of the prompt above a picture, and of a reason; escaped, a message holds 2,000
ALT_TEXT_CHARACTERS = 1024  # Discord's limit for a file's description
BAR_WIDTH = 10  # characters

WAITING, WORKING, DONE, STOPPED, BROKEN = 0x5865F2, 0xF0B232, 0x23A55A, 0x80848E, 0xDA373C

_MARKUP = re.compile(r"([\\`*_~|<>\[\]#])")
_MENTION = re.compile(r"@(?=everyone|here|[!&]?\d)")
_INVITE = re.compile(r"(discord(?:app)?\.(?:gg|com))/", re.IGNORECASE)
_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def quoted(text: str, *, characters: int) -> str:
    """Fold `text` and make it inert: no mention, markdown, back-tick, link, invite or direction trick works in it."""
    shown = fold(_INVISIBLE.sub(" ", text), characters=characters)
    shown = _MARKUP.sub(r"\\\1", shown).replace("://", r":\//")
    return _MENTION.sub("@\u200b", _INVITE.sub(r"\1\\/", shown))


def fold(text: str, *, characters: int) -> str:
    """Shorten `text` to `characters` at most, with an ellipsis where something was left out."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def ago(moment: datetime) -> str:
    """A time that Discord shows relative to now, and that ticks on the client by itself; rounded up, not to be past."""
    return f"<t:{math.ceil(moment.timestamp())}:R>"


def settings_line(request: ImageRequest) -> str:
    """Seed and settings, as each card and picture shows them."""
    return f"seed `{request.seed}` · {request.size} · {_steps(request)} · guidance {request.guidance:g}"


def card(
    job: Job, *, place: Place | None = None, report: StepReport | None = None, link: str | None = None
) -> ui.LayoutView:
    """The card of `job` as its status, and what is known beside it, has it."""
    colour, words = _state(job, place=place, report=report, link=link)
    if job.notice and job.status in (JobStatus.DRAWN, JobStatus.DELIVERED):
        words += f"\n-# {quoted(job.notice, characters=CARD_PROMPT_CHARACTERS)}"
    view = ui.LayoutView(timeout=None)
    view.add_item(
        ui.Container(
            ui.TextDisplay(f"**{quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)}**"),
            ui.TextDisplay(words),
            ui.TextDisplay(f"-# {settings_line(job.request)} · job {job.id}"),
            accent_colour=colour,
        )
    )
    return view


def picture_words(job: Job, *, moved: bool = False) -> str:
    """The text above a picture; `moved` when it could not go where it was asked for."""
    request = job.request
    lines = [
        f"<@{job.user_id}> **{quoted(request.prompt, characters=PICTURE_PROMPT_CHARACTERS)}**",
        f"-# {settings_line(request)}{_took(job)}",
    ]
    if job.notice:
        lines.append(f"-# {quoted(job.notice, characters=CARD_PROMPT_CHARACTERS)}")
    if moved:
        lines.append(f"-# I may not post in <#{job.channel_id}> any more, so your picture comes here.")
    return "\n".join(lines)


def failure_words(job: Job) -> str:
    """A message of its own for a job whose card is gone."""
    prompt = quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)
    return f"<@{job.user_id}> **{prompt}**\n{_state(job)[1]}\n-# {settings_line(job.request)} · job {job.id}"


def message_link(guild_id: int | None, channel_id: int, message_id: int) -> str:
    """The address that jumps to a message; without a guild, of a direct message."""
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"


def alt_text(job: Job) -> str:
    """What a screen reader says for the picture: prompt, seed and settings."""
    request = job.request
    ending = f" (seed {request.seed}, {request.size}, {_steps(request)}, guidance {request.guidance:g})"
    beginning = "AI-generated picture: "
    room = ALT_TEXT_CHARACTERS - len(beginning) - len(ending)
    return beginning + fold(request.prompt, characters=room) + ending


def progress_bar(report: StepReport) -> str:
    """Ten characters that fill with the steps."""
    done = BAR_WIDTH * report.step // report.steps
    return "▰" * done + "▱" * (BAR_WIDTH - done)


def place_words(place: Place) -> str:
    """Where a waiting job stands and when its picture is expected."""
    when = f"ready {ago(place.ready_at)}{give_or_take(place.uncertainty)}"
    if place.position == 0:
        return f"being drawn now, {when}"
    return f"place {place.position} of {max(place.waiting, place.position)}, {when}"


def give_or_take(uncertainty: timedelta) -> str:
    """How sure a time is, in words; nothing under five seconds, which nobody minds."""
    seconds = uncertainty.total_seconds()
    if seconds < 5:
        return ""
    if seconds < 57.5:
        return f", give or take {5 * round(seconds / 5)} s"
    return f", give or take {max(1, round(seconds / 60))} min"


def _state(
    job: Job, *, place: Place | None = None, report: StepReport | None = None, link: str | None = None
) -> tuple[int, str]:
    """The accent colour and the sentence of a job's status."""
    match job.status:
        case JobStatus.QUEUED:
            return WAITING, f"Waiting: {place_words(place)}" if place else "Waiting for its turn"
        case JobStatus.RUNNING:
            return WORKING, _drawing(report)
        case JobStatus.DRAWN:
            return DONE, f"{_done(job)}. {_why(job, 'The picture is on its way.')}"
        case JobStatus.DELIVERED:
            return DONE, f"{_done(job)}: [the picture]({link})" if link else f"{_done(job)}. The picture is posted."
        case JobStatus.KEPT:
            return BROKEN, f"{_done(job)}, but not delivered. {_why(job, 'It is kept.')} It cost you nothing."
        case JobStatus.REPLY_UNKNOWN:
            return BROKEN, f"{_done(job)}. {_why(job, 'It may have been posted before.')}"
        case JobStatus.CANCELLED:
            return STOPPED, "Cancelled"
        case JobStatus.FAILED:
            return BROKEN, f"Not drawn. {_why(job, 'Please try again.')}"
        case JobStatus.QUARANTINED:
            return BROKEN, "Set aside: Kiln stopped twice while drawing this, so it is not tried again by itself."


def _drawing(report: StepReport | None) -> str:
    if report is None:
        return "Drawing now"
    return f"Drawing {progress_bar(report)} step {report.step} of {report.steps}"


def _done(job: Job) -> str:
    return "Done" if job.seconds is None else f"Done in {job.seconds:.1f} s"


def _took(job: Job) -> str:
    return "" if job.seconds is None else f" · {job.seconds:.1f} s"


def _why(job: Job, otherwise: str) -> str:
    return quoted(job.reason, characters=PICTURE_PROMPT_CHARACTERS) if job.reason else otherwise


def _steps(request: ImageRequest) -> str:
    return "1 step" if request.steps == 1 else f"{request.steps} steps"


def author_only(job: Job) -> discord.AllowedMentions:
    """Let a message notify the person who asked, and nobody else."""
    return discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=[discord.Object(job.user_id)])
