"""The demo world's colours: of the things, of the sky and of the ground, at each time of day.

Colours are RGB triples of 0..255.  This file draws nothing and does not know what a scene contains.
"""

from dataclasses import dataclass

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (34, 28, 52)
WOOD: Colour = (122, 84, 58)
BASES: dict[str, tuple[Colour, Colour]] = {  # a thing's body colour, and the colour its shaded parts turn to
    "red": ((224, 42, 50), (84, 8, 44)),
    "orange": ((250, 130, 20), (150, 44, 12)),
    "yellow": ((255, 216, 46), (150, 84, 10)),
    "green": ((46, 164, 76), (8, 52, 62)),
    "blue": ((40, 106, 226), (22, 18, 104)),
    "purple": ((144, 66, 198), (52, 14, 104)),
    "white": ((249, 249, 247), (112, 128, 176)),
    "brown": ((132, 82, 46), (48, 24, 22)),
}
TINTS: dict[str, tuple[float, float, float]] = {  # how strongly each channel of a thing survives, 0..1
    "dawn": (1.0, 0.98, 0.98),
    "noon": (1.0, 1.0, 1.0),
    "sunset": (0.99, 0.95, 0.93),
    "night": (0.91, 0.92, 0.98),
}
DARK_COATS = frozenset({"brown", "purple", "blue"})

SKIES: dict[str, tuple[Colour, Colour, Colour]] = {  # top, middle, horizon
    "dawn": ((150, 186, 236), (224, 200, 232), (255, 216, 200)),
    "noon": ((52, 148, 236), (122, 196, 250), (206, 238, 252)),
    "sunset": ((106, 48, 132), (226, 84, 106), (255, 176, 76)),
    "night": ((12, 18, 54), (28, 38, 94), (60, 70, 140)),
}
GREYS: dict[str, Colour] = {
    "dawn": (196, 190, 206),
    "noon": (176, 194, 212),
    "sunset": (168, 112, 116),
    "night": (40, 46, 76),
}
CLOUDS: dict[str, Colour] = {
    "dawn": (255, 240, 240),
    "noon": (255, 255, 255),
    "sunset": (255, 206, 172),
    "night": (98, 108, 160),
}
BANKS: dict[str, Colour] = {  # rain clouds
    "dawn": (150, 146, 172),
    "noon": (124, 140, 164),
    "sunset": (112, 66, 98),
    "night": (48, 54, 88),
}
RAIN: dict[str, Colour] = {
    "dawn": (110, 144, 208),
    "noon": (96, 144, 214),
    "sunset": (226, 212, 236),
    "night": (156, 182, 232),
}
SHINE: dict[str, Colour] = {  # the light's trail on the water
    "dawn": (255, 236, 196),
    "noon": (244, 252, 255),
    "sunset": (255, 196, 110),
    "night": (206, 216, 250),
}
SUNS: dict[str, tuple[Colour, Colour]] = {  # disc and glow
    "dawn": ((255, 222, 128), (255, 240, 214)),
    "noon": ((255, 226, 72), (255, 250, 210)),
    "sunset": ((255, 206, 84), (255, 188, 96)),
}
GROUNDS: dict[str, tuple[Colour, Colour, Colour]] = {  # far, middle, near, in plain daylight
    "meadow": ((158, 212, 128), (134, 200, 100), (112, 186, 84)),
    "desert": ((246, 218, 160), (240, 200, 130), (230, 182, 108)),
    "sea": ((92, 190, 214), (58, 168, 204), (38, 146, 190)),
    "snow field": ((216, 230, 246), (230, 240, 250), (240, 247, 253)),
    "city": ((182, 188, 200), (200, 202, 210), (118, 122, 138)),
}
SUNSET_SEA: tuple[Colour, Colour, Colour] = ((196, 120, 140), (124, 96, 150), (94, 78, 140))
GLINTS: dict[tuple[str, str], tuple[Colour, float]] = {  # what keeps a ground recognisable in poor light
    ("snow field", "night"): ((170, 190, 250), 0.22),
    ("snow field", "sunset"): ((255, 236, 244), 0.26),
    ("meadow", "night"): ((60, 150, 96), 0.16),
    ("desert", "night"): ((200, 144, 110), 0.18),
}
DAYLIGHT: dict[str, tuple[tuple[float, float, float], Colour, float]] = {  # channel factors, wash, how much of it
    "dawn": ((0.98, 0.94, 0.97), (255, 206, 212), 0.20),
    "noon": ((1.0, 1.0, 1.0), WHITE, 0.0),
    "sunset": ((0.88, 0.72, 0.72), (250, 120, 84), 0.16),
    "night": ((0.42, 0.46, 0.60), (30, 40, 100), 0.22),
}


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` is 0 for the first and 1 for the second."""
    a, b, keep = first, second, 1.0 - share
    return (
        round(a[0] * keep + b[0] * share),
        round(a[1] * keep + b[1] * share),
        round(a[2] * keep + b[2] * share),
    )


def scale(colour: Colour, factors: tuple[float, float, float]) -> Colour:
    """Multiply each channel by its factor (0..1)."""
    return (round(colour[0] * factors[0]), round(colour[1] * factors[1]), round(colour[2] * factors[2]))


def lit(colour: Colour, time: str, sky: str) -> Colour:
    """A daylight colour of the background as it looks at this time, under this sky."""
    factors, wash, share = DAYLIGHT[time]
    seen = mix(scale(colour, factors), wash, share)
    return mix(seen, GREYS[time], {"rainy": 0.26, "snowy": 0.12, "cloudy": 0.10}.get(sky, 0.0))


def ground_tones(ground: str, time: str, sky: str) -> tuple[Colour, Colour, Colour]:
    """The far, middle and near tone of the ground at this time, under this sky."""
    if ground == "sea" and time == "sunset":
        far, middle, near = (mix(colour, GREYS[time], 0.2 if sky == "rainy" else 0.0) for colour in SUNSET_SEA)
        return far, middle, near
    glint, lift = GLINTS.get((ground, time), (WHITE, 0.0))
    far, middle, near = (mix(lit(colour, time, sky), glint, lift) for colour in GROUNDS[ground])
    return far, middle, near


@dataclass(frozen=True, slots=True, kw_only=True)
class Coat:
    """The tones in which one thing is painted at one time of day."""

    base: Colour
    light: Colour
    dark: Colour
    roof: Colour
    line: Colour
    band: Colour
    glass: Colour
    glowing: bool


def coat_for(colour: str, time: str) -> Coat:
    """The tones of a thing of this colour at this time of day."""
    body, shade = BASES[colour]
    base, night, white = scale(body, TINTS[time]), time == "night", colour == "white"
    line = (104, 116, 150) if white else mix(mix(base, shade, 0.5), INK, 0.42)
    if night:
        line = mix(base, WHITE, 0.40) if colour in DARK_COATS else mix(line, INK, 0.4)
    return Coat(
        base=base,
        light=mix(base, WHITE, 0.28),
        dark=mix(base, shade, 0.34 if white else 0.27),
        roof=(98, 110, 146) if white else mix(base, shade, 0.56),
        line=line,
        band=(204, 211, 226) if white else mix((250, 248, 244), base, 0.04),
        glass=(255, 226, 130) if night else (255, 238, 190) if time == "sunset" else (224, 240, 248),
        glowing=night,
    )
