"""The demo world's scenes: what a scene may contain, how one is sampled, and how one is drawn.

A scene holds only what a caption can state; the seed decides everything else.  This file does not know how captions
are worded, nor anything about models or training.
"""

import hashlib
import random
from dataclasses import dataclass, fields

from PIL import Image, ImageDraw

from gen.demo.backdrop import Stage, paint_clouds, paint_fall, paint_light, paint_sky, paint_stars
from gen.demo.grounds import paint_ground
from gen.demo.things import Point, Pose, paint_thing
from gen.demo.tones import INK, WHITE, Coat, coat_for, ground_tones, mix

ATTRIBUTES: dict[str, tuple[str, ...] | tuple[int, ...]] = {
    "time": ("dawn", "noon", "sunset", "night"),
    "sky": ("clear", "cloudy", "rainy", "snowy", "starry"),
    "ground": ("meadow", "desert", "sea", "snow field", "city"),
    "light": ("sun", "moon", "none"),
    "thing": ("house", "tree", "mountain", "boat", "lighthouse", "castle", "cat", "balloon"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "white", "brown"),
    "number": (1, 2, 3),
    "size": ("small", "large"),
    "place": ("left", "middle", "right"),
}
SUPERSAMPLE = 3
HELD_OUT_SHARE = 8  # one in so many combinations of thing, colour, ground and time is held out
SIZES: dict[tuple[int, str], tuple[float, float]] = {  # a thing's nominal height in shorter sides of the picture
    (1, "small"): (0.22, 0.27),
    (1, "large"): (0.43, 0.50),
    (2, "small"): (0.17, 0.20),
    (2, "large"): (0.31, 0.36),
    (3, "small"): (0.145, 0.165),
    (3, "large"): (0.245, 0.275),
}
BUILDS: dict[str, tuple[float, float, float]] = {  # height per nominal height, width per height, pitch per width
    "house": (0.90, 1.00, 1.10),
    "tree": (1.02, 0.80, 1.06),
    "mountain": (0.84, 1.34, 0.82),
    "boat": (0.95, 0.98, 1.04),
    "lighthouse": (1.14, 0.42, 1.35),
    "castle": (0.88, 1.01, 1.12),
    "cat": (0.96, 0.92, 0.90),
    "balloon": (1.08, 0.76, 0.98),
}
CENTRES = {"left": 0.25, "middle": 0.5, "right": 0.75}


class InvalidScene(ValueError):
    """A scene with an unknown word, or one that contradicts itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows, in the words of ATTRIBUTES."""

    time: str
    sky: str
    ground: str
    light: str
    thing: str
    colour: str
    number: int
    size: str
    place: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is bool or value not in ATTRIBUTES[field.name]:
                raise InvalidScene(f"{field.name} cannot be {value!r}; it is one of {ATTRIBUTES[field.name]}")
        if self.sky not in skies_at(self.time):
            raise InvalidScene(f"the sky is {self.sky} only at night, not at {self.time}")
        if self.light not in lights_in(self.time, self.sky):
            raise InvalidScene(f"light {self.light!r} does not fit a {self.sky} sky at {self.time}")


def skies_at(time: str) -> tuple[str, ...]:
    """The skies that can occur at this time."""
    skies = ("clear", "cloudy", "rainy", "snowy")
    return (*skies, "starry") if time == "night" else skies


def lights_in(time: str, sky: str) -> tuple[str, ...]:
    """The lights that can hang in this sky at this time."""
    lights = {"noon": ("sun",), "night": ("moon",)}.get(time, ("sun", "moon"))
    return (*lights, "none") if sky in ("cloudy", "rainy", "snowy") else lights


def is_held_out(scene: Scene) -> bool:
    """Whether the scene's combination of thing, colour, ground and time never occurs in training; the same anywhere."""
    key = "|".join((scene.thing, scene.colour, scene.ground, scene.time))
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_SHARE == 0


