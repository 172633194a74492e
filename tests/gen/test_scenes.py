"""The demo's scenes: which exist, how they split, and that drawing them is repeatable."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gen.demo.scenes import (
    ATTRIBUTES,
    InvalidScene,
    Scene,
    draw_scene,
    is_held_out,
    lights_in,
    sample_scene,
    skies_at,
)

PLAIN = Scene(
    time="noon",
    sky="clear",
    ground="meadow",
    light="sun",
    thing="house",
    colour="red",
    number=1,
    size="large",
    place="middle",
)
WORDS = {name: [str(value) for value in values] for name, values in ATTRIBUTES.items()}
SIZES = ((128, 128), (256, 256), (384, 192), (192, 384), (144, 240))


def changed(scene: Scene, changes: Mapping[str, Any]) -> Scene:
    return replace(scene, **changes)


def pixels(scene: Scene, *, seed: int = 0, width: int = 128, height: int = 128) -> NDArray[np.int_]:
    return np.asarray(draw_scene(scene, width=width, height=height, seed=seed)).astype(int)


def thing_mask(scene: Scene, seed: int) -> NDArray[np.bool_]:
    """Where the thing is: the pixels of a clear noon that change with its colour."""
    difference = np.abs(pixels(scene, seed=seed) - pixels(replace(scene, colour="blue"), seed=seed)).sum(axis=2)
    return np.asarray(difference > 60)


def scene_with(name: str, value: str | int) -> Scene:
    rng = random.Random(f"{name}={value}")
    return next(scene for scene in (sample_scene(rng) for _ in range(10_000)) if getattr(scene, name) == value)


def test_same_seed_draws_the_same_bytes() -> None:
    scene = sample_scene(random.Random(3))
    first, second = (draw_scene(scene, width=192, height=256, seed=11) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_another_seed_draws_another_picture() -> None:
    assert np.abs(pixels(PLAIN, seed=1) - pixels(PLAIN, seed=2)).mean() > 2


def test_a_known_scene_keeps_its_look() -> None:
    top, bottom = pixels(PLAIN)[2, 64], pixels(PLAIN)[125, 2]
    assert top[2] > top[0]  # a blue sky
    assert bottom[1] > bottom[0] > bottom[2]  # green grass


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_value_is_drawn_at_every_size(width: int, height: int) -> None:
    for name, values in ATTRIBUTES.items():
        for value in values:
            picture = draw_scene(scene_with(name, value), width=width, height=height, seed=5)
            assert isinstance(picture, Image.Image)
            assert (picture.mode, picture.size) == ("RGB", (width, height))


def test_every_allowed_weather_is_drawn() -> None:
    for time in ("dawn", "noon", "sunset", "night"):
        for sky in skies_at(time):
            for light in lights_in(time, sky):
                assert pixels(replace(PLAIN, time=time, sky=sky, light=light)).std() > 5


def test_every_value_changes_the_picture() -> None:
    night = replace(PLAIN, time="night", sky="cloudy", light="moon")
    for name, values in ATTRIBUTES.items():
        fitting = [value for value in values if (name, value) != ("light", "sun")]
        pictures = [pixels(changed(night, {name: value})).tobytes() for value in fitting if name != "time"]
        assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("thing", WORDS["thing"])
@pytest.mark.parametrize("number", ATTRIBUTES["number"])
def test_large_things_are_clearly_larger_than_small_ones(thing: str, number: int) -> None:
    scene = replace(PLAIN, thing=thing, number=number)
    small = max(thing_mask(replace(scene, size="small"), seed).sum() for seed in range(6))
    large = min(thing_mask(replace(scene, size="large"), seed).sum() for seed in range(6))
    assert large > 1.7 * small


@pytest.mark.parametrize("thing", WORDS["thing"])
@pytest.mark.parametrize("number", ATTRIBUTES["number"])
def test_things_stand_where_the_scene_says(thing: str, number: int) -> None:
    for size in WORDS["size"]:
        centres = {}
        for place in WORDS["place"]:
            scene = replace(PLAIN, thing=thing, number=number, size=size, place=place)
            masks = [thing_mask(scene, seed) for seed in range(6)]
            centres[place] = [np.nonzero(mask)[1].mean() / mask.shape[1] for mask in masks]
        assert max(centres["left"]) + 0.03 < min(centres["middle"])
        assert max(centres["middle"]) + 0.03 < min(centres["right"])


@pytest.mark.parametrize("time", WORDS["time"])
def test_the_colour_dominates_the_thing_at_every_time(time: str) -> None:
    light = "moon" if time == "night" else "sun"
    bodies = {}
    for colour in WORDS["colour"]:
        scene = replace(PLAIN, time=time, light=light, colour=colour, thing="balloon")
        other = replace(scene, colour="white" if colour != "white" else "red")
        mask = np.abs(pixels(scene) - pixels(other)).sum(axis=2) > 60
        bodies[colour] = np.median(pixels(scene)[mask], axis=0)
    for first in bodies:
        for second in bodies:
            assert first == second or np.abs(bodies[first] - bodies[second]).sum() > 60


def test_things_stay_inside_the_picture() -> None:
    for thing in WORDS["thing"]:
        for place in ("left", "right"):
            mask = thing_mask(replace(PLAIN, thing=thing, number=3, place=place), 4)
            assert not mask[:, 0].any()
            assert not mask[:, -1].any()


def test_held_out_scenes_are_an_eighth_of_the_combinations() -> None:
    held = [
        is_held_out(
            replace(PLAIN, thing=thing, colour=colour, ground=ground, time=time, light="sun" if day else "moon")
        )
        for thing in WORDS["thing"]
        for colour in WORDS["colour"]
        for ground in WORDS["ground"]
        for time, day in (("dawn", True), ("noon", True), ("sunset", True), ("night", False))
    ]
    assert 0.08 < sum(held) / len(held) < 0.18


def test_the_split_is_disjoint() -> None:
    rng = random.Random(1)

    def keys(*, held_out: bool) -> set[tuple[str, ...]]:
        scenes = [sample_scene(rng, held_out=held_out) for _ in range(400)]
        return {(scene.thing, scene.colour, scene.ground, scene.time) for scene in scenes}

    assert not keys(held_out=True) & keys(held_out=False)


def test_the_split_ignores_everything_else() -> None:
    for seed in range(20):
        scene = sample_scene(random.Random(seed), held_out=True)
        assert is_held_out(replace(scene, number=2, size="small", place="left"))


def test_sampling_is_repeatable_and_reaches_every_value() -> None:
    scenes = [sample_scene(random.Random(seed)) for seed in range(500)]
    assert scenes == [sample_scene(random.Random(seed)) for seed in range(500)]
    for name, values in ATTRIBUTES.items():
        assert {getattr(scene, name) for scene in scenes} == set(values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "pink"},
        {"number": 4},
        {"number": True},
        {"number": "1"},
        {"thing": ""},
        {"sky": "starry"},
        {"light": "moon"},
        {"light": "none"},
        {"time": "night"},
    ],
)
def test_bad_scenes_are_refused(wrong: dict[str, str | int]) -> None:
    with pytest.raises(InvalidScene):
        changed(PLAIN, wrong)


@pytest.mark.parametrize(("width", "height"), [(120, 128), (400, 256), (200, 256), (384, 176), (0, 0)])
def test_bad_sizes_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="side"):
        draw_scene(PLAIN, width=width, height=height, seed=0)
