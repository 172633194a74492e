"""`kiln demo` in a real browser: from picking /imagine in the list to the picture of the real model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from gen.weights import DEMO_WEIGHTS, read_profile
from tests.demo_page import Demo, DemoPage, find_chromium, open_browser

CHROMIUM = find_chromium()
UNDER_WAY = re.compile("Waiting|Drawing")
PICTURE_SECONDS = 90.0  # at most, for one picture on two busy cores

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt: chromium)"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all tests: starting the model and a browser takes longer than they do."""
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def page(demo: Demo) -> Iterator[Page]:
    assert CHROMIUM is not None
    with open_browser(CHROMIUM) as page:
        yield page


@pytest.fixture
def newcomer(demo: Demo, page: Page) -> Iterator[DemoPage]:
    """Somebody who opens the page and finds no job of others waiting."""
    newcomer = DemoPage(page)
    newcomer.open(demo.url)
    expect(newcomer.cards(UNDER_WAY)).to_have_count(0, timeout=PICTURE_SECONDS * 1000)
    yield newcomer
    assert newcomer.complaints == []


def test_a_newcomer_gets_pictures_and_sees_the_queue(newcomer: DemoPage) -> None:
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

    newcomer.imagine("a blue boat at noon", steps="30")  # long enough for the others to wait
    newcomer.imagine("a green tree in the rain")
    newcomer.imagine("a white castle at night")
    expect(newcomer.cards("Waiting")).to_have_count(2)
    expect(newcomer.cards("a white castle at night")).to_be_in_viewport(ratio=0.99)  # the newest stays in sight
    newcomer.ask("queue")
    expect(newcomer.private_replies()).to_contain_text("Your pictures")

    for words in ("a blue boat at noon", "a green tree in the rain", "a white castle at night"):
        expect(newcomer.pictures(words)).to_be_visible(timeout=PICTURE_SECONDS * 1000)
    expect(newcomer.pictures("a red house at night")).to_be_visible()
    expect(newcomer.cards(UNDER_WAY)).to_have_count(0, timeout=10_000)


def test_a_typed_line_is_the_command_and_cancel_offers_my_jobs(newcomer: DemoPage) -> None:
    box = newcomer.page.locator("#channel-composer-input")
    box.click()
    newcomer.page.keyboard.insert_text("/imagine a green boat seed:7")  # as from the clipboard
    newcomer.page.keyboard.press("Enter")
    expect(newcomer.cards("a green boat")).to_contain_text("7")
    newcomer.imagine("a yellow boat")

    newcomer.choose("cancel", "a yellow boat")

    expect(newcomer.cards("a yellow boat").first).to_contain_text("Cancelled", timeout=10_000)


def test_relative_times_count_on_by_themselves(newcomer: DemoPage) -> None:
    """A waiting card is not edited, so nothing but the page itself can keep "in 9 seconds" true."""
    newcomer.page.evaluate(
        """() => {
            const time = document.createElement("time");
            time.className = "discord-timestamp";
            time.dateTime = new Date(Date.now() + 30_500).toISOString();
            time.textContent = "in 5 minutes";
            document.body.append(time);
        }"""
    )
    time = newcomer.page.locator("time.discord-timestamp").last
    expect(time).to_have_text(re.compile(r"in (29|28|27|26) seconds"))


def test_ctrl_c_ends_the_demo_cleanly(demo: Demo, newcomer: DemoPage) -> None:
    newcomer.imagine("a purple house", steps="50")  # is being drawn when the end comes

    assert demo.stop() == 0

    assert demo.log.read_text().count("Traceback") == 0
    newcomer.complaints.clear()  # the page has lost its server
