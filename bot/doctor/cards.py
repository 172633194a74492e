"""`kiln doctor --cards`: what FLUX.1-dev would take on cards that people buy, from the planner. Knows no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from gen.streaming.cards import GIB, known_card
from gen.streaming.planner import Planner
from gen.streaming.sizes import Wanted
from gen.weights import FLUX_DEV, FluxShape

TAKEN_BYTES = GIB  # of the card, by the driver and a desktop
_AMPERE, _ADA, _BLACKWELL = (8, 6), (8, 9), (12, 0)
CARDS = (  # name, GiB of memory, compute capability
    ("RTX 3060", 12, _AMPERE),
    ("RTX 3070", 8, _AMPERE),
    ("RTX 3080", 10, _AMPERE),
    ("RTX 3090", 24, _AMPERE),
    ("RTX 4060", 8, _ADA),
    ("RTX 4060 Ti", 16, _ADA),
    ("RTX 4070", 12, _ADA),
    ("RTX 4070 Ti", 12, _ADA),
    ("RTX 4080", 16, _ADA),
    ("RTX 4090", 24, _ADA),
    ("RTX 5060 Ti", 16, _BLACKWELL),
    ("RTX 5070", 12, _BLACKWELL),
    ("RTX 5070 Ti", 16, _BLACKWELL),
    ("RTX 5080", 16, _BLACKWELL),
    ("RTX 5090", 32, _BLACKWELL),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One card's plan in three numbers."""

    card: str
    memory_gib: int
    float8_cores: bool
    streamed_blocks: int  # of 57; the rest lies on the card
    seconds: float  # a picture of the model's default size and steps


def expected() -> list[Expected]:
    """Every card of the table, at FLUX.1-dev's defaults in float8."""
    wanted = Wanted(width=FLUX_DEV.width, height=FLUX_DEV.height, steps=FLUX_DEV.steps)
    found = []
    for name, memory, capability in CARDS:
        card = known_card(name, memory_bytes=memory * GIB, capability=capability)
        plan = Planner(shape=FluxShape(), card=card).plan(memory * GIB - TAKEN_BYTES, wanted)
        streamed = plan.blocks - len(plan.rung.resident)
        found.append(
            Expected(
                card=name,
                memory_gib=memory,
                float8_cores=card.has_float8,
                streamed_blocks=streamed,
                seconds=round(plan.seconds.picture, 1),
            )
        )
    return found


def lines(cards: list[Expected], *, as_json: bool) -> Iterator[str]:
    """A table in Markdown, or one JSON text."""
    if as_json:
        yield json.dumps([{name: getattr(card, name) for name in card.__slots__} for card in cards], indent=2)
        return
    yield "| card | memory | float8 tensor cores | blocks that stream | seconds a picture |"
    yield "|---|---|---|---|---|"
    for card in cards:
        cores = "yes" if card.float8_cores else "no"
        yield f"| {card.card} | {card.memory_gib} GB | {cores} | {card.streamed_blocks} of 57 | {card.seconds:.0f} |"
