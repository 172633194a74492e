"""A tour of everyday things, drawn from the running demo: `python -m docs.walk` makes docs/tour/ anew.

Each stop does something as a person would, in a real browser, looks whether it happened, and takes a picture. Prompts
and seeds are fixed, so that new pictures differ from the last ones only where Kiln does. Its page, docs/tour/README.md,
is written from the stops as well.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, expect

from docs.screenshot import ALL_SHOWN, few_colours
from tests.demo_page import Demo, DemoPage, find_chromium, open_browser

FOLDER = Path(__file__).with_name("tour")
WIDTH, HEIGHT = 1120, 800
PATIENCE = 90_000  # milliseconds for one picture
BYTES_MAX = 100 * 1024  # a picture
TOP = 60  # pixels, below the channel's name
BROKEN = "ink"  # a LoRA
UNDER_WAY = re.compile("Held|Waiting|Drawing|on its way|暂缓|排队|正在|马上就到")

MEMBER, MODERATOR, NEWCOMER = "You, member", "Ada, moderator", "Ben, newcomer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One thing that people do, and what is told of it."""

    name: str  # of its picture
    words: str
    go: Callable[[DemoPage], None]  # ends where the picture is to be taken


def main() -> int:
    """Make the pictures and their page; return the exit code."""
    chromium = find_chromium()
    if chromium is None:
        sys.stderr.write("docs/walk.py needs chromium (apt: chromium)\n")
        return 1
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        break_a_lora(Path(folder))
        demo = Demo(Path(folder))
        try:
            walk(chromium, demo.url, STOPS, FOLDER)
        finally:
            demo.stop()
    (FOLDER / "README.md").write_text(page_of(STOPS), "utf-8")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    sys.stdout.write(f"{FOLDER}: {len(STOPS)} pictures, {size:,} bytes\n")
    return 0


def break_a_lora(folder: Path) -> None:
    """Leave a file that is offered and cannot be drawn with: how a picture fails, without a model that is broken."""
    (folder / "loras").mkdir()
    (folder / "loras" / f"{BROKEN}.safetensors").write_bytes(b"half a download")


def walk(chromium: str, url: str, stops: Sequence[Stop], folder: Path) -> None:
    """Go through `stops` on the demo at `url`, and leave a picture of each in `folder`."""
    with open_browser(chromium, width=WIDTH, height=HEIGHT) as browser:
        page = DemoPage(browser)
        page.open(url)
        expect(page.cards(UNDER_WAY)).to_have_count(0, timeout=PATIENCE)  # the company's picture
        for stop in stops:
            stop.go(page)
            browser.mouse.move(5, 5)
            browser.wait_for_function(ALL_SHOWN)
            shot = few_colours(browser.screenshot(), bytes_max=BYTES_MAX)
            (folder / f"{stop.name}.png").write_bytes(shot)
        assert page.complaints == [], page.complaints


def page_of(stops: Sequence[Stop]) -> str:
    """The page that shows the pictures, as Markdown."""
    head = [
        "# A tour",
        "",
        "Everyday things in `make demo`, where the real bot draws with the small model that ships with Kiln, on a page",
        "that looks like Discord. `python -m docs.walk` does all of this in a browser and takes the pictures.",
    ]
    for number, stop in enumerate(stops, 1):
        head += ["", f"## {number}. {stop.words}", "", f"![{stop.words}]({stop.name}.png)"]
    return "\n".join(head) + "\n"


def picture_message(page: DemoPage, words: str) -> Locator:
    """The newest message with a picture of `words`."""
    picture = page.page.locator(f'img.attachment-image[alt*="{words}"]')
    message = page.page.locator("article.channel-message", has=picture).last
    expect(message).to_be_visible(timeout=PATIENCE)
    return message


def until_free(page: DemoPage) -> None:
    """Wait until nothing waits or is drawn, and every picture is there: one that comes later scrolls the page on."""
    expect(page.cards(UNDER_WAY)).to_have_count(0, timeout=PATIENCE)
    page.page.wait_for_function(ALL_SHOWN)


def scroll_to(page: DemoPage, card: Locator) -> None:
    """Turn the wheel until the card stands on top, as a person does: the page then stays there."""
    place = card.bounding_box()
    assert place is not None
    page.page.locator("#channel-timeline").hover()
    page.page.mouse.wheel(0, place["y"] - TOP)
    expect(card).to_be_in_viewport(ratio=0.9)
    page.page.wait_for_timeout(700)  # the page notices that somebody reads there
    expect(card).to_be_in_viewport(ratio=0.9)


def ask(page: DemoPage) -> None:
    page.imagine("a red house at night seed:11")
    expect(page.cards("a red house at night")).to_be_visible()


def watch(page: DemoPage) -> None:
    card = page.cards("a red house at night").first
    expect(card).to_contain_text(re.compile(r"step ([89]|1\d) of"), timeout=PATIENCE)
    expect(card.locator(".component-container img").first).to_be_visible()


def receive(page: DemoPage) -> None:
    expect(picture_message(page, "a red house at night")).to_contain_text("Re-roll")
    expect(page.cards("a red house at night").first).to_contain_text("Done")


def ask_in_chinese(page: DemoPage) -> None:
    page.imagine("日落时的白色城堡 seed:1")
    expect(picture_message(page, "日落时的白色城堡")).to_contain_text("Re-roll")
    until_free(page)


