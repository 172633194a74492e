"""What a person left out of a request, from their own defaults. Nothing is corrected: a default that the model does
not allow any more is refused with its name. Knows no Discord."""

from __future__ import annotations

from typing import Any

from bot.errors import Refusal
from bot.language import Message, msg
from bot.people import Preferences
from gen.errors import InvalidRequest
from gen.request import ModelProfile


def with_defaults(mine: Preferences, *, profile: ModelProfile, **given: Any) -> dict[str, Any]:
    """`given` with a person's defaults in the place of what is None there.

    Raise Refusal for a default that this model does not allow; what was given is for the request to check.
    """
    filled = {}
    for name, value in given.items():
        own = getattr(mine, name)
        if value is None:
            check_default(profile, name, own)
        filled[name] = own if value is None else value
    return filled


def check_default(profile: ModelProfile, name: str, own: object) -> None:
    """Raise Refusal, naming the default and the limit, unless the model allows it; None is always allowed."""
    if own is None:
        return
    try:
        profile.request("a default", seed=0, **{name: own})  # type: ignore[arg-type]
    except InvalidRequest as error:
        raise Refusal(
            msg("Your default {name} no longer works: {why} Choose another with /settings, or give one with /imagine."),
            name=Message(name),
            why=error.message,
        ) from error
