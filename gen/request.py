"""What can be asked for, and what comes back: validated values without torch.

Every limit is declared once, here or in `gen.prompt`; Discord's options, the command line and the database read them.
`ImageRequest` holds what any model must satisfy; `ModelProfile` adds what one model can draw. Knows no model
code, no Discord and no files.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from gen.errors import InvalidRequest
from gen.message import Message, msg
from gen.prompt import FILLERS
from gen.prompt import PROMPT_MAX_CHARACTERS as PROMPT_MAX_CHARACTERS
from gen.prompt import SEED_MAX as SEED_MAX
from gen.prompt import check_prompt as check_prompt

STEPS_MIN, STEPS_MAX = 1, 50
GUIDANCE_MIN, GUIDANCE_MAX = 1.0, 10.0
SHAPES = ((1, 1), (3, 2), (2, 3), (16, 9), (9, 16), (4, 3), (3, 4))  # width to height, that people are offered
CFG_SCALE_MIN, CFG_SCALE_MAX = 1.0, 10.0
LORAS_MAX = 5
LORA_STRENGTH_MAX = 4.0  # either way
VARIATIONS_MAX = 10
SHARE_MIN, SHARE_MAX = 0.01, 1.0
SUBTLE, STRONG = 0.1, 0.4  # shares: another detail; another arrangement of the same things (demo model, 2026-11)
SIDE_MULTIPLE = 16
SIDE_MIN, SIDE_MAX = 128, 2048

LORA_NAME_MAX_CHARACTERS = 80
# letters of any script; no path, no markup, nothing invisible, so no space at an end
_LORA_NAME = re.compile(rf"[^\W_](?:[\w ._-]{{0,{LORA_NAME_MAX_CHARACTERS - 2}}}[\w.-])?")
_SIZE = re.compile(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraUse:
    """One LoRA by name, never by path, and how strongly it works."""

    name: str  # of a file in the folder of LoRAs, without its ending
    strength: float  # -4.0 to 4.0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for a name that is none or a strength outside its limits."""
        if not is_lora_name(self.name):
            raise InvalidRequest(msg("There is no LoRA named {name!r}."), name=self.name[:80])
        strength = Message(msg("strength of {lora}"), lora=self.name)
        _check_range(strength, self.strength, -LORA_STRENGTH_MAX, LORA_STRENGTH_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """A second noise that is mixed into the first.

    Of the mixture sqrt(1 - share) first + sqrt(share) second, `share` is the second's part of the variance, which
    stays one: both are independent and normal.
    """

    seed: int  # of the second noise, uint32
    share: float  # 0.01 to 1.0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for a value outside its limits."""
        _check_range(msg("variation's seed"), self.seed, 0, SEED_MAX)
        _check_range(msg("variation's share"), self.share, SHARE_MIN, SHARE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One picture to draw. If you hold one, it is within every model's outer limits."""

    prompt: str  # 1 to 1,000 characters, at least one letter or digit
    seed: int  # of the initial noise, uint32
    width: int  # pixels, a multiple of 16
    height: int  # pixels, a multiple of 16
    steps: int  # denoising steps, 1 to 50
    guidance: float  # scale of the distilled guidance, 1.0 to 10.0
    negative: str = ""  # what to stay away from, up to 1,000 characters; works only with a cfg_scale above 1
    cfg_scale: float = 1.0  # classifier-free guidance, 1.0 to 10.0; 1.0: off, above: each step takes twice as long
    loras: tuple[LoraUse, ...] = ()  # at most 5, each once
    variations: tuple[Variation, ...] = ()  # mixed in one after the other, at most 10

    def __post_init__(self) -> None:
        """Raise InvalidRequest for the first value that is outside its limit."""
        check_prompt(self.prompt)
        _check_range(msg("seed"), self.seed, 0, SEED_MAX)
        for name, side in ((msg("width"), self.width), (msg("height"), self.height)):
            _check_range(name, side, SIDE_MIN, SIDE_MAX)
            _check_multiple(name, side)
        _check_range(msg("steps"), self.steps, STEPS_MIN, STEPS_MAX)
        _check_range(msg("guidance"), self.guidance, GUIDANCE_MIN, GUIDANCE_MAX)
        _check_range(msg("cfg_scale"), self.cfg_scale, CFG_SCALE_MIN, CFG_SCALE_MAX)
        if self.negative:
            check_prompt(self.negative, name=msg("negative prompt"))
            if self.cfg_scale == CFG_SCALE_MIN:
                raise InvalidRequest(msg("A negative prompt works with a cfg_scale above 1; it is 1."))
        _check_count(msg("LoRAs"), len(self.loras), LORAS_MAX)
        _check_count(msg("variations"), len(self.variations), VARIATIONS_MAX)
        names = [use.name for use in self.loras]
        if len(set(names)) < len(names):
            raise InvalidRequest(msg("Each LoRA may be there once; given are {names}."), names=tuple(names))

    @property
    def passes(self) -> int:
        """How often the model is run: what decides, with the size, how long the drawing takes."""
        return self.steps * (2 if self.cfg_scale > CFG_SCALE_MIN else 1)

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
    cfg_scale: float = 2.0  # default, where there is a negative prompt
    cfg_scale_max: float = CFG_SCALE_MAX  # 1.0: the model cannot use it
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

    def avoiding(self, request: ImageRequest, *, negative: str, cfg_scale: float | None = None) -> ImageRequest:
        """The request with a negative prompt, "" for none; without a cfg_scale it has this model's default for that.

        Raise InvalidRequest outside this model's limits.
        """
        chosen = (self.cfg_scale if negative else CFG_SCALE_MIN) if cfg_scale is None else cfg_scale
        self._check_cfg_scale(chosen)
        return replace(request, negative=negative, cfg_scale=chosen)

    def check(self, request: ImageRequest) -> None:
        """Raise InvalidRequest if this model cannot draw `request`."""
        self._check_size(request.width, request.height)
        self._check_cfg_scale(request.cfg_scale)

    def _check_cfg_scale(self, cfg_scale: float) -> None:
        if cfg_scale > CFG_SCALE_MIN and self.cfg_scale_max == CFG_SCALE_MIN:
            raise InvalidRequest(
                msg("{model} can use neither a negative prompt nor a cfg_scale above 1; it is {value:g}."),
                model=self.name,
                value=cfg_scale,
            )
        _check_range(msg("cfg_scale"), cfg_scale, CFG_SCALE_MIN, self.cfg_scale_max)

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
        found = (f"{self.width}x{self.height}", *(self.size_of(*shape) for shape in SHAPES))
        return tuple(dict.fromkeys(size for size in found if size is not None))

    def size_of(self, across: int, down: int) -> str | None:
        """A size of this shape with about the default's area; None if the model cannot draw it."""
        height = math.sqrt(self.width * self.height * down / across)
        width, height = (
            min(self.side_max, max(self.side_min, round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE))
            for side in (height * across / down, height)
        )
        return f"{width}x{height}" if width * height <= self.pixels_max else None


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


def is_lora_name(name: str) -> bool:
    """Whether a LoRA may be called so: it is no path, and shows as what it is."""
    return _LORA_NAME.fullmatch(name) is not None and not FILLERS & set(name)


def parse_size(text: str) -> tuple[int, int]:
    """Read `768x512` as (width, height) in pixels; raise InvalidRequest for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise InvalidRequest(msg("A size is width x height in pixels, like 768x512; it is {value!r}."), value=shown)
    return int(found[1]), int(found[2])


def _check_range(name: str | Message, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # false for NaN too
        raise InvalidRequest(
            msg("The {name} must be from {least:,} to {most:,}; it is {value:,}."),
            name=name if isinstance(name, Message) else Message(name),
            least=lowest,
            most=highest,
            value=value,
        )


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest(
            msg("There may be {most} {what} at most; there are {value}."), most=most, what=Message(what), value=count
        )


def _check_multiple(name: str, side: int) -> None:
    if side % SIDE_MULTIPLE:
        raise InvalidRequest(
            msg("The {name} must be a multiple of {step} pixels; it is {value}."),
            name=Message(name),
            step=SIDE_MULTIPLE,
            value=side,
        )
