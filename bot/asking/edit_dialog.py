"""The dialog behind ✏️: a job's request in five fields, and the request that comes back. Its name lives for ever too.

What comes back is hostile until it is read: every field may be missing, of any length, anything. Knows no queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import discord
from discord import ui

from bot.answers import CHOICES_MAX
from bot.language import Say, msg
from gen.errors import InvalidRequest
from gen.request import PROMPT_MAX_CHARACTERS, SEED_MAX, ImageRequest, LoraUse, ModelProfile

NAME = re.compile(r"job:(?P<job>[0-9]{1,15}):(?P<how>edited|remixed)|recipe:remixed")
TIMEOUT_SECONDS = 15 * 60.0  # that discord.py remembers a dialog it has shown; what comes later is understood as well
FIELD_CHARACTERS = 200  # of the short fields
LORAS_CHARACTERS = 500
_NUMBERS = re.compile(r"\s*(\d{1,9})\s*[,;/ ]\s*(\d{1,9}(?:\.\d{1,9})?)\s*")
_LINES = re.compile(r" *(?:\r?\n *)+")
_SEED = re.compile(r"\d{1,20}")


def edit_dialog(say: Say, request: ImageRequest, profile: ModelProfile, *, title: str, name: str) -> ui.Modal:
    """The dialog, filled with what was asked for; `name` comes back with what is sent."""
    sizes = dict.fromkeys((request.size, *profile.sizes()))
    options = [discord.SelectOption(label=size, default=size == request.size) for size in list(sizes)[:CHOICES_MAX]]
    numbers = f"{request.steps}, {request.guidance:g}"
    loras = ", ".join(f"{use.name}:{use.strength:g}" for use in request.loras)
    dialog = ui.Modal(title=title, custom_id=name, timeout=TIMEOUT_SECONDS)
    prompt = _text("prompt", request.prompt, most=PROMPT_MAX_CHARACTERS, style=discord.TextStyle.paragraph)
    fields: list[tuple[str, ui.Item[Any]]] = [
        (say("Prompt"), prompt),
        (say("Seed (empty: a new one)"), _text("seed", str(request.seed), required=False)),
        (say("Size"), ui.Select(custom_id="size", options=options)),
        (say("Steps, guidance"), _text("numbers", numbers)),
        (say("LoRAs as name:strength, with commas"), _text("loras", loras, most=LORAS_CHARACTERS, required=False)),
    ]
    for label, field in fields:
        dialog.add_item(ui.Label(text=label, component=field))
    return dialog


def edited_request(
    parent: ImageRequest | None, values: Mapping[str, str], profile: ModelProfile, *, choose_seed: Callable[[], int]
) -> ImageRequest:
    """The request that a dialog came back with; raise InvalidRequest naming the first field that is none.

    What the dialog does not show stays as it was in `parent`; variations stay as long as the seed does.
    """
    typed = values.get("seed", "").strip()
    if typed and not _SEED.fullmatch(typed):
        raise InvalidRequest(
            msg("The seed must be a whole number from 0 to {most:,}; it is {value!r}."), most=SEED_MAX, value=typed[:40]
        )
    seed = int(typed) if typed else choose_seed()
    numbers = values.get("numbers", "")
    found = _NUMBERS.fullmatch(numbers)
    if found is None:
        raise InvalidRequest(
            msg("Steps and guidance are two numbers, such as 20, 3.5; it is {value!r}."), value=numbers[:40]
        )
    asked = profile.request(
        _LINES.sub(" ", values.get("prompt", "").strip()),  # the field has lines, as LoRAs' may, and a prompt has one
        seed=seed,
        size=values.get("size", ""),
        steps=int(found[1]),
        guidance=float(found[2]),
    )
    chosen = replace(asked, loras=read_loras(values.get("loras", "")))
    if parent is None:
        return chosen
    variations = parent.variations if seed == parent.seed else ()
    return replace(chosen, negative=parent.negative, cfg_scale=parent.cfg_scale, variations=variations)


def read_loras(text: str, *, usual: float = 1.0) -> tuple[LoraUse, ...]:
    """`ink:0.8, oil` as LoRAs, with the usual strength where none is given; raise InvalidRequest for anything else."""
    uses = []
    for part in filter(None, (part.strip() for part in re.split(r"[,，、\n]", text))):
        name, colon, strength = part.replace("：", ":").rpartition(":")
        try:
            uses.append(LoraUse(name=name.strip() if colon else part, strength=float(strength) if colon else usual))
        except ValueError as error:
            raise InvalidRequest(
                msg("A LoRA is name:strength, such as ink:0.8; it is {value!r}."), value=part[:40]
            ) from error
    return tuple(uses)


def submitted(data: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a submitted dialog by name, of whatever shape; a choice is its first value."""
    return {name: value for name, value in _fields(data.get("components")) if isinstance(value, str)}


def _fields(components: Any) -> Iterator[tuple[str, Any]]:
    for component in components if isinstance(components, list) else ():
        if not isinstance(component, dict):
            continue
        yield from _fields(component.get("components"))
        yield from _fields([component.get("component")])
        if isinstance(name := component.get("custom_id"), str):
            values = component.get("values")
            chosen = values[0] if isinstance(values, list) and values else None
            yield name, component.get("value", chosen)


def _text(
    name: str,
    value: str,
    *,
    most: int = FIELD_CHARACTERS,
    style: discord.TextStyle = discord.TextStyle.short,
    required: bool = True,
) -> ui.TextInput[Any]:
    return ui.TextInput(custom_id=name, default=value[:most], max_length=most, style=style, required=required)