def sample_scene(rng: random.Random, *, held_out: bool = False) -> Scene:
    """A random valid scene from the training side of the split, or from the held-out side."""

    def pick(name: str) -> str:
        return str(rng.choice(ATTRIBUTES[name]))

    while True:
        time = pick("time")
        sky = rng.choice(skies_at(time))
        scene = Scene(
            time=time,
            sky=sky,
            ground=pick("ground"),
            light=rng.choice(lights_in(time, sky)),
            thing=pick("thing"),
            colour=pick("colour"),
            number=rng.randint(1, 3),
            size=pick("size"),
            place=pick("place"),
        )
        if is_held_out(scene) == held_out:
            return scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the things stand: foot points and one height and width for all, in pixels of the drawing surface."""

    feet: tuple[Point, ...]
    height: float
    width: float
    left: float
    right: float


def _lay_out(scene: Scene, rng: random.Random, width: int, height: int, horizon: float) -> Layout:
    """Place the group of things; the same width and height as the drawing surface's."""
    short = min(width, height)
    tall, broad, pitch = BUILDS[scene.thing]
    thing_height = rng.uniform(*SIZES[scene.number, scene.size]) * short * tall
    thing_width = thing_height * broad
    step = thing_width * pitch
    flying = scene.thing == "balloon"
    if flying and scene.number == 3:
        step *= 0.86
    half = (thing_width + step * (scene.number - 1)) / 2
    margin = half + short * rng.uniform(0.015, 0.03)
    centre = (CENTRES[scene.place] + rng.uniform(-0.03, 0.03)) * width
    centre = width / 2 if 2 * margin > width else min(max(centre, margin), width - margin)
    base = horizon + (height - horizon) * rng.uniform(0.46, 0.60)
    if flying:
        base = horizon * rng.uniform(0.56, 0.64) + thing_height / 2
    wave = rng.choice((-1.0, 1.0)) * (0.22 * thing_height if flying else 0.025 * short)
    feet = []
    for i in range(scene.number):
        drop = (i % 2 - 0.5) * wave if scene.number > 1 else 0.0
        if flying and scene.number == 3:
            drop = (0.5 - i % 2) * abs(wave) * 1.8
        feet.append((centre + (i - (scene.number - 1) / 2) * step, base + drop))
    return Layout(feet=tuple(feet), height=thing_height, width=thing_width, left=centre - half, right=centre + half)


def _light_at(layout: Layout, rng: random.Random, size: tuple[int, int], horizon: float, sky: str) -> Point:
    """A point in the sky on the side where the things leave more room; size is the drawing surface's."""
    width, short = size[0], min(size)
    room_left, room_right = layout.left, width - layout.right
    on_left = rng.random() < 0.5 if abs(room_left - room_right) < 0.1 * short else room_left > room_right
    room = max(0.2 * short, room_left if on_left else room_right)
    away = rng.uniform(0.38, 0.62) * room
    high = rng.uniform(0.19, 0.36) * horizon
    if sky in ("rainy", "snowy"):  # below the bank of clouds
        high = max(high, short * rng.uniform(0.235, 0.285))
    return (away if on_left else width - away), high


def _paint_island(stage: Stage, scene: Scene, layout: Layout) -> None:
    """A low island for things that cannot swim."""
    low = max(y for _, y in layout.feet)
    middle, half = (layout.left + layout.right) / 2, (layout.right - layout.left) / 2 + 0.05 * stage.short
    deep = max(0.030 * stage.short, half * 0.13)
    foam = mix(stage.seen((150, 214, 226)), WHITE, 0.1 if scene.time == "night" else 0.45)
    rows = ((1.10, 0.62, foam), (1.0, 0.42, stage.seen((158, 140, 120))), (0.97, 0.12, stage.seen((226, 204, 156))))
    for share, drop, fill in rows:
        stage.disc(middle, low + deep * drop, half * share, fill, flat=deep / half)


