"""The five grounds of the demo world, from the horizon down to the bottom edge.

All positions are pixels of the drawing surface, y down.  This file does not know which things will stand here, and
draws nothing that could be taken for one of them.
"""

import math

from gen.demo.backdrop import Stage
from gen.demo.tones import GREYS, INK, SHINE, SKIES, WHITE, Colour, ground_tones, mix


def _ridge(stage: Stage, level: float, swing: float, fill: Colour, *, waves: float) -> None:
    """A soft hill line around `level` with hills `swing` high, filled down to the picture's bottom."""
    rng = stage.rng
    a, b = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    waves *= stage.width / stage.short * rng.uniform(0.8, 1.2)
    points = [(0.0, float(stage.height))]
    for i in range(41):
        t = i / 40
        lift = 0.65 * math.sin(a + math.tau * waves * t) + 0.35 * math.sin(b + math.tau * waves * 1.9 * t)
        points.append((t * stage.width, level - swing * lift))
    points.append((float(stage.width), float(stage.height)))
    stage.draw.polygon(points, fill=fill)


def _hills(stage: Stage, ground: str) -> None:
    """Rolling layers of meadow, dunes or snow."""
    room, short = stage.height - stage.horizon, stage.short
    far, middle, near = ground_tones(ground, stage.time, stage.sky)
    haze = mix(far, SKIES[stage.time][2 if stage.time != "noon" else 1], 0.30)
    waves = {"meadow": 1.5, "desert": 0.9, "snow field": 1.1}[ground]
    _ridge(stage, stage.horizon - short * 0.02, short * 0.05, mix(haze, INK, 0.05), waves=waves * 1.3)
    _ridge(stage, stage.horizon + short * 0.03, short * 0.03, far, waves=waves)
    _ridge(stage, stage.horizon + room * 0.28, short * 0.02, middle, waves=waves)
    _ridge(stage, stage.horizon + room * 0.72, short * 0.018, near, waves=waves)


def _spots(stage: Stage, count: int, low: float) -> list[tuple[float, float]]:
    """Scattered points on the near ground, from `low` (0 horizon, 1 bottom) down."""
    rng, room = stage.rng, stage.height - stage.horizon
    return [
        ((i + rng.uniform(0.1, 0.9)) * stage.width / count, stage.horizon + room * rng.uniform(low, 0.96))
        for i in range(count)
    ]


def _meadow(stage: Stage) -> None:
    """Rolling grass with tufts and small flowers."""
    _hills(stage, "meadow")
    g = stage.grain
    petal = stage.seen(stage.rng.choice(((255, 255, 250), (255, 238, 140), (255, 200, 216))))
    heart, blade = stage.seen((250, 190, 60)), stage.seen((76, 150, 62))
    for x, y in _spots(stage, 9, 0.45):
        stage.draw.polygon(
            [(x - 4 * g, y - 6 * g), (x, y), (x + 4 * g, y - 6 * g), (x + g, y + g), (x - g, y + g)], blade
        )
    for x, y in _spots(stage, 11, 0.60):
        for turn in range(5):
            angle = math.tau * turn / 5
            stage.disc(x + 1.9 * g * math.cos(angle), y + 1.9 * g * math.sin(angle), 1.5 * g, petal)
        stage.disc(x, y, 1.2 * g, heart)


def _desert(stage: Stage) -> None:
    """Dunes with a shaded lee side, ripples and a few pebbles."""
    rng, g, short = stage.rng, stage.grain, stage.short
    far, _, near = ground_tones("desert", stage.time, stage.sky)
    air = SKIES[stage.time][1 if stage.time == "noon" else 2]
    for _ in range(rng.randint(1, 2)):
        x, wide, high = (
            stage.width * rng.uniform(0.1, 0.9),
            short * rng.uniform(0.34, 0.5),
            short * rng.uniform(0.045, 0.075),
        )
        low, top = stage.horizon + short * 0.06, stage.horizon - high
        crest = (x + wide * 0.12, top + high * 0.5)
        stage.draw.polygon(
            [(x - wide, low), (x - wide * 0.3, top + high * 0.3), (x, top), (x + wide, low)], mix(far, air, 0.2)
        )
        stage.draw.polygon(
            [(x, top), crest, (x - wide * 0.1, low), (x + wide, low)], mix(mix(near, air, 0.15), INK, 0.08)
        )
    _hills(stage, "desert")
    ripple, pebble = mix(near, stage.seen((176, 120, 66)), 0.42), mix(near, stage.seen((130, 92, 66)), 0.7)
    for x, y in _spots(stage, 7, 0.2):
        bend = (x - 11 * g, y, x - 4 * g, y - 2 * g, x + 4 * g, y - g, x + 11 * g, y + g)
        stage.draw.line(bend, fill=ripple, width=round(1.6 * g))
    for x, y in _spots(stage, 4, 0.7):
        stage.disc(x, y, rng.uniform(2.2, 3.6) * g, pebble, flat=0.6)


