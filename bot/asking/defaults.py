"""What a person left out of /imagine, from their own defaults. Nothing is corrected: a default that does not work any
more is refused by its name. Knows no Discord."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bot.asking.people import Preferences
from bot.asking.wishes import Wishes, chosen_style
from bot.errors import Refusal
from bot.language import Message, msg
from gen.errors import InvalidRequest
from gen.request import ModelProfile

NO_STYLE = "-"  # given as the style: none, although there is a default


def with_defaults(wishes: Wishes, mine: Preferences, *, profile: ModelProfile) -> Wishes:
    """The wishes, and a person's defaults for what neither they nor a style among them says.

    A default goes before what a default style says. Raise Refusal for a default that does not work any more.
    """
    style = wishes.style
    said = {"size": style and style.shape, "steps": style and style.steps, "guidance": style and style.guidance}
    filled: dict[str, Any] = {}
    for name, by_style in said.items():
        if getattr(wishes, name) is None and by_style is None:
            filled[name] = getattr(mine, name)
            check_default(profile, name, filled[name])
    if style is None:
        check_default(profile, "style", mine.style)
        filled["style"] = chosen_style(mine.style)
    return replace(wishes, **filled)


def check_default(profile: ModelProfile, name: str, own: Any) -> None:
    """Raise Refusal, naming the default and the limit, unless it still works; None always does."""
    if own is None:
        return
    try:
        if name == "style":
            chosen_style(own)
        else:
            profile.request("a default", seed=0, **{name: own})
    except InvalidRequest as error:
        raise Refusal(
            msg("Your default {name} no longer works: {why} Choose another with /settings, or give one with /imagine."),
            name=Message(name),
            why=error.message,
        ) from error
