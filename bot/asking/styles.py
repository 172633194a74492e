"""Named presets: words before and after a prompt, a shape, steps, guidance, LoRAs. Data, and how they are applied.

A style's words become part of the prompt that is shown, stored and written into the picture: nothing is hidden. What
a person says beside it goes before what the style says. Knows no Discord and no queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bot.language import LOCALES, Say, msg, say_in
from gen.errors import InvalidRequest
from gen.request import CFG_SCALE_MAX, GUIDANCE_MIN, SIDE_MIN, STEPS_MIN, ImageRequest, LoraUse, check_prompt

NAME_CHARACTERS = 40
WORDS_CHARACTERS = 400  # before and behind the prompt together


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One preset; None, or nothing: it leaves that to the model."""

    name: str  # English, and what is stored
    prefix: str = ""
    suffix: str = ""
    shape: tuple[int, int] | None = None  # across, down: the model's own size of that shape
    steps: int | None = None
    guidance: float | None = None
    negative: str = ""
    loras: tuple[LoraUse, ...] = ()

    def prompt(self, words: str) -> str:
        """The prompt as it is drawn and shown."""
        return f"{self.prefix}{words}{self.suffix}"

    def told(self, say: Say) -> str:
        """What it does, in a line: its words with the place of the prompt, and its settings."""
        parts = [self.prompt("…")]
        if self.shape is not None:
            parts.append("{}:{}".format(*self.shape))
        if self.steps is not None:
            parts.append(say.many("{n} step", "{n} steps", self.steps, n=self.steps))
        if self.guidance is not None:
            parts.append(say("guidance {guidance:g}", guidance=self.guidance))
        if self.negative:
            parts.append(say("away from: {negative}", negative=self.negative))
        parts += [f"LoRA {use.name}:{use.strength:g}" for use in self.loras]
        return " · ".join(parts)


SHIPPED = (
    Style(name=msg("Photo"), prefix="a photograph of ", suffix=", natural light, 50mm", guidance=2.5),
    Style(name=msg("Cinematic"), suffix=", film still, dramatic light, shallow focus", shape=(16, 9), guidance=3.0),
    Style(name=msg("Portrait"), prefix="a portrait of ", suffix=", soft light, detailed face", shape=(3, 4)),
    Style(name=msg("Anime"), suffix=", anime illustration, clean lines, bright colours", guidance=4.0),
    Style(name=msg("Ink wash"), suffix=", ink wash painting, few brush strokes, white paper", guidance=4.5),
    Style(name=msg("Watercolour"), suffix=", watercolour, soft edges, paper texture"),
    Style(name=msg("Oil painting"), suffix=", oil painting, thick brush strokes, canvas", steps=24),
    Style(name=msg("Pixel art"), suffix=", pixel art, 16 bit, limited palette", shape=(1, 1), guidance=5.0),
    Style(name=msg("Line drawing"), suffix=", black line drawing on white, no shading", guidance=4.5),
    Style(name=msg("Isometric"), suffix=", isometric miniature, soft shadows, plain background", shape=(1, 1)),
    Style(name=msg("Poster"), suffix=", poster, flat colours, bold shapes", shape=(2, 3)),
    Style(name=msg("Night"), suffix=" at night", guidance=4.0),
)
_SHIPPED_NAMES = frozenset(one.name for one in SHIPPED)


def checked_style(**values: Any) -> Style:
    """A style of people's own; raise InvalidRequest, naming the limit and the value, for what it cannot have."""
    style = Style(**values)
    check_prompt(style.name, name=msg("name"))
    if len(style.name) > NAME_CHARACTERS:
        raise InvalidRequest(
            msg("A style's name may have {most} characters; it has {value}."),
            most=NAME_CHARACTERS,
            value=len(style.name),
        )
    if len(style.prefix + style.suffix) > WORDS_CHARACTERS:
        raise InvalidRequest(
            msg("A style's words may have {most} characters together; they have {value}."),
            most=WORDS_CHARACTERS,
            value=len(style.prefix + style.suffix),
        )
    ImageRequest(  # whatever cannot be asked for with it is said now, not to whoever uses it
        prompt=style.prompt("a"),
        seed=0,
        width=SIDE_MIN,
        height=SIDE_MIN,
        steps=STEPS_MIN if style.steps is None else style.steps,
        guidance=GUIDANCE_MIN if style.guidance is None else style.guidance,
        negative=style.negative,
        cfg_scale=CFG_SCALE_MAX,
        loras=style.loras,
    )
    return style


def style_named(name: str, own: Iterable[Style] = ()) -> Style | None:
    """The style of that name, upper or lower case: one of a server's `own`, or a shipped one, in any language."""
    wanted = name.strip().casefold()
    named = next((one for one in (*own, *SHIPPED) if one.name.casefold() == wanted), None)
    return named or next((one for one in SHIPPED if wanted in _names(one)), None)


def style_title(say: Say, name: str) -> str:
    """What a style is called to whoever reads: shipped ones are translated, a server's own are as they were given."""
    return say(name) if name in _SHIPPED_NAMES else name


def styles_found(say: Say, typed: str, own: Iterable[Style] = ()) -> list[Style]:
    """The styles whose name, in either language, has what was typed, a server's own first; all if none has."""
    wanted, every = typed.strip().casefold(), [*own, *SHIPPED]
    found = [one for one in every if any(wanted in name.casefold() for name in (one.name, style_title(say, one.name)))]
    return found or every


def _names(shipped: Style) -> set[str]:
    return {say_in(locale)(shipped.name).casefold() for locale in LOCALES}
