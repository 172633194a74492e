"""From what a person typed into /imagine to the requests of its jobs: styles, LoRAs, seeds. Knows no Discord.

Limits are `gen.request`'s; the model's defaults its profile's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from bot.asking.edit_dialog import read_loras
from bot.asking.styles import Style, style_named
from bot.language import msg
from gen.errors import InvalidRequest
from gen.request import SEED_MAX, ImageRequest, LoraUse, ModelProfile

COUNT_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was typed; None, or nothing: left out."""

    prompt: str  # without a trailing seed
    seed: int | None = None
    size: str | None = None
    steps: int | None = None
    guidance: float | None = None
    style: Style | None = None
    loras: tuple[LoraUse, ...] = ()
    negative: str = ""


def requests_of(
    wishes: Wishes, profile: ModelProfile, *, count: int, choose_seed: Callable[[], int]
) -> list[ImageRequest]:
    """The requests of `count` pictures; raise InvalidRequest naming the first value that is outside its limit.

    A seed that was given is the first one's, the others have those that follow; else each has one of its own.
    """
    style = wishes.style or Style(name="")
    plain = profile.request(
        style.prompt(wishes.prompt),
        seed=0 if wishes.seed is None else wishes.seed,
        size=wishes.size or (None if style.shape is None else profile.size_of(*style.shape)),
        steps=wishes.steps if wishes.steps is not None else style.steps,
        guidance=wishes.guidance if wishes.guidance is not None else style.guidance,
    )
    own = {use.name for use in wishes.loras}
    loras = (*wishes.loras, *(use for use in style.loras if use.name not in own))
    first = profile.avoiding(replace(plain, loras=loras), negative=wishes.negative or style.negative)
    if wishes.seed is None:
        return [replace(first, seed=choose_seed()) for _ in range(count)]
    return [replace(first, seed=(wishes.seed + number) % (SEED_MAX + 1)) for number in range(count)]


def chosen_style(typed: str | None, own: Iterable[Style] = ()) -> Style | None:
    """The style of that name, shipped or a server's `own`; raise InvalidRequest if there is none."""
    if typed is None:
        return None
    found = style_named(typed, own)
    if found is None:
        raise InvalidRequest(msg("There is no style {name!r}: choose one from the list."), name=typed[:40])
    return found


def chosen_loras(typed: str | None, strength: float | None) -> tuple[LoraUse, ...]:
    """`ink, oil:0.8` as LoRAs; those without a strength of their own have `strength`."""
    if typed is None and strength is not None:
        raise InvalidRequest(msg("There is a strength for a LoRA, but no LoRA: choose one."))
    return read_loras(typed or "", usual=1.0 if strength is None else strength)
