"""Make docs/demo.png, the README's picture, from the running demo: `python -m docs.screenshot`.

Prompts and seeds are fixed, so that a new picture differs from the last one only where Kiln does.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.demo_page import Demo, DemoPage, find_chromium, open_browser

TARGET = Path(__file__).with_name("demo.png")
BYTES_MAX = 400 * 1024
ALL_SHOWN = "() => [...document.images].every((it) => it.complete && it.naturalWidth)"  # every picture has come
PATIENCE = 60_000  # milliseconds for one picture


def main() -> int:
    """Take the picture; return the exit code."""
    chromium = find_chromium()
    if chromium is None:
        sys.stderr.write("docs/screenshot.py needs chromium (apt: chromium)\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder))
        try:
            with open_browser(chromium, width=1120, height=960, scale=1.5) as page:
                shot = _picture(DemoPage(page), demo.url)
        finally:
            demo.stop()
    TARGET.write_bytes(few_colours(shot, bytes_max=BYTES_MAX))
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size:,} bytes\n")
    return 0


def _picture(page: DemoPage, url: str) -> bytes:
    """One picture finished, one being drawn, one waiting."""
    page.open(url)
    expect(page.cards(re.compile("Waiting|Drawing"))).to_have_count(0, timeout=PATIENCE)  # the company's picture
    page.imagine("a yellow balloon under a clear sky seed:11")
    expect(page.pictures("a yellow balloon")).to_be_visible(timeout=PATIENCE)
    page.imagine("a red house at night seed:11")
    page.imagine("a white castle at sunset seed:1")
    expect(page.cards("a red house").filter(has_text=re.compile(r"step ([4-9]|1[01]) "))).to_be_visible(
        timeout=PATIENCE
    )
    page.page.mouse.move(5, 5)
    page.page.wait_for_function(ALL_SHOWN)  # the preview among them
    return page.page.screenshot()


def few_colours(png: bytes, *, bytes_max: int) -> bytes:
    """The same picture in few bytes: 256 colours are enough for a page. Raise SystemExit where 64 are too many."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64):
        file = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG).save(file, "PNG", optimize=True)
        if file.tell() <= bytes_max:
            return file.getvalue()
    raise SystemExit(f"the picture has {file.tell():,} bytes, {bytes_max:,} are allowed")


if __name__ == "__main__":
    sys.exit(main())
