"""The eight things of the demo world as small lists of flat shapes, and how such a list is painted.

A thing is described in its own units: it stands on y = 0, its top is at y = 1, x = 0 is its middle and the light
comes from the left.  This file does not know where a thing stands, what is behind it or what a caption calls it.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import ImageDraw

from gen.demo.tones import INK, WHITE, WOOD, Coat, Colour, mix

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One flat shape in a thing's own units; `rim` shapes make up its outline, `stroke` is a line's thickness."""

    kind: str
    points: tuple[Point, ...]
    fill: Colour | tuple[int, int, int, int]
    rim: bool
    stroke: float = 0.0


def poly(fill: Colour, *points: Point, rim: bool = True) -> Shape:
    """A filled polygon."""
    return Shape(kind="polygon", points=points, fill=fill, rim=rim)


def box(fill: Colour, left: float, low: float, right: float, high: float, *, rim: bool = True) -> Shape:
    """A filled rectangle."""
    return poly(fill, (left, low), (left, high), (right, high), (right, low), rim=rim)


def oval(fill: Colour, left: float, low: float, right: float, high: float, *, rim: bool = True) -> Shape:
    """A filled ellipse inside the given box."""
    return Shape(kind="ellipse", points=((left, low), (right, high)), fill=fill, rim=rim)


def stroke(fill: Colour, thickness: float, *points: Point, rim: bool = True) -> Shape:
    """A line with round joints."""
    return Shape(kind="line", points=points, fill=fill, rim=rim, stroke=thickness)


def _house(coat: Coat, rng: random.Random) -> list[Shape]:
    door = rng.choice((-0.2, 0.0))
    chimney = rng.choice((-0.28, 0.22))
    flat = rng.uniform(0.0, 0.14)
    frame, ridge = coat.band, mix(coat.roof, coat.light, 0.25)
    shapes = [
        box(coat.roof, chimney - 0.06, 0.62, chimney + 0.06, 0.96),
        box(coat.base, -0.41, 0.0, 0.41, 0.60),
        box(coat.dark, 0.27, 0.0, 0.41, 0.60, rim=False),
        box(coat.dark, -0.41, 0.53, 0.41, 0.60, rim=False),
        poly(coat.roof, (-0.50, 0.57), (-flat, 1.0), (flat, 1.0), (0.50, 0.57)),
        poly(ridge, (-0.5, 0.57), (-flat, 1.0), (0.06 - flat, 1.0), (-0.36, 0.57), rim=False),
        box(mix(WOOD, coat.line, 0.45), door - 0.09, 0.0, door + 0.09, 0.34, rim=False),
        oval(coat.band, door + 0.03, 0.15, door + 0.065, 0.185, rim=False),
    ]
    for x in (-0.27, 0.22) if door == 0.0 else (0.14,):
        wide = 0.085 if door == 0.0 else 0.13
        shapes.append(box(frame, x - wide - 0.025, 0.21, x + wide + 0.025, 0.45, rim=False))
        shapes.append(box(coat.glass, x - wide, 0.235, x + wide, 0.425, rim=False))
        shapes.append(box(frame, x - 0.012, 0.23, x + 0.012, 0.43, rim=False))
    return shapes


def _tree(coat: Coat, rng: random.Random) -> list[Shape]:
    trunk = mix(WOOD, INK, 0.35 if coat.glowing else 0.22)
    lean = rng.uniform(-0.03, 0.03)
    shapes = [
        poly(trunk, (-0.075, 0.0), (-0.05, 0.42), (0.05, 0.42), (0.075, 0.0)),
        poly(trunk, (-0.13, 0.0), (-0.05, 0.1), (0.05, 0.1), (0.13, 0.0)),
    ]
    if rng.random() < 0.4:
        shapes.append(oval(coat.dark, -0.33, 0.24, 0.33, 1.0))
        shapes.append(oval(coat.base, -0.33, 0.27, 0.27, 1.0, rim=False))
        for x, y, r in ((-0.12, 0.80, 0.08), (0.06, 0.66, 0.055), (-0.16, 0.55, 0.06)):
            shapes.append(oval(coat.light, x - r, y - r * 0.8, x + r, y + r * 0.8, rim=False))
        return shapes
    lobes = [(-0.2, 0.47, 0.19), (0.2, 0.47, 0.19), (0.0, 0.43, 0.2), (-0.15, 0.68, 0.2), (0.16, 0.69, 0.19)]
    lobes.append((lean, 0.79, 0.21))
    shapes += [oval(coat.dark, x - r, y - r, x + r, y + r) for x, y, r in lobes]
    shapes += [oval(coat.base, x - r, y - r + 0.05, x + r - 0.05, y + r, rim=False) for x, y, r in lobes]
    for x, y, r in ((-0.22, 0.53, 0.08), (lean - 0.06, 0.86, 0.085), (-0.02, 0.6, 0.07)):
        shapes.append(oval(coat.light, x - r, y - r * 0.8, x + r, y + r * 0.8, rim=False))
    return shapes


