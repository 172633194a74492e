"""What a job's child asks for: the parent's request, changed as a button says. Pure; knows no Discord and no queue."""

from __future__ import annotations

from dataclasses import replace

from bot.queue.job import Verb
from gen.request import STRONG, SUBTLE, ImageRequest, Variation

_SHARES = {Verb.SUBTLE: SUBTLE, Verb.STRONG: STRONG}


def child_request(parent: ImageRequest, verb: Verb, *, seed: int) -> ImageRequest:
    """The request of a re-roll, a variation, a reproduction or a retry; `seed` is the one that may be new in it.

    A variation of a variation mixes a further noise in, so that it lies near the picture that was pressed. Raise
    InvalidRequest if the parent is no longer within the limits, or was varied too often.
    """
    if verb is Verb.REROLL:
        return replace(parent, seed=seed, variations=())
    if verb in _SHARES:
        return replace(parent, variations=(*parent.variations, Variation(seed=seed, share=_SHARES[verb])))
    return replace(parent)
