"""`kiln doctor --plan 6.8GiB`: what would rest on the card and what would stream, as a table, before any loading.

Asks the card for its name and memory through torch_side.py; the plan is `gen.streaming.planner`'s. Knows no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

from bot.doctor.torch_side import Torch, ask_torch
from bot.settings import Settings
from gen.request import parse_size
from gen.streaming.cards import GIB, Card, known_card
from gen.streaming.planner import Plan, Planner, gib, parse_budget
from gen.streaming.sizes import Precision, Wanted
from gen.weights import find_weights

SPARE_BYTES = GIB // 2  # of the free memory, left to others when the budget is "all"
_STAND_IN = ("NVIDIA GeForce RTX 4090", (8, 9), 24 * GIB)


def plan_here(
    settings: Settings, budget: str, *, size: str | None, ask: Callable[[], Torch] | None = None
) -> tuple[Card, Plan]:
    """The card and its plan for the settings' model; raise GenerationError for a budget or a size that cannot be."""
    weights = find_weights(settings.weights)
    asked = parse_size(size) if size is not None else (weights.profile.width, weights.profile.height)
    request = weights.profile.request("a size", seed=0, size=f"{asked[0]}x{asked[1]}")
    parse_budget(budget, free_bytes=GIB)  # a typing error is told before torch takes its seconds
    card, free = _card((ask or ask_torch)(), settings.device)
    budget_bytes = parse_budget(budget, free_bytes=max(1, free - SPARE_BYTES))
    precision = Precision.FLOAT8 if settings.precision == "auto" else Precision(settings.precision)
    planner = Planner(shape=weights.shape, card=card, precision=precision)
    return card, planner.plan(
        budget_bytes, Wanted(width=request.width, height=request.height, steps=weights.profile.steps)
    )


def lines(card: Card, plan: Plan, *, as_json: bool) -> Iterator[str]:
    """The plan as lines for a person, or as one JSON text."""
    if as_json:
        told = {**asdict(plan), "peak_bytes": plan.memory.peak, "card": asdict(card)}
        yield json.dumps(told, indent=2)
        return
    rates = "its link is measured, its other rates" if card.is_link_measured else "its rates"
    yield f"{plan.wanted.width}x{plan.wanted.height}, {plan.wanted.steps} steps, {plan.precision}, on {card.name}"
    yield f"({rates} are from a table: estimates), within {gib(plan.budget_bytes)}:"
    yield ""
    yield from _choices(plan)
    yield ""
    yield from _memory(plan)
    yield ""
    seconds = plan.seconds
    yield f"a step  {seconds.step:8.3f} s      text of a new prompt  {seconds.text:6.3f} s"
    yield f"a picture {seconds.picture:6.2f} s      its decoding          {seconds.vae:6.3f} s"


def _choices(plan: Plan) -> Iterator[str]:
    rung = plan.rung
    yield f"blocks on the card    {len(rung.resident)} of {plan.blocks}"
    yield f"slots                 {rung.slots or 'none, nothing streams'}"
    yield f"text encoders         {'on the card' if rung.text_resident else 'stream for each new prompt'}"
    yield f"modulation weights    {'on the card' if rung.modulation_resident else 'stream once a picture'}"
    tiles = f"in tiles of {rung.vae_tile} pixels" if rung.vae_tile else "in one piece"
    yield f"decoding              {tiles}"


def _memory(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    for name, size in asdict(memory).items():
        if size and not name.endswith("_phase"):
            yield f"{name:<12} {gib(size):>10}"
    phases = {"text": memory.text_phase, "DiT": memory.dit_phase, "VAE": memory.vae_phase}
    widest = max(phases, key=phases.__getitem__)
    yield f"{'work':<12} {gib(phases[widest]):>10}  ({widest} is the widest phase)"
    yield f"{'peak':<12} {gib(memory.peak):>10}  (and the driver's own 0.3 to 0.5 GiB, which no budget sees)"


def _card(torch: Torch, device: str) -> tuple[Card, int]:
    """The card that the settings choose and its free bytes; a well-known one where there is none."""
    number = int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0
    if number >= len(torch.cards) or device in ("cpu", "mps"):
        name, capability, memory = _STAND_IN
        return known_card(f"{name} (no card here)", memory_bytes=memory, capability=capability), memory
    memory, free, capability = torch.memory[number], torch.free[number], torch.capability[number]
    card = known_card(torch.cards[number], memory_bytes=memory, capability=capability)
    measured = torch.link[number] if torch.link else 0.0
    return (card.with_link(measured) if measured else card), free