def _sea(stage: Stage, light: str) -> None:
    """Water with wave crests and the trail of the sun or moon."""
    rng, room, g = stage.rng, stage.height - stage.horizon, stage.grain
    far, middle, near = ground_tones("sea", stage.time, stage.sky)
    stage.draw.rectangle((0, stage.horizon, stage.width, stage.height), fill=far)
    for level, fill in ((0.26, middle), (0.66, near)):
        _ridge(stage, stage.horizon + room * level, stage.short * 0.010, fill, waves=4.0)
    if light != "none":
        trail = mix(far, SHINE[stage.time], 0.62)
        for i in range(7):
            y = stage.horizon + room * (0.05 + 0.12 * i)
            half = stage.short * rng.uniform(0.03, 0.06) * (1 + 0.16 * i)
            x = stage.light_at[0] + rng.uniform(-0.02, 0.02) * stage.short
            stage.draw.rounded_rectangle((x - half, y, x + half, y + 2.6 * g), radius=1.3 * g, fill=trail)
    crest = mix(middle, WHITE, 0.16 if stage.time == "night" else 0.38)
    for x, y in _spots(stage, 12, 0.12):
        half = rng.uniform(7, 12) * g
        for side in (-1, 1):
            bow = (x + (side - 1) * half, y - 3 * g, x + (side + 1) * half, y + 3 * g)
            stage.draw.arc(bow, 0, 180, fill=crest, width=round(1.8 * g))


def _snow_field(stage: Stage) -> None:
    """Soft white hills with a few drifts."""
    _hills(stage, "snow field")
    far, _, near = ground_tones("snow field", stage.time, stage.sky)
    under, over = mix(far, (120, 140, 200), 0.16), mix(near, WHITE, 0.3)
    for x, y in _spots(stage, 7, 0.25):
        half = stage.rng.uniform(9, 18) * stage.grain
        stage.disc(x, y, half, under, flat=0.18)
        stage.disc(x, y - 1.6 * stage.grain, half, over, flat=0.16)


def _skyline(stage: Stage, fill: Colour, pane: Colour | None, tall: float) -> None:
    """One row of far flat-roofed blocks up to `tall` shorter sides high, with windows if they have a colour."""
    rng, short, g = stage.rng, stage.short, stage.grain
    x = -short * rng.uniform(0.0, 0.06)
    while x < stage.width:
        wide, high = short * rng.uniform(0.075, 0.12), short * tall * rng.uniform(0.6, 1.0)
        top = stage.horizon - high
        stage.draw.rectangle((x, top, x + wide, stage.horizon + 2), fill=fill)
        for px, py in ((0.28, 0.2), (0.72, 0.2), (0.28, 0.5), (0.72, 0.5)):
            if pane is not None and rng.random() < 0.6:
                cx, cy = x + wide * px, top + high * py
                stage.draw.rectangle((cx - 1.9 * g, cy - 2.3 * g, cx + 1.9 * g, cy + 2.3 * g), fill=pane)
        x += wide + (-1 if pane is None else short * rng.uniform(0.0, 0.03))


def _city(stage: Stage) -> None:
    """A square with a street in front and a far skyline behind."""
    rng, short, g = stage.rng, stage.short, stage.grain
    room, night = stage.height - stage.horizon, stage.time == "night"
    air = mix(SKIES[stage.time][2], GREYS[stage.time], 0.4)
    wall = mix(stage.seen((120, 136, 172)), (110, 126, 190), 0.16 if night else 0.0)
    front = mix(wall, air, 0.28)
    _skyline(stage, mix(wall, air, 0.60), None, 0.24)
    _skyline(stage, front, (250, 216, 120) if night else mix(front, WHITE, 0.22), 0.15)
    far, middle, road = ground_tones("city", stage.time, stage.sky)
    low = stage.horizon + room * 0.74
    stage.draw.rectangle((0, stage.horizon, stage.width, stage.height), fill=middle)
    stage.draw.rectangle((0, stage.horizon, stage.width, stage.horizon + room * 0.16), fill=far)
    stage.draw.rectangle((0, low, stage.width, stage.height), fill=road)
    stage.draw.rectangle((0, low - 3 * g, stage.width, low), fill=mix(middle, INK, 0.22))
    dash, x = short * 0.11, -short * rng.uniform(0.0, 0.11)
    line, paint = (low + stage.height) / 2, mix(road, WHITE, 0.35 if night else 0.7)
    while x < stage.width:
        stage.draw.rectangle((x, line - 1.8 * g, x + dash, line + 1.8 * g), fill=paint)
        x += dash * 1.8


def paint_ground(stage: Stage, ground: str, light: str) -> None:
    """Paint the ground from the horizon down to the bottom edge."""
    if ground == "meadow":
        _meadow(stage)
    elif ground == "desert":
        _desert(stage)
    elif ground == "sea":
        _sea(stage, light)
    elif ground == "snow field":
        _snow_field(stage)
    else:
        _city(stage)
