"""`kiln demo` in a real browser: from picking /imagine in the list to the picture of the real model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gen.weights import DEMO_WEIGHTS, read_profile
from tests.demo_page import Demo, DemoPage, find_chromium, open_browser

CHROMIUM = find_chromium()
PICTURE_SECONDS = 40.0  # for one picture on two busy cores

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt: chromium)"),
]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def newcomer(demo: Demo) -> Iterator[DemoPage]:
    assert CHROMIUM is not None
    with open_browser(CHROMIUM) as page:
        newcomer = DemoPage(page)
        newcomer.open(demo.url)
        yield newcomer


def test_a_newcomer_gets_pictures_and_sees_the_queue(demo: Demo, newcomer: DemoPage) -> None:
    profile = read_profile(DEMO_WEIGHTS)

    newcomer.imagine("a red house at night")
    card = newcomer.cards("a red house at night").first
    expect(card).to_be_visible(timeout=3_000)
    expect(card).to_contain_text(
        re.compile(rf"Drawing ▰*▱+ step \d+ of {profile.steps}"), timeout=PICTURE_SECONDS * 1000
    )
    assert abs(newcomer.written(card) - datetime.now(UTC)) < timedelta(minutes=2)  # the page's clock is the real one
    expect(newcomer.pictures("a red house at night")).to_be_visible(timeout=PICTURE_SECONDS * 1000)
    assert newcomer.size("a red house at night") == [profile.width, profile.height]
    expect(card).to_contain_text("Done", timeout=10_000)

    newcomer.imagine("a blue boat at noon", steps="50")  # long enough for the others to wait
    newcomer.imagine("a green tree in the rain")
    newcomer.imagine("a white castle at night")
    expect(newcomer.cards(re.compile("Waiting"))).to_have_count(2)
    newcomer.ask("queue")
    expect(newcomer.private_replies()).to_contain_text("Your pictures")
    before = newcomer.times()
    newcomer.page.wait_for_timeout(1_200)
    assert newcomer.times() != before  # "in 9 seconds" counts down with nothing else happening

    for words in ("a blue boat at noon", "a green tree in the rain", "a white castle at night"):
        expect(newcomer.pictures(words)).to_be_visible(timeout=PICTURE_SECONDS * 1000)
    expect(newcomer.pictures("a red house at night")).to_be_visible()
    expect(newcomer.cards(re.compile("Waiting|Drawing"))).to_have_count(0, timeout=10_000)

    assert newcomer.complaints == []
    assert demo.stop() == 0
    assert "Traceback" not in demo.log.read_text()


def test_a_typed_line_is_the_command_and_cancel_offers_my_jobs(newcomer: DemoPage) -> None:
    box = newcomer.page.locator("#channel-composer-input")
    box.click()
    newcomer.page.keyboard.insert_text("/imagine a green boat seed:7")  # as from the clipboard
    newcomer.page.keyboard.press("Enter")
    expect(newcomer.cards("a green boat")).to_contain_text("7")
    newcomer.imagine("a yellow boat")

    newcomer.choose("cancel", "a yellow boat")

    expect(newcomer.cards("a yellow boat").first).to_contain_text("Cancelled", timeout=10_000)
    assert newcomer.complaints == []
