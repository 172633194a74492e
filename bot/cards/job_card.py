"""What a job looks like in Discord, state by state.

A card is Components V2 from its first send, because a message cannot change its style later. The picture is a message
of its own, see `bot.cards.captions`, because an edit notifies nobody. Knows no queue, no network: job in, message out.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import discord
from discord import ui

from bot.cards.buttons import card_row
from bot.cards.captions import (
    LINE_CHARACTERS,
    PICTURE_PROMPT_CHARACTERS,
    alt_text,
    detail_lines,
    lineage_line,
    settings_line,
)
from bot.language import Say
from bot.queue.job import Job, JobStatus, Place
from bot.quoting import ago, explained, fold, quoted
from gen.request import StepReport

CARD_PROMPT_CHARACTERS = 300  # of the prompt on a card, before escaping
THUMBNAIL_TEXT_CHARACTERS = 256  # of its description, as discord.py documents it
BAR_WIDTH = 10  # characters
PREVIEW = "preview.jpg"  # the name of the file that a card shows while the picture is drawn

WAITING, WORKING, DONE, STOPPED, BROKEN = 0x5865F2, 0xF0B232, 0x23A55A, 0x80848E, 0xDA373C


def card(
    say: Say,
    job: Job,
    *,
    place: Place | None = None,
    report: StepReport | None = None,
    link: str | None = None,
    parent: Job | None = None,
) -> ui.LayoutView:
    """The card of `job` as its status, and what is known beside it, has it; `preview_files` go with it."""
    colour, words = _state(say, job, place=place, report=report, link=link)
    texts = [f"**{quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)}**", words]
    small = [lineage_line(say, job, parent=parent), _small_print(say, job), *detail_lines(say, job)]
    if job.notice and job.status in (JobStatus.DRAWN, JobStatus.DELIVERED):
        small.append(quoted(job.notice, characters=LINE_CHARACTERS))
    parts: list[ui.Item[Any]] = [ui.TextDisplay(text) for text in texts]
    if report is not None and report.preview is not None:
        shown = alt_text(say, job, characters=THUMBNAIL_TEXT_CHARACTERS)
        parts = [ui.Section(*texts, accessory=ui.Thumbnail(f"attachment://{PREVIEW}", description=shown))]
    parts.append(ui.TextDisplay("\n".join(f"-# {line}" for line in small if line)))
    row = card_row(say, job)
    view = ui.LayoutView(timeout=None)
    view.add_item(ui.Container(*parts, *([row] if row else []), accent_colour=colour))
    return view


def preview_files(report: StepReport | None) -> list[discord.File]:
    """The files that a card with this report shows."""
    if report is None or report.preview is None:
        return []
    return [discord.File(io.BytesIO(report.preview), filename=PREVIEW)]


def failure_words(say: Say, job: Job) -> str:
    """A message of its own for a job whose card is gone."""
    prompt = quoted(job.request.prompt, characters=CARD_PROMPT_CHARACTERS)
    return f"<@{job.user_id}> **{prompt}**\n{_state(say, job)[1]}\n-# {_small_print(say, job)}"


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


def state_words(
    say: Say,
    job: Job,
    *,
    place: Place | None = None,
    report: StepReport | None = None,
    link: str | None = None,
    characters: int = PICTURE_PROMPT_CHARACTERS,
) -> str:
    """The sentence of a job's status; of its reason so many characters, before escaping."""
    folded = job if job.reason is None else replace(job, reason=fold(job.reason, characters=characters))
    return _state(say, folded, place=place, report=report, link=link)[1]


def _state(
    say: Say, job: Job, *, place: Place | None = None, report: StepReport | None = None, link: str | None = None
) -> tuple[int, str]:
    """The accent colour and the sentence of a job's status."""
    match job.status:
        case _ if job.deleted_at is not None:
            return STOPPED, say("Deleted")
        case JobStatus.QUEUED if place is not None:
            waiting = say("Waiting: {place}", place=place_words(say, place))
            return WAITING, waiting if place.held is None else f"{waiting}. {place.held.told(say)}"
        case JobStatus.QUEUED:
            return WAITING, say("Waiting for its turn")
        case JobStatus.RUNNING:
            return WORKING, _drawing(say, report)
        case JobStatus.DELIVERED:
            return DONE, _posted(say, job, link)
        case JobStatus.HELD:
            return WAITING, say("Held: {why}", why=_why(job, say("It waits for a moderator.")))
        case JobStatus.CANCELLED if job.reason:
            return STOPPED, say("Cancelled: {why}", why=_why(job, ""))
        case JobStatus.CANCELLED:
            return STOPPED, say("Cancelled")
        case JobStatus.QUARANTINED:
            return BROKEN, say("Set aside: Kiln stopped twice while drawing this, so it is not tried again by itself.")
    return (DONE if job.status is JobStatus.DRAWN else BROKEN), _explained(say, job)


def _posted(say: Say, job: Job, link: str | None) -> str:
    if link is None:
        return say("{done}. The picture is posted.", done=_done(say, job))
    return say("{done}: [the picture]({link})", done=_done(say, job), link=link)


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
    return explained(job.reason, characters=PICTURE_PROMPT_CHARACTERS) if job.reason else otherwise


def _small_print(say: Say, job: Job) -> str:
    return settings_line(say, job.request) + " · " + say("job {number}", number=job.id)


def author_only(job: Job) -> discord.AllowedMentions:
    """Let a message notify the person who asked, and nobody else."""
    return discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=[discord.Object(job.user_id)])
