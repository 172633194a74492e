"""The words that go with a picture: what it was drawn from, how long that took, what a screen reader says.

A picture is a plain message with a file, so that Discord's search finds its prompt and every app sees the original.
Knows no queue and no network.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.asking.styles import style_title
from bot.language import Say, msg
from bot.queue.job import Job, Verb
from bot.quoting import fold, message_link, quoted
from gen.request import ImageRequest

PICTURE_PROMPT_CHARACTERS = 500  # of the prompt above a picture, and of a reason; escaped, a message holds 2,000
LINE_CHARACTERS = 300  # of a notice
DETAIL_CHARACTERS = 150  # of LoRAs, and of a negative prompt
CONTENT_CHARACTERS = 2000  # Discord's limit for a message
ALT_TEXT_CHARACTERS = 1024  # Discord's limit for a file's description

_MADE = {
    Verb.REROLL: msg("🎲 Another seed of {job}"),
    Verb.EDIT: msg("✏️ Edited from {job}"),
    Verb.SUBTLE: msg("🌗 A subtle variation of {job}"),
    Verb.STRONG: msg("🌗 A strong variation of {job}"),
    Verb.REPRODUCE: msg("♻️ {job} drawn again"),
    Verb.RETRY: msg("🔁 {job} tried again"),
    Verb.REMIX: msg("🎛️ Remixed from {job}"),
}


def settings_line(say: Say, request: ImageRequest) -> str:
    """Seed and settings, as each card and picture shows them."""
    return say("seed `{seed}` · {size} · {steps} · guidance {guidance:g}", **_settings(say, request))


def settings_words(say: Say, request: ImageRequest) -> str:
    """The settings that jobs of one request share, without the seed."""
    values = _settings(say, request)
    del values["seed"]
    return say("{size} · {steps} · guidance {guidance:g}", **values)


def detail_lines(say: Say, job: Job) -> list[str]:
    """What else went into the picture: LoRAs, what it stays away from, variations, style; nothing of it is hidden."""
    request, lines = job.request, []
    if job.style:
        lines.append(say("style: {style}", style=quoted(style_title(say, job.style), characters=DETAIL_CHARACTERS)))
    if request.loras:
        names = say(", ").join(f"{use.name}:{use.strength:g}" for use in request.loras)
        lines.append("LoRA: " + quoted(names, characters=DETAIL_CHARACTERS))
    if request.cfg_scale > 1:
        negative = quoted(request.negative or "-", characters=DETAIL_CHARACTERS)
        lines.append(say("away from: {negative} (cfg_scale {scale:g})", negative=negative, scale=request.cfg_scale))
    if request.variations:
        mixed = say(", ").join(f"`{one.seed}` {one.share:.0%}" for one in request.variations)
        lines.append(say("mixed with the noise of seed {seeds}", seeds=mixed))
    return lines


def lineage_line(say: Say, job: Job, *, parent: Job | None) -> str | None:
    """How the job was made from another, with a link to that one's picture; None: it was made from none."""
    if job.verb is None or job.parent_id is None:
        return None
    name, link = say("job {number}", number=job.parent_id), None if parent is None else picture_link(parent)
    return say(_MADE[job.verb], job=f"[{name}]({link})" if link else name)


def picture_link(job: Job) -> str | None:
    """The address of the job's picture; of its card, where it has none yet; None where neither stands any more."""
    if job.deleted_at is not None or job.private:
        return None
    if job.result_message_id is not None:
        guild_id = job.guild_id if is_in_server(job) else None
        return message_link(guild_id, job.result_channel_id or job.channel_id, job.result_message_id)
    return None if job.card_message_id is None else message_link(job.guild_id, job.channel_id, job.card_message_id)


def is_in_server(job: Job) -> bool:
    """Whether the job's picture was posted where it was asked for, or above that; else its owner has it directly."""
    return job.result_channel_id in (None, job.channel_id, job.parent_channel_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is told with a picture beside its own recipe, and how it is shown."""

    parent: Job | None = None  # the job that it was made from
    compared: str = ""  # how the pictures differ, where that was asked for
    hidden: bool = False  # behind a spoiler


def picture_words(say: Say, job: Job, *, moved: bool = False, origin: Origin | None = None) -> str:
    """The text above a picture; `moved` when it could not go where it was asked for.

    As many lines as a message holds, the first ones first.
    """
    origin = origin or Origin()
    small = [settings_line(say, job.request) + _made(say, job), *detail_lines(say, job)]
    if moved:
        small.insert(
            0, say("I may not post in <#{channel}> any more, so your picture comes here.", channel=job.channel_id)
        )
    small += filter(None, (origin.compared, lineage_line(say, job, parent=origin.parent)))
    if job.notice:
        small.append(quoted(job.notice, characters=LINE_CHARACTERS))
    text = f"<@{job.user_id}> **{quoted(job.request.prompt, characters=PICTURE_PROMPT_CHARACTERS)}**"
    for line in small:
        longer = f"{text}\n-# {line}"
        text = longer if len(longer) <= CONTENT_CHARACTERS else text
    return text


def alt_text(say: Say, job: Job, *, characters: int = ALT_TEXT_CHARACTERS) -> str:
    """What a screen reader says for the picture: prompt, seed and settings."""

    def words(prompt: str) -> str:
        return say(
            "AI-generated picture: {prompt} (seed {seed}, {size}, {steps}, guidance {guidance:g})",
            prompt=prompt,
            **_settings(say, job.request),
        )

    return words(fold(job.request.prompt, characters=characters - len(words(""))))


def _made(say: Say, job: Job) -> str:
    """By what, and how long it kept the GPU."""
    model = f" · {quoted(job.model, characters=60)}" if job.model else ""
    return model + ("" if job.seconds is None else " · " + say("{seconds:.1f} s", seconds=job.seconds))


def _settings(say: Say, request: ImageRequest) -> dict[str, object]:
    steps = say.many("{n} step", "{n} steps", request.steps, n=request.steps)
    return {"seed": request.seed, "size": request.size, "steps": steps, "guidance": request.guidance}
