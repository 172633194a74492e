"""The web console's words: labels in both languages, and what a job looks like on the page. Knows no Gradio.

Everything a person wrote is escaped: the page is HTML.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from html import escape

from bot.console.jobs import Look
from bot.language import Say, msg, say_in
from bot.queue.job import Job, JobStatus, Place
from gen.request import StepReport

LABELS = {
    "prompt": msg("Prompt"),
    "seed": msg("Seed (-1: one by chance)"),
    "size": msg("Size"),
    "steps": msg("Steps (1 to 50)"),
    "guidance": msg("Guidance (1 to 10)"),
    "lora": msg("LoRA"),
    "strength": msg("Strength of the LoRA (-4 to 4)"),
    "draw": msg("Draw"),
    "cancel": msg("Cancel"),
    "seed_used": msg("Seed used"),
    "recipe": msg("Recipe"),
    "history": msg("History of this console"),
}
_TIMESTAMP = re.compile(r"<t:(\d+):\w>(?: \(<t:\1:R>\))?")  # Discord's, which only Discord shows as a time
_IMAGE = '<img alt="{alt}" width="{width}" style="max-width:100%" src="data:image/{kind};base64,{data}">'


def language_of(accepted: str) -> Say:
    """The language of a browser, by its Accept-Language."""
    return say_in(*(part.partition(";")[0].strip() for part in accepted.split(",")))


def plain(text: str) -> str:
    """A text that was written for Discord, for a page: times as this machine's clock has them, and escaped."""
    return escape(_TIMESTAMP.sub(lambda found: clock(datetime.fromtimestamp(int(found[1])).astimezone()), text))


def clock(moment: datetime) -> str:
    """A time of day where this machine is."""
    return f"{moment.astimezone():%H:%M:%S}"


def trouble_html(text: str) -> str:
    """Why something was not done."""
    return f'<p role="alert" style="color:#c0392b">{plain(text)}</p>'


def status_html(say: Say, look: Look) -> str:
    """Where a job stands, and its preview while it is drawn."""
    job = look.job
    head = escape(say("Job {number}: {prompt}", number=job.id, prompt=job.request.prompt[:200]))
    words, more = _state(say, look)
    return f"<p><b>{head}</b></p><p>{words}</p>{more}"


def picture_html(job: Job, png: bytes) -> str:
    """The picture itself, byte for byte, and a link to save it."""
    name = f"kiln-{job.id}-{job.request.seed}.png"
    data = base64.b64encode(png).decode()
    shown = _image(job, kind="png", data=data)
    return f'<a download="{name}" href="data:image/png;base64,{data}">{shown}</a>'


def _state(say: Say, look: Look) -> tuple[str, str]:
    job = look.job
    match job.status:
        case JobStatus.QUEUED:
            return _waiting(say, look.place), ""
        case JobStatus.HELD:
            return plain(job.reason or say("Waiting.")), ""
        case JobStatus.RUNNING:
            return _drawing(say, job, look.report)
        case JobStatus.DRAWN | JobStatus.DELIVERED:
            seconds = 0.0 if job.seconds is None else job.seconds
            done = say("Done in {seconds:.1f} s, seed {seed}.", seconds=seconds, seed=job.request.seed)
            return " ".join(filter(None, (done, escape(job.notice or "")))), ""
        case JobStatus.CANCELLED:
            return say("Cancelled."), ""
        case _:
            return say("It could not be drawn: {reason}", reason=plain(job.reason or "?")), ""


def _waiting(say: Say, place: Place | None) -> str:
    if place is None:
        return say("Waiting.")
    if place.held is not None:  # no time would be true
        why = escape(place.held.told(say))
        return say("Place {place} of {total} in the queue. {why}", place=place.position, total=place.waiting, why=why)
    return say(
        "Place {place} of {total} in the queue, ready at about {time}.",
        place=place.position,
        total=place.waiting,
        time=clock(place.ready_at),
    )


def _drawing(say: Say, job: Job, report: StepReport | None) -> tuple[str, str]:
    if report is None:
        return say("Being drawn."), ""
    words = say("Being drawn: step {step} of {steps}.", step=report.step, steps=report.steps)
    bar = f'<progress max="{report.steps}" value="{report.step}" style="width:100%"></progress>'
    if report.preview is None:
        return words, bar
    data = base64.b64encode(report.preview).decode()
    return words, bar + _image(job, kind="jpeg", data=data)


def _image(job: Job, *, kind: str, data: str) -> str:
    """An image as wide as the picture is, also where it is a small preview."""
    request = job.request
    return _IMAGE.format(alt=escape(request.prompt, quote=True), width=request.width, kind=kind, data=data)
