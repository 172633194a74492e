"""What can be asked for, and what comes back: validated values without torch.

Every limit is declared here, once; Discord's option limits, the command line and the database read them.
`ImageRequest` holds what any model must satisfy; `ModelProfile` adds what one model can draw. Knows no model
code, no Discord and no files.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from gen.errors import InvalidRequest
from gen.message import Message, msg

PROMPT_MAX_CHARACTERS = 1000
SEED_MAX = 2**32 - 1
STEPS_MIN, STEPS_MAX = 1, 50
GUIDANCE_MIN, GUIDANCE_MAX = 1.0, 10.0
SIDE_MULTIPLE = 16
SIDE_MIN, SIDE_MAX = 128, 2048

_SIZE = re.compile(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", re.IGNORECASE)
# Format characters steer how text is shown (bidi, zero width), controls have no place in a prompt. The zero-width
# joiner and the variation selectors build emoji and scripts, and stay.
_JOINERS = frozenset("\u200c\u200d")
_FLAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")  # a black flag and invisible letters: England's
_EMOJI = range(0x1F000, 0x1FC00)  # newer ones may be unassigned in Python's tables
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # Hangul's letters that show nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One picture to draw. If you hold one, it is within every model's outer limits."""

    prompt: str  # 1 to 1,000 characters, at least one letter or digit
    seed: int  # of the initial noise, uint32
    width: int  # pixels, a multiple of 16
    height: int  # pixels, a multiple of 16
    steps: int  # denoising steps, 1 to 50
    guidance: float  # scale of the distilled guidance, 1.0 to 10.0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for the first value that is outside its limit."""
        check_prompt(self.prompt)
        _check_range(msg("seed"), self.seed, 0, SEED_MAX)
        for name, side in ((msg("width"), self.width), (msg("height"), self.height)):
            _check_range(name, side, SIDE_MIN, SIDE_MAX)
            _check_multiple(name, side)
        _check_range(msg("steps"), self.steps, STEPS_MIN, STEPS_MAX)
        _check_range(msg("guidance"), self.guidance, GUIDANCE_MIN, GUIDANCE_MAX)

    @property
    def size(self) -> str:
        """Width and height as people write them, `768x512`."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What one model is called, draws by default, and can draw at all."""

    name: str
    width: int  # default, pixels
    height: int  # default, pixels
    steps: int  # default
    guidance: float  # default
    side_min: int  # pixels
    side_max: int  # pixels
    pixels_max: int  # width times height
    is_demo: bool = False

    def request(
        self,
        prompt: str,
        *,
        seed: int,
        size: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> ImageRequest:
        """Complete what was left out with this model's defaults; raise InvalidRequest outside its limits."""
        width, height = parse_size(size) if size is not None else (self.width, self.height)
        self._check_size(width, height)  # first: this model's limits say more than every model's
        return ImageRequest(
            prompt=prompt,
            seed=seed,
            width=width,
            height=height,
            steps=self.steps if steps is None else steps,
            guidance=self.guidance if guidance is None else guidance,
        )

    def check(self, request: ImageRequest) -> None:
        """Raise InvalidRequest if this model cannot draw `request`."""
        self._check_size(request.width, request.height)

    def _check_size(self, width: int, height: int) -> None:
        for name, side in ((msg("width"), width), (msg("height"), height)):
            if not self.side_min <= side <= self.side_max:
                raise InvalidRequest(
                    msg("{model} draws a {name} of {least} to {most} pixels; it is {value}."),
                    model=self.name,
                    name=Message(name),
                    least=self.side_min,
                    most=self.side_max,
                    value=side,
                )
            _check_multiple(name, side)
        if width * height > self.pixels_max:
            raise InvalidRequest(
                msg("{model} draws at most {most:,} pixels; {width}x{height} has {value:,}."),
                model=self.name,
                most=self.pixels_max,
                width=width,
                height=height,
                value=width * height,
            )

    def sizes(self) -> tuple[str, ...]:
        """Common sizes around the default's area, the default first: 1:1, 3:2, 2:3, 16:9, 9:16, 4:3, 3:4."""
        area = self.width * self.height
        found = [f"{self.width}x{self.height}"]
        for across, down in ((1, 1), (3, 2), (2, 3), (16, 9), (9, 16), (4, 3), (3, 4)):
            height = math.sqrt(area * down / across)
            sides = [
                min(self.side_max, max(self.side_min, round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE))
                for side in (height * across / down, height)
            ]
            if sides[0] * sides[1] <= self.pixels_max:
                found.append(f"{sides[0]}x{sides[1]}")
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Progress of one drawing, sent from the GPU thread after each step."""

    step: int  # steps done, 1 to `steps`; 0: it is drawn anew in another way, because the first did not do
    steps: int
    seconds: float  # since the drawing began
    preview: bytes | None = None  # a JPEG of what the picture is going to be, 160 pixels a side at most


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """A finished picture."""

    png: bytes  # with the recipe in its text chunks
    sha256: str  # of `png`, hex
    seconds: float  # on the GPU thread, text encoding to pixels
    model: str
    notice: Message | None = (
        None  # one line for the person who asked, e.g. that the small demo model cannot draw dragons
    )


def check_prompt(prompt: str) -> None:
    """Raise InvalidRequest unless `prompt` is visible text of 1 to 1,000 characters with a letter or a digit."""
    if not prompt.strip():
        raise InvalidRequest(msg("The prompt is empty: say what to draw."))
    if len(prompt) > PROMPT_MAX_CHARACTERS:
        raise InvalidRequest(
            msg("The prompt may have {most:,} characters at most; it has {value:,}."),
            most=PROMPT_MAX_CHARACTERS,
            value=len(prompt),
        )
    for position, character in enumerate(_FLAGS.sub(_stand_in, prompt), start=1):
        if _is_unseen(character):
            raise InvalidRequest(
                msg(
                    "The prompt has an invisible or control character (U+{code:04X}) at position {position}: "
                    "please remove it."
                ),
                code=ord(character),
                position=position,
            )
    if not any(unicodedata.category(character)[0] in "LN" for character in prompt):
        raise InvalidRequest(msg("The prompt needs at least one letter or digit: say in words what to draw."))


def _is_unseen(character: str) -> bool:
    """Whether a character shows nothing, or steers how others are shown."""
    if character in _JOINERS or ord(character) in _EMOJI:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in _FILLERS


def _stand_in(flag: re.Match[str]) -> str:
    return "-" * len(flag[0])


def parse_size(text: str) -> tuple[int, int]:
    """Read `768x512` as (width, height) in pixels; raise InvalidRequest for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise InvalidRequest(msg("A size is width x height in pixels, like 768x512; it is {value!r}."), value=shown)
    return int(found[1]), int(found[2])


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # false for NaN too
        raise InvalidRequest(
            msg("The {name} must be from {least:,} to {most:,}; it is {value:,}."),
            name=Message(name),
            least=lowest,
            most=highest,
            value=value,
        )


def _check_multiple(name: str, side: int) -> None:
    if side % SIDE_MULTIPLE:
        raise InvalidRequest(
            msg("The {name} must be a multiple of {step} pixels; it is {value}."),
            name=Message(name),
            step=SIDE_MULTIPLE,
            value=side,
        )
