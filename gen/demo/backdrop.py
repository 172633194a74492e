"""The surface a scene is painted on, and its sky: gradient, stars, sun or moon, clouds, rain and snow.

All positions are pixels of the drawing surface, y down.  This file does not know which things stand in the picture;
it is only told where the light may hang.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from gen.demo.tones import BANKS, CLOUDS, GREYS, RAIN, SKIES, SUNS, WHITE, Colour, lit, mix


@dataclass(slots=True, kw_only=True)
class Stage:
    """The surface being painted, with what every painter needs to know about the scene around it."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    rng: random.Random
    scale: int  # surface pixels per picture pixel
    time: str
    sky: str
    horizon: float
    light_at: tuple[float, float]

    @property
    def width(self) -> int:
        """The surface's width in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """The surface's height in pixels."""
        return self.image.height

    @property
    def short(self) -> int:
        """The shorter side in pixels."""
        return min(self.image.size)

    @property
    def grain(self) -> float:
        """One pixel of a 256-pixel picture; it shrinks slower than the picture so that small marks stay visible."""
        return self.scale * math.pow(self.short / (256 * self.scale), 0.7)

    def seen(self, colour: Colour) -> Colour:
        """A daylight colour as it looks on this stage."""
        return lit(colour, self.time, self.sky)

    def disc(self, x: float, y: float, radius: float, fill: Colour, *, flat: float = 1.0) -> None:
        """A filled circle, or an ellipse `flat` times as high as wide."""
        self.draw.ellipse((x - radius, y - radius * flat, x + radius, y + radius * flat), fill=fill)

    def glow(self, radius: float, colour: Colour, strength: float) -> None:
        """A soft round shine around the light; strength 0..1 in its middle."""
        side = round(2 * radius)
        table = [round(255 * strength * max(0.0, 1 - v / 178) ** 2) for v in range(256)]
        mask = Image.radial_gradient("L").point(table).resize((side, side), Image.Resampling.BILINEAR)
        self.image.paste(colour, (round(self.light_at[0] - radius), round(self.light_at[1] - radius)), mask)


def paint_sky(stage: Stage) -> None:
    """Fill the whole surface with the sky's gradient."""
    share = {"cloudy": 0.30, "rainy": 0.62, "snowy": 0.50}.get(stage.sky, 0.0)
    grey = mix(GREYS[stage.time], WHITE, 0.25 if stage.sky == "snowy" and stage.time != "night" else 0.0)
    colours = [mix(colour, grey, share) for colour in SKIES[stage.time]]
    bend = stage.rng.uniform(0.42, 0.62)
    rows = np.linspace(0.0, stage.height / stage.horizon, stage.height)
    channels = [np.interp(rows, (0.0, bend, 1.0), [colour[i] for colour in colours]) for i in range(3)]
    column = np.stack(channels, axis=1).round().astype(np.uint8)[:, None, :]
    stage.image.paste(Image.fromarray(column).resize(stage.image.size, Image.Resampling.NEAREST))


def paint_stars(stage: Stage) -> None:
    """Scatter four-pointed stars and dots over a starry sky."""
    rng, step = stage.rng, stage.short / 9
    for row in range(int(stage.horizon * 0.94 / step)):
        for column in range(math.ceil(stage.width / step)):
            x = (column + rng.uniform(0.15, 0.85)) * step
            y = (row + rng.uniform(0.15, 0.85)) * step
            if math.dist((x, y), stage.light_at) < stage.short * 0.13:
                continue
            tone = rng.choice(((255, 255, 255), (255, 244, 196), (206, 222, 255)))
            if rng.random() < 0.42:
                long, thin = rng.uniform(3.6, 5.6) * stage.grain, 1.2 * stage.grain
                tips = [
                    (math.sin(i * math.tau / 8) * r, -math.cos(i * math.tau / 8) * r)
                    for i, r in enumerate((long, thin) * 4)
                ]
                stage.draw.polygon([(x + dx, y + dy) for dx, dy in tips], fill=tone)
            else:
                stage.disc(x, y, rng.uniform(1.3, 1.9) * stage.grain, tone)


