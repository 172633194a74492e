"""What a job looks like in Discord, state by state, and the words that go with its picture.

A card is Components V2 from its first send, because a message cannot change its style later; a picture is a plain
message with a file, so that Discord's search finds its prompt and every app sees the original. Knows no queue, no
network: job in, message out.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

import discord
from discord import ui

from bot.job import Job, JobStatus, Place
from bot.language import Say
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


def settings_line(say: Say, request: ImageRequest) -> str:
    """Seed and settings, as each card and picture shows them."""
    return say("seed `{seed}` · {size} · {steps} · guidance {guidance:g}", **_settings(say, request))


def card(
    say: Say, job: Job, *, place: Place | None = None, report: StepReport | None = None, link: str | None = None
) -> ui.LayoutView:
    """The card of `job` as its status, and what is known beside it, has it."""
    colour, words = _state(say, job, place=place, report=report, link=link)
    if job.notice and job.status in (JobStatus.DRAWN, JobStatus.DELIVERED):
        words += f"\n-# {quoted(job.notice, characters=CARD_PROMPT_CHARACTERS)}"
    view = ui.LayoutView(timeout=None)
    view.add_item(
        ui.Container(
            ui.TextDisplay(f"**{quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)}**"),
            ui.TextDisplay(words),
            ui.TextDisplay(f"-# {_small_print(say, job)}"),
            accent_colour=colour,
        )
    )
    return view


def picture_words(say: Say, job: Job, *, moved: bool = False) -> str:
    """The text above a picture; `moved` when it could not go where it was asked for."""
    request = job.request
    took = "" if job.seconds is None else " · " + say("{seconds:.1f} s", seconds=job.seconds)
    lines = [
        f"<@{job.user_id}> **{quoted(request.prompt, characters=PICTURE_PROMPT_CHARACTERS)}**",
        f"-# {settings_line(say, request)}{took}",
    ]
    if job.notice:
        lines.append(f"-# {quoted(job.notice, characters=CARD_PROMPT_CHARACTERS)}")
    if moved:
        gone = say("I may not post in <#{channel}> any more, so your picture comes here.", channel=job.channel_id)
        lines.append(f"-# {gone}")
    return "\n".join(lines)


def failure_words(say: Say, job: Job) -> str:
    """A message of its own for a job whose card is gone."""
    prompt = quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)
    return f"<@{job.user_id}> **{prompt}**\n{_state(say, job)[1]}\n-# {_small_print(say, job)}"


def message_link(guild_id: int | None, channel_id: int, message_id: int) -> str:
    """The address that jumps to a message; without a guild, of a direct message."""
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"


def alt_text(say: Say, job: Job) -> str:
    """What a screen reader says for the picture: prompt, seed and settings."""

    def words(prompt: str) -> str:
        return say(
            "AI-generated picture: {prompt} (seed {seed}, {size}, {steps}, guidance {guidance:g})",
            prompt=prompt,
            **_settings(say, job.request),
        )

    return words(fold(job.request.prompt, characters=ALT_TEXT_CHARACTERS - len(words(""))))


def progress_bar(report: StepReport) -> str:
    """Ten characters that fill with the steps."""
    done = BAR_WIDTH * report.step // report.steps
    return "▰" * done + "▱" * (BAR_WIDTH - done)


def place_words(say: Say, place: Place) -> str:
    """Where a waiting job stands and when its picture is expected."""
    when = _ready(say, place)
    if place.position == 0:
        return say("being drawn now, {when}", when=when)
    waiting = max(place.waiting, place.position)
    if place.held is not None:  # no time would be true
        return say("place {position} of {waiting}", position=place.position, waiting=waiting)
    return say("place {position} of {waiting}, {when}", position=place.position, waiting=waiting, when=when)


def _ready(say: Say, place: Place) -> str:
    """When, and how sure that is; nothing under five seconds, which nobody minds."""
    when, seconds = ago(place.ready_at), place.uncertainty.total_seconds()
    if seconds < 5:
        return say("ready {when}", when=when)
    if seconds < 57.5:
        return say("ready {when}, give or take {seconds} s", when=when, seconds=5 * round(seconds / 5))
    return say("ready {when}, give or take {minutes} min", when=when, minutes=max(1, round(seconds / 60)))


def _state(
    say: Say, job: Job, *, place: Place | None = None, report: StepReport | None = None, link: str | None = None
) -> tuple[int, str]:
    """The accent colour and the sentence of a job's status."""
    match job.status:
        case JobStatus.QUEUED if place is not None:
            waiting = say("Waiting: {place}", place=place_words(say, place))
            return WAITING, waiting if place.held is None else f"{waiting}. {place.held.told(say)}"
        case JobStatus.QUEUED:
            return WAITING, say("Waiting for its turn")
        case JobStatus.RUNNING:
            return WORKING, _drawing(say, report)
        case JobStatus.DELIVERED if link:
            return DONE, say("{done}: [the picture]({link})", done=_done(say, job), link=link)
        case JobStatus.DELIVERED:
            return DONE, say("{done}. The picture is posted.", done=_done(say, job))
        case JobStatus.CANCELLED:
            return STOPPED, say("Cancelled")
        case JobStatus.QUARANTINED:
            return BROKEN, say("Set aside: Kiln stopped twice while drawing this, so it is not tried again by itself.")
    return (DONE if job.status is JobStatus.DRAWN else BROKEN), _explained(say, job)


def _explained(say: Say, job: Job) -> str:
    """The sentence of a status that comes with a reason, or with what goes without saying."""
    done = _done(say, job)
    match job.status:
        case JobStatus.DRAWN:
            return say("{done}. {why}", done=done, why=_why(job, say("The picture is on its way.")))
        case JobStatus.KEPT:
            gone = job.is_picture_removed
            why = say("Its file was removed to make room.") if gone else _why(job, say("It is kept."))
            return say("{done}, but not delivered. {why} It cost you nothing.", done=done, why=why)
        case JobStatus.REPLY_UNKNOWN:
            return say("{done}. {why}", done=done, why=_why(job, say("It may have been posted before.")))
    return say("Not drawn. {why}", why=_why(job, say("Please try again.")))


def _drawing(say: Say, report: StepReport | None) -> str:
    if report is None:
        return say("Drawing now")
    bar = progress_bar(report)
    return say("Drawing {bar} step {step} of {steps}", bar=bar, step=report.step, steps=report.steps)


def _done(say: Say, job: Job) -> str:
    return say("Done") if job.seconds is None else say("Done in {seconds:.1f} s", seconds=job.seconds)


def _why(job: Job, otherwise: str) -> str:
    return quoted(job.reason, characters=PICTURE_PROMPT_CHARACTERS) if job.reason else otherwise


def _small_print(say: Say, job: Job) -> str:
    return settings_line(say, job.request) + " · " + say("job {number}", number=job.id)


def _settings(say: Say, request: ImageRequest) -> dict[str, object]:
    steps = say.many("{n} step", "{n} steps", request.steps, n=request.steps)
    return {"seed": request.seed, "size": request.size, "steps": steps, "guidance": request.guidance}


def author_only(job: Job) -> discord.AllowedMentions:
    """Let a message notify the person who asked, and nobody else."""
    return discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=[discord.Object(job.user_id)])