def _paint_shadow(stage: Stage, scene: Scene, layout: Layout, foot: Point) -> None:
    """The thing's soft shadow on the ground, or its reflection when it floats on the sea."""
    x, y = foot
    half = layout.width / 2
    if scene.thing == "boat" and scene.ground == "sea":
        return
    away = 0.12 * half * (1 if stage.light_at[0] < x else -1)
    flat = 0.03 * stage.short if scene.thing != "balloon" else 0.018 * stage.short
    if scene.thing == "balloon":
        y, half = stage.horizon + (stage.height - stage.horizon) * 0.62, half * 0.6
    spot = (x + away - half * 1.05, y - flat * 0.7, x + away + half * 1.05, y + flat)
    stage.draw.ellipse(spot, fill=(*INK, 70))


def _paint_reflection(stage: Stage, coat: Coat, layout: Layout, foot: Point) -> None:
    """Broken bars of the boat's colour on the water, and the wave that hides its keel."""
    x, y = foot
    water = ground_tones("sea", stage.time, stage.sky)[1]
    for i, share in enumerate((0.80, 0.58, 0.66, 0.36)):
        half, top = layout.width * 0.5 * share, y + layout.height * (0.015 + 0.055 * i)
        shift = stage.rng.uniform(-0.04, 0.04) * layout.width
        bar = (x - half + shift, top, x + half + shift, top + layout.height * 0.03)
        stage.draw.rounded_rectangle(bar, radius=layout.height * 0.015, fill=mix(coat.base, water, 0.45 + 0.08 * i))
    half = layout.width * 0.5
    foam = mix(water, WHITE, 0.30 if stage.time == "night" else 0.7)
    bar = (x - half, y - 0.02 * layout.height, x + half, y + 0.018 * layout.height)
    stage.draw.rounded_rectangle(bar, radius=0.019 * layout.height, fill=foam)


def _paint_things(stage: Stage, scene: Scene, layout: Layout) -> None:
    """Paint the group, the farther ones first."""
    coat = coat_for(scene.colour, scene.time)
    afloat = scene.ground == "sea" and scene.thing == "boat"
    if scene.ground == "sea" and scene.thing not in ("boat", "balloon"):
        _paint_island(stage, scene, layout)
    feet = sorted(layout.feet, key=lambda foot: foot[1])
    for foot in feet:
        _paint_shadow(stage, scene, layout, foot)
    style = stage.rng.getrandbits(32)
    for foot in feet:
        pose = Pose(foot=foot, height=layout.height, mirror=stage.light_at[0] > foot[0])
        paint_thing(stage.draw, scene.thing, coat, pose, random.Random(style))
        if afloat:
            _paint_reflection(stage, coat, layout, foot)


def draw_scene(scene: Scene, *, width: int, height: int, seed: int) -> Image.Image:
    """Draw the scene as an RGB picture.

    Width and height are pixels: multiples of 16 from 128 to 384, neither more than twice the other.  The same scene,
    size and seed give the same picture; the seed varies everything that the scene leaves open.
    """
    for side in (width, height):
        if not 128 <= side <= 384 or side % 16:
            raise ValueError(f"a side is a multiple of 16 from 128 to 384, not {side}")
    if max(width, height) > 2 * min(width, height):
        raise ValueError(f"one side is at most twice the other, not {width}x{height}")
    rng = random.Random(seed)
    image = Image.new("RGB", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    horizon = image.height * rng.uniform(0.60, 0.67)
    layout = _lay_out(scene, rng, image.width, image.height, horizon)
    stage = Stage(
        image=image,
        draw=ImageDraw.Draw(image, "RGBA"),
        rng=rng,
        scale=SUPERSAMPLE,
        time=scene.time,
        sky=scene.sky,
        horizon=horizon,
        light_at=_light_at(layout, rng, image.size, horizon, scene.sky),
    )
    paint_sky(stage)
    if scene.sky == "starry":
        paint_stars(stage)
    paint_light(stage, scene.light)
    paint_clouds(stage)
    paint_ground(stage, scene.ground, scene.light)
    paint_fall(stage, front=False)
    _paint_things(stage, scene, layout)
    paint_fall(stage, front=True)
    return image.reduce(SUPERSAMPLE)