def share(page: DemoPage) -> None:
    """A newcomer's only picture goes before those that the member has waiting."""
    for words in ("a blue boat at noon", "a white lighthouse by day", "a yellow balloon"):
        page.imagine(f"{words} seed:5")
    page.view_as(NEWCOMER)
    page.imagine("a purple house in the snow seed:3")
    expect(page.cards("a purple house")).to_be_visible()
    page.ask("queue")
    expect(page.private_replies()).to_contain_text("a purple house")


def cancel(page: DemoPage) -> None:
    page.view_as(MEMBER)
    card = page.cards("a yellow balloon")
    page.press(card, "Cancel")
    expect(card).to_contain_text("Cancelled")
    until_free(page)
    scroll_to(page, card)


def reroll(page: DemoPage) -> None:
    until_free(page)
    page.press(picture_message(page, "a white lighthouse by day"), "Re-roll")
    expect(page.pictures("a white lighthouse by day")).to_have_count(2, timeout=PATIENCE)
    until_free(page)
    page.pictures("a white lighthouse by day").last.scroll_into_view_if_needed()


def edit(page: DemoPage) -> None:
    page.press(picture_message(page, "a white lighthouse by day"), "Edit")
    dialog = page.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.locator("textarea, input").first.fill("a white castle at night")


def reproduce(page: DemoPage) -> None:
    page.page.get_by_role("dialog").get_by_role("button", name="Submit").click()
    message = picture_message(page, "a white castle at night")
    until_free(page)
    page.press(message, "Reproduce")
    expect(page.pictures("a white castle at night")).to_have_count(2, timeout=PATIENCE)
    until_free(page)


def style(page: DemoPage) -> None:
    page.imagine("a red house seed:11", choose={"style": "Night:"}, count="2")
    expect(page.pictures("a red house at night")).to_have_count(3, timeout=PATIENCE)  # one is of the first stop
    until_free(page)
    scroll_to(page, page.cards("a red house").last)


def look_back(page: DemoPage) -> None:
    page.ask("history")
    expect(page.private_replies().last).to_contain_text("a red house at night")


def count(page: DemoPage) -> None:
    page.ask("stats")
    expect(page.private_replies().last).to_contain_text("GPU")


def speak_chinese(page: DemoPage) -> None:
    page.ask("settings", language="中文")
    expect(page.private_replies().last).to_contain_text("中文")
    page.imagine("a red boat at night seed:2")
    expect(picture_message(page, "a red boat at night")).to_be_visible()
    until_free(page)
    for words in ("a white castle at sunset", "a green tree in the snow"):  # one is drawn, one waits
        page.imagine(f"{words} seed:8")
    expect(page.cards("a green tree in the snow")).to_contain_text("排队中")


def keep(page: DemoPage) -> None:
    until_free(page)
    page.view_as(MODERATOR)
    page.enter("keepers")
    page.ask("server")
    expect(page.private_replies().last).to_contain_text("Kiln in")


def hold(page: DemoPage) -> None:
    """A moderator pauses the server; what is asked for then is held, and its card says until when."""
    page.view_as(MODERATOR)
    page.enter("pictures")
    page.ask("mod pause")
    page.view_as(NEWCOMER)
    page.imagine("a blue boat in the snow seed:4")
    card = page.cards("a blue boat in the snow")
    expect(card).to_contain_text("Held")
    card.scroll_into_view_if_needed()


def fail(page: DemoPage) -> None:
    page.view_as(MODERATOR)
    page.ask("mod resume")
    until_free(page)  # what was held is drawn now
    page.view_as(NEWCOMER)
    page.imagine("a yellow house at dawn seed:6", lora=BROKEN)
    card = page.cards("a yellow house at dawn")
    expect(card).to_contain_text("Not drawn", timeout=PATIENCE)
    expect(card.get_by_role("button", name="Try again")).to_be_enabled()


STOPS = (
    Stop(name="01-ask", go=ask, words="`/imagine` answers at once, with the seed and the job's number"),
    Stop(name="02-watch", go=watch, words="The card shows the picture while it is being drawn"),
    Stop(
        name="03-receive",
        go=receive,
        words="The picture comes as a message of its own, with buttons that work for ever",
    ),
    Stop(name="04-chinese-words", go=ask_in_chinese, words="Chinese words are understood as well"),
    Stop(
        name="05-share",
        go=share,
        words="Two people share fairly: Ben asked last, and is next",
    ),
    Stop(name="06-cancel", go=cancel, words="What is not wanted any more is cancelled, and costs nothing"),
    Stop(
        name="07-reroll",
        go=reroll,
        words="Re-roll draws the same words with another seed, and says where the picture came from",
    ),
    Stop(name="08-edit", go=edit, words="Edit opens all that a picture was made of"),
    Stop(name="09-reproduce", go=reproduce, words="Reproduce draws a picture again, and compares every pixel"),
    Stop(name="10-style", go=style, words="A style and a count: one card, each picture a job of the fair order"),
    Stop(name="11-history", go=look_back, words="`/history` has all of them, to re-roll or to post again"),
    Stop(name="12-stats", go=count, words="`/stats` tells who drew how much, and what the GPU does"),
    Stop(name="13-chinese", go=speak_chinese, words="`/settings` knows my language, and cards and pictures speak it"),
    Stop(name="14-server", go=keep, words="`/server` is a server's settings in one panel, for its keepers alone"),
    Stop(name="15-held", go=hold, words="While a server is paused, new pictures are held, and their cards say so"),
    Stop(name="16-failed", go=fail, words="What cannot be drawn says why, and *Try again* costs nothing"),
)


if __name__ == "__main__":
    sys.exit(main())
