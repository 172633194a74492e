"""Named presets: words before and after a prompt, a shape, steps, guidance, LoRAs. Data, and how they are applied.

A style's words become part of the prompt that is shown, stored and written into the picture: nothing is hidden. What
a person says beside it goes before what the style says. Knows no Discord and no queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.language import Say, msg
from gen.request import LoraUse


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


def style_named(name: str) -> Style | None:
    """The shipped style of that name, upper or lower case."""
    return next((style for style in SHIPPED if style.name.casefold() == name.strip().casefold()), None)


def styles_found(say: Say, typed: str) -> list[Style]:
    """The shipped styles whose name, in either language, has what was typed; all if none has."""
    wanted = typed.strip().casefold()
    found = [one for one in SHIPPED if wanted in one.name.casefold() or wanted in say(one.name).casefold()]
    return found or list(SHIPPED)