def _mountain(coat: Coat, rng: random.Random) -> list[Shape]:
    top = rng.uniform(-0.1, 0.06)
    side = rng.choice((-1.0, 1.0))
    low = rng.uniform(0.5, 0.62)
    snow = mix(WHITE, coat.base, 0.0 if not coat.glowing else 0.06)
    shaded = mix(snow, (150, 170, 215), 0.35)
    fold = top + rng.uniform(0.02, 0.12)

    def left(y: float) -> float:
        return top + (-0.66 - top) * (1 - y)

    def right(y: float) -> float:
        return top + (0.66 - top) * (1 - y)

    shoulder = side * 0.36
    return [
        poly(coat.dark, (shoulder - 0.34, 0.0), (shoulder, low), (shoulder + 0.34, 0.0)),
        poly(coat.base, (-0.66, 0.0), (top, 1.0), (0.66, 0.0)),
        poly(coat.dark, (top, 1.0), (fold, 0.62), (fold - 0.1, 0.4), (fold + 0.1, 0.0), (0.66, 0.0), rim=False),
        poly(coat.light, (-0.66, 0.0), (left(0.42), 0.42), (-0.25, 0.18), (-0.3, 0.0), rim=False),
        poly(snow, (top, 1.0), (left(0.79), 0.79), (top - 0.05, 0.84), (top + 0.01, 0.76), (fold, 0.84), rim=False),
        poly(shaded, (top, 1.0), (top + 0.02, 0.78), (top + 0.07, 0.84), (right(0.78), 0.78), rim=False),
    ]


def _boat(coat: Coat, rng: random.Random) -> list[Shape]:
    tall = rng.uniform(0.9, 0.98)
    keel = rng.uniform(0.3, 0.36)
    sail = ((0.17, 0.72), (0.30, 0.50), (0.42, 0.33))
    hull = ((0.06 + keel, 0.06), (keel, 0.0), (0.04 - keel, 0.0), (-0.05 - keel, 0.08))
    return [
        stroke(mix(WOOD, INK, 0.3), 0.035, (0.0, 0.2), (0.0, 1.0), rim=False),
        poly(coat.light, (-0.035, tall), (-0.035, 0.33), (-0.38, 0.33)),
        poly(coat.base, (0.035, 0.98), *sail, (0.035, 0.33)),
        poly(coat.dark, (0.10, 0.33), (0.10, 0.60), (0.12, 0.81), *sail, rim=False),
        poly(coat.base, (-0.48, 0.25), (0.48, 0.25), *hull),
        poly(coat.dark, (-keel - 0.07, 0.10), (keel + 0.08, 0.10), *hull[1:3], rim=False),
        box(coat.band, -0.46, 0.205, 0.46, 0.245, rim=False),
    ]


