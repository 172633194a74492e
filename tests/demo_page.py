"""Drive `kiln demo` as a newcomer would: start the command, open its page in Chromium, use /imagine.

Used by the browser test and by docs/screenshot.py. Knows the markup of simcord's Preview (pinned) and no Kiln code.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Locator, Page, TimeoutError, expect, sync_playwright

START_SECONDS = 150.0  # to load the model on two busy cores
STOP_SECONDS = 10.0
TAKEN_SECONDS = 75.0  # at most, for the bot to take a command; the page tries for 65
FLAGS = (
    "--no-sandbox",  # root, as in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=20_000)  # for what a page shows next; on a busy machine its own five seconds are short
_URL = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


def find_chromium() -> str | None:
    """The browser on this machine, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Demo:
    """A running `kiln demo`. Its log is in `folder / "demo.log"`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Start the demo on any free port; raise AssertionError with its log if no URL comes.

        Its LoRAs are those of `folder / "loras"`, none unless there are some.
        """
        self.log = folder / "demo.log"
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("KILN_", "DISCORD_"))}
        plain["KILN_LORAS"] = str(folder / "loras")
        plain["KILN_BURST"] = "100"  # a browser asks faster than a person: whether a cancelled job counts is a race
        command = [sys.executable, "-m", "bot", "demo", "--no-browser", "--port", "0", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=plain, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.url = self._read_url()

    def _read_url(self) -> str:
        assert self.process.stdout is not None
        guard = threading.Timer(START_SECONDS, self.process.kill)
        guard.start()
        try:
            for line in self.process.stdout:
                if found := _URL.search(line):
                    return found[0]
        finally:
            guard.cancel()
        self.stop()
        raise AssertionError(f"the demo printed no URL; its log:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Press Ctrl-C; return the exit code. Raise TimeoutExpired if it does not end in seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


class DemoPage:
    """The demo's page in a browser, in the words of somebody who uses it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []  # errors in the browser's console
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, said: ConsoleMessage) -> None:
        """simcord's Discord forgets a preview as soon as the next one is there; Discord keeps it for a while."""
        if said.type == "error" and "/api/assets/" not in said.location.get("url", ""):
            self.complaints.append(said.text)

    def open(self, url: str) -> None:
        """Load the page afresh and wait until it can be used."""
        self.page.goto("about:blank")  # the same URL again would keep the page as it is, half a command and all
        self.page.goto(url)
        self._box().wait_for()

    def imagine(self, prompt: str, *, choose: Mapping[str, str] | None = None, **options: str) -> None:
        """Pick /imagine, type the prompt, choose and type options, send; return once the command was taken."""
        self._pick("imagine")
        self.page.keyboard.type(prompt)
        self._choose(choose or {})
        for name, value in options.items():
            self._add(name)
            self.page.keyboard.type(value)
        self._send()

    def choose(self, command: str, choice: str) -> None:
        """Pick a command, then one of the choices that it offers for its first option, and send."""
        self._pick(command)
        self.page.get_by_role("option", name=choice).click()
        expect(self.page.locator(".command-chip")).to_be_focused()
        self._send()

    def ask(self, command: str, **choices: str) -> None:
        """Send a command that needs no words; options are chosen from what they offer."""
        self._pick(command)
        self._choose(choices)
        self._send()

    def view_as(self, person: str) -> None:
        """Become another person, by the page's own list."""
        picker = self.page.get_by_label("Viewing as")
        picker.select_option(label=person)
        self._wait_for_the_page()
        expect(picker.locator("option:checked")).to_have_text(person)

    def enter(self, channel: str) -> None:
        """Go to a channel by the sidebar."""
        self.page.locator(".kiln-channels").get_by_text(f"# {channel}").click()
        expect(self.page.locator("#channel-name")).to_have_text(channel)
        self._wait_for_the_page()

    def press(self, message: Locator, button: str) -> None:
        """Press a message's button, by its words."""
        self._wait_for_the_page()
        message.get_by_role("button", name=button).click()
        self._wait_for_the_page()

    def _wait_for_the_page(self) -> None:
        """Until the page is free to act: it drops what comes while it talks to the bot."""
        self.page.wait_for_function("() => simcordPreview.ready && !simcordPreview.pendingAction")

    def _pick(self, command: str) -> None:
        self._wait_for_the_page()  # while it is busy, a command's fields take no letters
        self._box().click()
        self._box().press_sequentially(f"/{command}")
        self.page.get_by_role("option", name=f"/{command}").first.click()
        expect(self.page.locator(".command-row :focus")).to_be_visible()  # where what is typed next goes

    def _add(self, option: str) -> None:
        """Add an option to the command that is being written."""
        self.page.locator(".command-ghost").click()
        self.page.get_by_role("option", name=re.compile(rf"^{option}\b")).click()
        expect(self.page.locator(f'.command-row [data-option="{option}"]:focus')).to_be_visible()

    def _choose(self, choices: Mapping[str, str]) -> None:
        """Add options, and take what each offers by these words."""
        for name, choice in choices.items():
            self._add(name)
            self.page.get_by_role("option", name=choice).first.click()
            expect(self.page.locator(".command-chip")).to_be_focused()

    def _send(self) -> None:
        self.page.keyboard.press("Enter")
        with contextlib.suppress(TimeoutError):
            self._box().wait_for(timeout=TAKEN_SECONDS * 1000)  # meanwhile a form stands in the box's place
            return
        state = "[simcordPreview, document.activeElement.outerHTML, document.querySelector('.command-row')?.outerHTML]"
        raise AssertionError(f"the command was not taken: {self.page.evaluate(state)}")

    def cards(self, text: str | re.Pattern[str]) -> Locator:
        """The cards that say `text`."""
        return self.page.locator("article.channel-message", has=self.page.locator(".component-container")).filter(
            has_text=text
        )

    def pictures(self, alt: str = "AI-generated") -> Locator:
        """The pictures whose description has `alt`."""
        return self.page.locator(f'article.channel-message img.attachment-image[alt*="{alt}"]')

    def size(self, alt: str) -> list[int]:
        """Natural width and height of a picture, in pixels, once it has arrived."""
        found = self.page.wait_for_function(
            """alt => {
                const image = document.querySelector(`img.attachment-image[alt*="${alt}"]`);
                return image?.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null;
            }""",
            arg=alt,
        )
        return [int(side) for side in found.json_value()]

    def private_replies(self) -> Locator:
        """What only this person sees."""
        return self.page.locator("article.channel-message", has=self.page.locator(".message-ephemeral-note"))

    def written(self, message: Locator) -> datetime:
        """When a message was sent, by the page."""
        return datetime.fromisoformat(message.locator("time.message-time").get_attribute("datetime") or "")

    def _box(self) -> Locator:
        return self.page.locator("#channel-composer-input")


@contextlib.contextmanager
def open_browser(chromium: str, *, width: int = 1280, height: int = 900, scale: float = 1.0) -> Iterator[Page]:
    """A fresh headless page; `scale` device pixels a CSS pixel."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
        finally:
            browser.close()
