"""`kiln demo` in a real browser: from picking /imagine in the list to the picture of the real model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect

from gen.weights import DEMO_WEIGHTS, read_profile
from tests.demo_page import Demo, DemoPage, find_chromium, open_browser

CHROMIUM = find_chromium()
UNDER_WAY = re.compile("Waiting|Drawing")
PICTURE_SECONDS = 90.0  # at most, for one picture on two busy cores
AFTERMATH_SECONDS = 3.0  # long enough for an Enter that sends by itself again

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


@contextlib.contextmanager
def unanswered(page: Page, send: Callable[[], None]) -> Iterator[None]:
    """The bot does not answer what the page sends until the end of the block."""
    held: list[Route] = []
    page.wait_for_function("() => simcordPreview.pendingAction === null")  # or it would wait for the answer of before
    page.route("**/api/action", lambda route: route.continue_() if held else held.append(route))
    try:
        send()
        for _ in range(2_000):  # the handler above runs only while Playwright is asked something
            if held:
                break
            page.wait_for_timeout(10)
        assert held, page.evaluate("() => [simcordPreview.pendingAction, document.activeElement.outerHTML]")
        yield
    finally:
        for route in held:
            route.continue_()
        page.unroute("**/api/action")


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


def test_one_enter_on_a_refused_command_is_one_refusal(newcomer: DemoPage) -> None:
    newcomer.page.locator("#channel-composer-input").click()
    newcomer.page.keyboard.insert_text("/imagine 🦊🦊")
    newcomer.page.keyboard.press("Enter")
    refusals = newcomer.private_replies().filter(has_text="letter")
    expect(refusals.first).to_be_visible()

    newcomer.page.wait_for_timeout(AFTERMATH_SECONDS * 1000)

    expect(refusals).to_have_count(1)
    expect(newcomer.page.locator("#channel-composer-input")).to_have_value("")  # as on Discord, the command has gone
    expect(newcomer.page.locator(".command-row")).to_have_count(0)


def test_one_enter_is_one_job_while_the_page_is_free_and_while_it_is_busy(newcomer: DemoPage) -> None:
    newcomer.imagine("a brown barn", steps="40")  # is being drawn all the time
    newcomer.page.locator("#channel-composer-input").click()
    newcomer.page.keyboard.insert_text("/imagine a grey goat")
    refresh = newcomer.page.locator("#refresh")
    with unanswered(newcomer.page, lambda: refresh.evaluate("button => button.click()")):
        newcomer.page.keyboard.press("Enter")
        newcomer.page.wait_for_timeout(AFTERMATH_SECONDS * 1000)
        expect(newcomer.cards("a grey goat")).to_have_count(0)
    expect(newcomer.cards("a grey goat")).to_have_count(1)

    newcomer.page.wait_for_timeout(AFTERMATH_SECONDS * 1000)

    for words in ("a brown barn", "a grey goat"):
        expect(newcomer.cards(words).filter(has_text=UNDER_WAY)).to_have_count(1)
    for words in ("a brown barn", "a grey goat"):
        expect(newcomer.pictures(words)).to_have_count(1, timeout=PICTURE_SECONDS * 1000)


def test_what_is_typed_while_a_command_is_sent_is_the_next_command(newcomer: DemoPage) -> None:
    box, keys = newcomer.page.locator("#channel-composer-input"), newcomer.page.keyboard
    box.click()
    keys.insert_text("/imagine a black bridge")

    with unanswered(newcomer.page, lambda: keys.press("Enter")):
        keys.type("/imagine a silver swan")
        keys.press("Enter")
        keys.type("half a thou")

    expect(newcomer.cards("a black bridge")).to_have_count(1)
    expect(newcomer.cards("a silver swan")).to_have_count(1)
    expect(box).to_have_value("half a thou")
    box.fill("")


def test_three_people_see_what_is_theirs(newcomer: DemoPage) -> None:
    newcomer.ask("queue")
    expect(newcomer.private_replies()).not_to_have_count(0)
    newcomer.view_as("Ada, moderator")
    expect(newcomer.private_replies()).to_have_count(0)  # what Kiln said to You alone
    newcomer.enter("keepers")
    expect(newcomer.cards(re.compile(""))).to_have_count(0)
    newcomer.view_as("Ben, newcomer")
    expect(newcomer.page.locator("#channel-name")).to_have_text("pictures")
    expect(newcomer.page.locator(".kiln-channels button:visible")).to_have_count(1)
    newcomer.view_as("You, member")


def test_relative_times_count_on_by_themselves(newcomer: DemoPage) -> None:
    """A waiting card is edited only when its place changes; between, the page itself keeps "in 9 seconds" true."""
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
