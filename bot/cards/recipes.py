"""What a recipe looks like in Discord: everything that went into a picture, made inert. Knows no queue, no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import discord
from discord import ui

from bot.asking.styles import style_title
from bot.cards.captions import settings_line
from bot.language import Say
from bot.queue.job import Job
from bot.quoting import quoted
from gen.png import Recipe
from gen.request import PROMPT_MAX_CHARACTERS, ImageRequest

TEXT_CHARACTERS = 3900  # Discord takes 4,000 in all texts of a message together
LINE_CHARACTERS = 400  # of a negative prompt, and of another program's settings, before escaping
COLOUR = 0x5865F2


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A recipe and where it is from: a job of this Kiln's, or a file, of Kiln's or of another program's."""

    job: Job | None = None
    request: ImageRequest | None = None
    recipe: Recipe | None = None  # out of a file
    parameters: str | None = None  # another program's words


def recipe_view(say: Say, found: Found, *, here: str) -> ui.LayoutView:
    """The message that shows a recipe; `here` is the model that draws now."""
    text = ""
    for line in _lines(say, found, here=here):
        longer = f"{text}\n{line}" if text else line
        text = longer if len(longer) <= TEXT_CHARACTERS else text
    view = ui.LayoutView(timeout=None)
    view.add_item(ui.Container(ui.TextDisplay(text), accent_colour=discord.Colour(COLOUR)))
    return view


def _lines(say: Say, found: Found, *, here: str) -> Iterator[str]:
    if found.request is None:
        yield say("Another program drew this; its file says:")
        yield quoted(found.parameters or "", characters=PROMPT_MAX_CHARACTERS + LINE_CHARACTERS)
        return
    request, job, recipe = found.request, found.job, found.recipe
    yield f"**{quoted(request.prompt, characters=PROMPT_MAX_CHARACTERS)}**"
    yield settings_line(say, request)
    yield from _wishes(say, request)
    model = job.model if job is not None else recipe.model if recipe is not None else None
    if model is not None:
        yield say("model: {model}", model=quoted(model, characters=100))
        if model != here:
            yield say(
                "Here {model} draws now, so the same recipe gives another picture.", model=quoted(here, characters=100)
            )
    if recipe is not None:
        versions = say(", ").join(f"{name} {version}" for name, version in recipe.versions.items())
        weights = quoted(recipe.weights_sha256[:10], characters=10)
        yield say(
            "weights {weights}, {dtype}, {versions}",
            weights=weights,
            dtype=quoted(recipe.dtype, characters=20),
            versions=quoted(versions, characters=100),
        )
        yield say("The file says so; whoever sent it may have changed that.")
    if job is not None:
        when = f"<t:{int(job.created_at.timestamp())}:f>"
        yield say("job {number}, asked for by {person} {when}", number=job.id, person=f"<@{job.user_id}>", when=when)
        if job.style is not None:
            yield say("style: {style}", style=quoted(style_title(say, job.style), characters=100))


def _wishes(say: Say, request: ImageRequest) -> Iterator[str]:
    if request.negative or request.cfg_scale > 1:
        negative = quoted(request.negative or "-", characters=LINE_CHARACTERS)
        yield say("away from: {negative} (cfg_scale {scale:g})", negative=negative, scale=request.cfg_scale)
    for use in request.loras:
        yield f"LoRA: {quoted(use.name, characters=80)}:{use.strength:g}"
    if request.variations:
        mixed = say(", ").join(f"`{one.seed}` {one.share:.0%}" for one in request.variations)
        yield say("mixed with the noise of seed {seeds}", seeds=mixed)