def _lighthouse(coat: Coat, rng: random.Random) -> list[Shape]:
    bands = (0.16, 0.44) if rng.random() < 0.5 else (0.22, 0.50)
    shapes: list[Shape] = []
    if coat.glowing:
        for way in (-1.0, 1.0):
            beam = ((0.0, 0.82), (way * 0.62, 0.95), (way * 0.62, 0.72))
            shapes.append(Shape(kind="polygon", points=beam, fill=(255, 240, 176, 104), rim=False))

    def edge(y: float) -> float:
        return 0.185 - 0.07 * y / 0.72

    def slab(fill: Colour, low: float, high: float, inner: float, *, rim: bool = True) -> Shape:
        under, over = edge(low), edge(high)
        return poly(fill, (inner * under, low), (inner * over, high), (over, high), (under, low), rim=rim)

    shapes.append(slab(coat.base, 0.0, 0.74, -1.0))
    shapes.append(slab(coat.dark, 0.0, 0.74, 0.4, rim=False))
    for low in bands:
        shapes.append(slab(coat.band, low, low + 0.085, -1.0, rim=False))
        shapes.append(slab(mix(coat.band, coat.dark, 0.28), low, low + 0.085, 0.4, rim=False))
    return [
        *shapes,
        box(coat.glass if coat.glowing else (255, 240, 190), -0.095, 0.74, 0.095, 0.88),
        stroke(coat.roof, 0.022, (0.0, 0.74), (0.0, 0.88), rim=False),
        box(coat.roof, -0.165, 0.72, 0.165, 0.765),
        poly(coat.roof, (-0.145, 0.87), (-0.08, 0.94), (0.0, 1.0), (0.08, 0.94), (0.145, 0.87)),
        poly(coat.base, (-0.145, 0.87), (-0.08, 0.94), (0.0, 1.0), (0.02, 0.87), rim=False),
        box(mix(WOOD, coat.line, 0.5), -0.055, 0.0, 0.055, 0.12, rim=False),
    ]


def _castle(coat: Coat, rng: random.Random) -> list[Shape]:
    tall = rng.uniform(0.60, 0.66)
    gate = mix(WOOD, INK, 0.5)
    shapes = [
        stroke(coat.line, 0.015, (0.0, 0.9), (0.0, 1.0), rim=False),
        poly(coat.base, (0.0, 1.0), (0.14, 0.965), (0.0, 0.93), rim=False),
        box(coat.base, -0.13, 0.4, 0.13, 0.74),
        box(coat.dark, 0.05, 0.4, 0.13, 0.74, rim=False),
        poly(coat.roof, (-0.17, 0.73), (0.0, 0.94), (0.17, 0.73)),
        oval(coat.glass, -0.04, 0.57, 0.04, 0.68, rim=False),
        box(coat.base, -0.3, 0.0, 0.3, 0.44),
        *(box(coat.base, x - 0.045, 0.43, x + 0.045, 0.51) for x in (-0.2, -0.067, 0.067, 0.2)),
        box(coat.dark, -0.3, 0.38, 0.3, 0.41, rim=False),
    ]
    for x in (-0.34, 0.34):
        shapes += [
            box(coat.base, x - 0.125, 0.0, x + 0.125, tall),
            box(coat.dark, x + 0.045, 0.0, x + 0.125, tall, rim=False),
            poly(coat.roof, (x - 0.165, tall), (x, tall + 0.25), (x + 0.165, tall)),
            poly(mix(coat.roof, coat.light, 0.2), (x - 0.165, tall), (x, tall + 0.25), (x - 0.05, tall), rim=False),
            oval(coat.glass, x - 0.04, tall - 0.24, x + 0.04, tall - 0.1, rim=False),
        ]
    shapes.append(oval(gate, -0.1, 0.12, 0.1, 0.32, rim=False))
    shapes.append(box(gate, -0.1, 0.0, 0.1, 0.22, rim=False))
    return shapes


def _cat(coat: Coat, rng: random.Random) -> list[Shape]:
    swing = rng.uniform(0.34, 0.42)
    tip = rng.uniform(0.40, 0.52)
    soft = mix(coat.base, (255, 190, 190), 0.55)
    eye = (250, 246, 200)
    tail = [(0.1, 0.06), (0.25, 0.05), (0.34, 0.12), (swing - 0.02, 0.24), (swing - 0.05, 0.34), (swing - 0.01, tip)]
    shapes = [stroke(coat.base, 0.095, *tail), stroke(coat.dark, 0.095, *tail[-2:], rim=False)]
    for way in (-1.0, 1.0):
        shapes.append(poly(coat.base, (way * 0.27, 0.72), (way * 0.235, 1.0), (way * 0.05, 0.86)))
        shapes.append(poly(soft, (way * 0.225, 0.80), (way * 0.21, 0.93), (way * 0.11, 0.86), rim=False))
    shapes += [
        oval(coat.base, -0.26, -0.02, 0.26, 0.62),
        poly(coat.dark, (0.12, 0.06), (0.17, 0.3), (0.12, 0.5), (0.2, 0.48), (0.25, 0.3), (0.2, 0.08), rim=False),
        oval(coat.light, -0.13, 0.08, 0.11, 0.46, rim=False),
        oval(coat.base, -0.2, -0.015, -0.02, 0.11),
        oval(coat.base, 0.02, -0.015, 0.2, 0.11),
        oval(coat.base, -0.29, 0.46, 0.29, 0.90),
        oval(coat.light, -0.13, 0.49, 0.13, 0.64, rim=False),
    ]
    for way in (-1.0, 1.0):
        x = way * 0.135
        shapes += [
            oval(eye, x - 0.062, 0.64, x + 0.062, 0.775, rim=False),
            oval(INK, x - 0.036, 0.645, x + 0.036, 0.765, rim=False),
            oval(WHITE, x - 0.03, 0.715, x + 0.0, 0.75, rim=False),
        ]
    shapes.append(poly((232, 120, 130), (-0.04, 0.625), (0.04, 0.625), (0.0, 0.575), rim=False))
    return shapes