def paint_light(stage: Stage, light: str) -> None:
    """Hang the sun (a disc with a glow) or the moon (a crescent) at the stage's light position."""
    x, y = stage.light_at
    rng, radius = stage.rng, stage.short * stage.rng.uniform(0.058, 0.076)
    if light == "sun":
        disc, shine = SUNS[stage.time]
        stage.glow(radius * 4.6, shine, 0.85)
        stage.disc(x, y, radius * 1.38, mix(shine, disc, 0.35))
        stage.disc(x, y, radius, disc)
    elif light == "moon":
        stage.glow(radius * 4.0, (212, 222, 255), 0.62 if stage.time == "night" else 0.5)
        size = math.ceil(radius * 1.15) * 2
        mask = Image.new("L", (size, size), 0)
        pen, middle = ImageDraw.Draw(mask), size / 2
        big = radius * 1.12
        pen.ellipse((middle - big, middle - big, middle + big, middle + big), fill=255)
        turn, bite = rng.uniform(-0.5, 0.5), rng.uniform(0.50, 0.66) * big
        bite_x, bite_y = middle + bite * math.cos(turn), middle - bite * math.sin(turn)
        hole = big * 0.86
        pen.ellipse((bite_x - hole, bite_y - hole, bite_x + hole, bite_y + hole), fill=0)
        stage.image.paste((255, 250, 222), (round(x - middle), round(y - middle)), mask)


def _cloud(stage: Stage, x: float, y: float, wide: float, tone: Colour, shade: Colour) -> None:
    """One puffy cloud with a flat base; (x, y) is the middle of the base, `wide` its width."""
    rng = stage.rng
    puffs = [(-0.30, 0.12, 0.15), (-0.08, 0.20, 0.21), (0.17, 0.15, 0.17), (0.36, 0.09, 0.11)]
    way = rng.choice((-1.0, 1.0))
    rings = [(x + way * px * wide, y - py * wide, pr * wide * rng.uniform(0.9, 1.12)) for px, py, pr in puffs]
    low, half = wide * 0.055, wide * 0.46
    for lift, colour in ((0.0, shade), (low, tone)):
        for px, py, pr in rings:
            stage.disc(px, py - lift, pr - lift * 0.3, colour)
        bar = (x - half, y - wide * 0.12 - lift, x + half, y + wide * 0.05 - lift)
        stage.draw.rounded_rectangle(bar, radius=wide * 0.085, fill=colour)


def paint_clouds(stage: Stage) -> None:
    """Single clouds on a cloudy sky; a closed bank along the top on a rainy or snowy one."""
    rng, short = stage.rng, stage.short
    ceiling = mix(SKIES[stage.time][0], GREYS[stage.time], 0.4)
    if stage.sky == "cloudy":
        tone = mix(CLOUDS[stage.time], GREYS[stage.time], 0.08)
        shade = mix(tone, ceiling, 0.42)
        count = rng.randint(4, 6) if stage.width <= stage.height * 1.4 else rng.randint(6, 8)
        for i in range(count):
            wide = short * rng.uniform(0.22, 0.36)
            x = stage.width * (i + rng.uniform(0.1, 0.9)) / count
            y = stage.horizon * ((0.16, 0.46)[i % 2] + rng.uniform(0.0, 0.22))
            away_x, away_y = abs(x - stage.light_at[0]), y - stage.light_at[1]
            if away_x < wide * 0.5 + short * 0.1 and -0.11 * short < away_y < wide * 0.42 + 0.07 * short:
                y = stage.light_at[1] + wide * 0.42 + 0.07 * short  # hang below the sun or moon, not before it
            _cloud(stage, x, y, wide, tone, shade)
    elif stage.sky in ("rainy", "snowy"):
        snowy = stage.sky == "snowy"
        tone = mix(BANKS[stage.time], CLOUDS[stage.time], 0.62 if snowy else 0.0)
        for layer, colour in enumerate((mix(tone, ceiling, 0.35), tone)):
            x, low = -short * rng.uniform(0.0, 0.1), short * (0.10 - 0.045 * layer)
            while x < stage.width + short * 0.1:
                radius = short * rng.uniform(0.075, 0.115)
                stage.disc(x, low + radius * rng.uniform(0.0, 0.3) - radius * 0.5, radius, colour)
                x += radius * 1.25
            stage.draw.rectangle((0, 0, stage.width, low), fill=colour)


def paint_fall(stage: Stage, *, front: bool) -> None:
    """Rain streaks or snowflakes; few of them in front of the things, the most behind."""
    rng, grain = stage.rng, stage.grain
    if stage.sky not in ("rainy", "snowy"):
        return
    step = (54 if front else 25) * grain
    rainy, night = stage.sky == "rainy", stage.time == "night"
    wet = RAIN[stage.time]
    for row in range(math.ceil(stage.height / step)):
        for column in range(math.ceil(stage.width / step)):
            x = (column + rng.uniform(0.1, 0.9)) * step
            y = (row + rng.uniform(0.1, 0.9)) * step
            if y < stage.short * 0.1:
                continue
            if rainy:
                long = rng.uniform(9.0, 13.0) * grain
                stage.draw.line((x, y, x - long * 0.28, y + long), fill=wet, width=round(1.7 * grain))
            else:
                stage.disc(x, y, rng.uniform(1.9, 3.1) * grain, (214, 222, 250) if night else WHITE)
