"""The tour of docs/walk.py: its first stops in a real browser; its pictures and page as they are in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from docs import walk
from tests.demo_page import Demo, find_chromium

CHROMIUM = find_chromium()
ALL_BYTES_MAX = 1_500_000


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt: chromium)")
def test_the_first_stops_of_the_tour_can_be_walked(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    first = walk.STOPS[:3]  # asked for, drawn, received
    demo = Demo(tmp_path)
    try:
        walk.walk(CHROMIUM, demo.url, first, tmp_path)
    finally:
        demo.stop()
    for stop in first:
        with Image.open(tmp_path / f"{stop.name}.png") as picture:
            assert picture.size == (walk.WIDTH, walk.HEIGHT)


def test_the_tours_page_tells_of_its_stops_and_shows_their_pictures() -> None:
    assert (walk.FOLDER / "README.md").read_text("utf-8") == walk.page_of(walk.STOPS)
    assert {path.stem for path in walk.FOLDER.glob("*.png")} == {stop.name for stop in walk.STOPS}
    assert sum(path.stat().st_size for path in walk.FOLDER.iterdir()) <= ALL_BYTES_MAX