def _balloon(coat: Coat, rng: random.Random) -> list[Shape]:
    wide = rng.uniform(0.20, 0.25)
    flame: Colour = (255, 214, 110) if coat.glowing else (255, 190, 90)

    def panel(fill: Colour, left: float, right: float, *, rim: bool = False) -> list[Shape]:
        neck_left, neck_right = left * 0.24, right * 0.24
        cone = ((left * 0.93, 0.52), (right * 0.93, 0.52), (neck_right, 0.22), (neck_left, 0.22))
        return [oval(fill, left, 0.30, right, 1.0, rim=rim), poly(fill, *cone, rim=rim)]

    return [
        stroke(coat.line, 0.014, (-0.085, 0.24), (-0.08, 0.12), rim=False),
        stroke(coat.line, 0.014, (0.085, 0.24), (0.08, 0.12), rim=False),
        oval(flame, -0.03, 0.15, 0.03, 0.25, rim=False),
        *panel(coat.dark, -0.37, 0.37, rim=True),
        *panel(coat.base, -0.37, 0.31),
        *panel(coat.light, -wide, wide * 0.85),
        *panel(coat.base, -wide * 0.45, wide * 0.4),
        box(mix(WOOD, (220, 170, 110), 0.25), -0.085, 0.0, 0.085, 0.12),
        box(mix(WOOD, INK, 0.3), -0.1, 0.10, 0.1, 0.13, rim=False),
    ]


BUILDERS: dict[str, Callable[[Coat, random.Random], list[Shape]]] = {
    "house": _house,
    "tree": _tree,
    "mountain": _mountain,
    "boat": _boat,
    "lighthouse": _lighthouse,
    "castle": _castle,
    "cat": _cat,
    "balloon": _balloon,
}


def _paint_shape(draw: ImageDraw.ImageDraw, shape: Shape, points: Sequence[Point], size: float, grow: float) -> None:
    """Paint one shape whose points are already in pixels, made `grow` pixels fatter and then in its line colour."""
    if shape.kind == "ellipse":
        (x0, y0), (x1, y1) = points
        spot = (min(x0, x1) - grow, min(y0, y1) - grow, max(x0, x1) + grow, max(y0, y1) + grow)
        draw.ellipse(spot, fill=shape.fill)
    elif shape.kind == "line":
        thick = max(2, round(shape.stroke * size + 2 * grow))
        draw.line(points, fill=shape.fill, width=thick, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=shape.fill)
    else:
        draw.polygon(points, fill=shape.fill)
        if grow:
            draw.line([*points, points[0], points[1]], fill=shape.fill, width=round(2 * grow), joint="curve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a thing stands and how high it is, in pixels of the drawing surface; mirrored, its light side is right."""

    foot: Point
    height: float
    mirror: bool


def paint_thing(draw: ImageDraw.ImageDraw, thing: str, coat: Coat, pose: Pose, rng: random.Random) -> None:
    """Paint a thing, its outline first; `rng` picks the small variations of its build."""
    x0, y0 = pose.foot
    wide, high = -pose.height if pose.mirror else pose.height, pose.height
    shapes = BUILDERS[thing](coat, rng)
    placed = [[(x0 + x * wide, y0 - y * high) for x, y in shape.points] for shape in shapes]
    rim = max(2.0, math.sqrt(high) * 0.2)
    for shape, points in zip(shapes, placed, strict=True):
        if shape.rim:
            _paint_shape(draw, replace(shape, fill=coat.line), points, high, rim)
    for shape, points in zip(shapes, placed, strict=True):
        _paint_shape(draw, shape, points, high, 0.0)
