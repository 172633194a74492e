"""`kiln console` in a real browser with the real demo model: what `kiln draw` draws, and only to whom it is due."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from safetensors.numpy import save_file

from tests.demo_page import FLAGS, find_chromium

CHROMIUM = find_chromium()
PICTURE_MS = 90_000  # at most, for one picture on two busy cores
PASSWORD = "a long password"
PROXIES = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"ALL_PROXY": "socks5://127.0.0.1:9"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt: chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="no Gradio: pip install '.[console]'"),
]


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("KILN_", "DISCORD_"))}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Served:
    """A running `kiln console`; its log is in `folder / "console.log"`. A proxy that is not there is in its way."""

    def __init__(self, folder: Path, *, port: int | None = None, **settings: str) -> None:
        self.port, self.web = port or free_port(), f"127.0.0.1:{free_port()}"
        self.log = folder / "console.log"
        command = [sys.executable, "-m", "bot", "console", "--port", str(self.port)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**plain_environment(), **PROXIES, "KILN_WEB": self.web, **settings},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        guard = threading.Timer(90, self.process.kill)
        guard.start()
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        guard.cancel()
        assert self.url, self.log.read_text()

    def page(self, name: str) -> str:
        """One of health and metrics."""
        with urllib.request.urlopen(f"http://{self.web}/{name}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self) -> None:
        """As Ctrl-C does; it ends in five seconds, and well."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=15) == 0, self.log.read_text()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


def save_lora(folder: Path, name: str) -> None:
    """One that changes the demo model's pictures."""
    chance, dim, key = np.random.default_rng(1), 192, "double_blocks.0.img_attn.qkv"
    folder.mkdir()
    tensors = {
        f"{key}.lora_A.weight": chance.normal(size=(4, dim)).astype(np.float32) * 0.2,
        f"{key}.lora_B.weight": chance.normal(size=(3 * dim, 4)).astype(np.float32) * 0.2,
    }
    save_file(tensors, folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """One console for most tests: starting the model takes longer than they do."""
    save_lora(folder / "loras", "ink")
    running = Served(folder, KILN_LORAS=str(folder / "loras"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-US")
    yield context
    context.close()


def open_page(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#prompt textarea")).to_be_visible(timeout=30_000)
    return page


def fill(page: Page, prompt: str, **values: str) -> None:
    page.fill("#prompt textarea", prompt)
    for name, value in values.items():
        page.fill(f"#{name} input", value)


def draw(page: Page, prompt: str, **values: str) -> None:
    fill(page, prompt, **values)
    page.click("button.primary")


def picture_of(page: Page) -> bytes:
    """The picture that the page shows, as it would be saved."""
    expect(page.locator("#picture img")).to_be_visible(timeout=PICTURE_MS)
    source = page.locator("#picture a").get_attribute("href")
    assert source is not None
    return base64.b64decode(source.partition(",")[2])


def test_the_picture_of_a_seed_is_kiln_draws_byte_for_byte(
    served: Served, context: BrowserContext, tmp_path: Path
) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = open_page(context, served.url)
    draw(page, "a red house at night", seed="42")
    expect(page.locator("#status")).to_contain_text(re.compile(r"Being drawn: step \d+ of 12"), timeout=PICTURE_MS)
    expect(page.locator("#status progress")).to_be_visible()
    expect(page.locator("#status img")).to_be_visible(timeout=PICTURE_MS)  # the preview
    png = picture_of(page)
    out = tmp_path / "house.png"
    command = [sys.executable, "-m", "bot", "draw", "a red house at night", "--seed", "42", "--out", str(out)]
    subprocess.run(command, cwd=tmp_path, env=plain_environment(), check=True, timeout=100)
    assert png == out.read_bytes()
    expect(page.locator("#seed-used input, #seed-used textarea")).to_have_value("42")
    expect(page.locator("#recipe")).to_contain_text('"prompt": "a red house at night"')
    expect(page.locator("#history img")).to_have_count(1)
    assert {urlsplit(url).hostname for url in asked if url.startswith("http")} == {"127.0.0.1"}


def test_a_lora_with_its_strength_is_drawn_as_kiln_draw_does(
    served: Served, folder: Path, context: BrowserContext, tmp_path: Path
) -> None:
    page = open_page(context, served.url)
    page.click("#lora input")
    page.get_by_role("option", name="ink").click()
    draw(page, "a red house", seed="42", steps="3", strength="0.5")
    png = picture_of(page)
    expect(page.locator("#recipe")).to_contain_text('"strength": 0.5')
    out = tmp_path / "house.png"
    command = [sys.executable, "-m", "bot", "draw", "a red house", "--seed", "42", "--steps", "3", "--lora", "ink:0.5"]
    settings = {**plain_environment(), "KILN_LORAS": str(folder / "loras")}
    subprocess.run([*command, "--out", str(out)], cwd=tmp_path, env=settings, check=True, timeout=100)
    assert png == out.read_bytes()


def test_minus_one_draws_a_seed_by_chance_and_tells_it(served: Served, context: BrowserContext) -> None:
    page = open_page(context, served.url)
    draw(page, "a green tree", seed="-1", steps="2")
    picture_of(page)
    seed = page.locator("#seed-used input, #seed-used textarea").input_value()
    assert 0 <= int(seed) < 2**32
    expect(page.locator("#recipe")).to_contain_text(f'"seed": {seed}')


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": "0"}, "The steps must be from 1 to 50; it is 0."),
        ({"steps": "51"}, "The steps must be from 1 to 50; it is 51."),
        ({"steps": "2.5"}, "The steps must be a whole number; it is 2.5."),
        ({"seed": "-2"}, "The seed must be from 0 to 4,294,967,295, or -1 for one by chance; it is -2."),
        ({"seed": ""}, "The seed must be a number; it is empty."),
    ],
)
def test_what_cannot_be_is_said_in_one_clear_line_and_nothing_is_drawn(
    served: Served, context: BrowserContext, values: dict[str, str], words: str
) -> None:
    page = open_page(context, served.url)
    draw(page, "a red house", **values)
    expect(page.locator("#refusal")).to_have_text(words)
    expect(page.locator("#status")).not_to_contain_text("Job")
    assert 'kiln_rejections_total{reason="invalid_request"}' in served.page("metrics")


def test_another_websites_page_can_ask_nothing_and_nobody_can_fill_the_disk(served: Served) -> None:
    for headers, code in (({"Origin": f"http://{served.web}"}, 403), ({}, 413)):
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nmuch\r\n--x--\r\n'
        told = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{served.url}gradio_api/upload", body, told), timeout=10)
        assert refused.value.code == code
        refused.value.close()


def test_a_chinese_browser_reads_chinese(served: Served, browser: Browser) -> None:
    context = browser.new_context(locale="zh-CN")
    page = open_page(context, served.url)
    for words in ("提示词", "种子（-1：随机）", "步数（1 到 50）", "绘制", "此控制台的历史"):
        expect(page.locator("body")).to_contain_text(words)
    draw(page, "夜里的红房子", steps="51")
    expect(page.locator("#refusal")).to_contain_text("步数必须")
    fill(page, "夜里的红房子", steps="4", seed="7")
    page.click("button.primary")
    expect(page.locator("#status")).to_contain_text("种子 7", timeout=PICTURE_MS)
    context.close()


def test_two_consoles_wait_in_one_line_and_see_their_own_pictures_only(served: Served, browser: Browser) -> None:
    contexts = [browser.new_context(locale="en-US") for _ in range(2)]
    ana, ben = (open_page(context, served.url) for context in contexts)
    draw(ana, "a blue boat at noon", seed="1", steps="40")
    expect(ana.locator("#status")).to_contain_text("Being drawn: step", timeout=PICTURE_MS)
    draw(ben, "a green tree", seed="2", steps="2")
    expect(ben.locator("#status")).to_contain_text(re.compile("Place 1 of 1 in the queue, ready at about"))
    first, second = picture_of(ana), picture_of(ben)
    assert first != second
    expect(ana.locator("#history img")).to_have_count(1)
    ben.reload()
    expect(ben.locator("#history img")).to_have_count(1, timeout=30_000)  # the browser knows which console it is
    ben.locator("#history img").click()
    assert picture_of(ben) == second
    for context in contexts:
        context.close()


def test_a_drawing_is_cancelled_and_several_are_drawn_in_turn(served: Served, context: BrowserContext) -> None:
    page = open_page(context, served.url)
    draw(page, "a castle on a hill", seed="3", steps="50")
    expect(page.locator("#status")).to_contain_text("Being drawn: step", timeout=PICTURE_MS)
    draw(page, "a red house", seed="4", steps="2")
    draw(page, "a blue house", seed="5", steps="2")
    expect(page.locator("#status")).to_contain_text("a castle on a hill")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#history img")).to_have_count(2, timeout=PICTURE_MS)
    expect(page.locator("#status")).to_contain_text("a blue house")


def test_each_of_several_quick_clicks_is_a_picture(served: Served, context: BrowserContext) -> None:
    page = open_page(context, served.url)
    fill(page, "a green boat", seed="6", steps="2")
    for _ in range(3):
        page.evaluate("document.querySelector('button.primary').click()")  # nobody waits for the first to be taken
    expect(page.locator("#history img")).to_have_count(3, timeout=PICTURE_MS)


def test_a_console_with_a_password_gives_nothing_out_without_it(tmp_path: Path, context: BrowserContext) -> None:
    served = Served(tmp_path, KILN_CONSOLE_PASSWORD=PASSWORD)
    try:
        for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=x"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{served.url}{path}", timeout=10)
            assert refused.value.code == 401, path
            refused.value.close()
        for path, sent, code in (
            ("gradio_api/upload", 10, 401),
            ("gradio_api/queue/join", 2**24, 401),
            ("login", 2**24, 413),
        ):
            assert _answer_to(served.port, path, announced=sent) == code, path
        page = context.new_page()
        page.goto(served.url)
        page.locator("input").nth(0).fill("kiln")
        page.locator("input[type=password]").fill(PASSWORD)
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#prompt textarea")).to_be_visible(timeout=30_000)
        draw(page, "a green tree", seed="2", steps="2")
        picture_of(page)
    finally:
        served.stop()


def _answer_to(port: int, path: str, *, announced: int) -> int:
    """What is answered to a body that is announced and of which no byte is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", f"/{path}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(announced))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_health_and_metrics_are_served_beside_it(served: Served) -> None:
    for page, words in (("livez", '"status": "ok"'), ("readyz", '"model": "ok"'), ("metrics", "kiln_model_loaded 1.0")):
        assert words in served.page(page)


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "Address already in use"), ("nowhere.invalid", "(Name or|Temporary).*")]
)
def test_where_it_cannot_listen_is_one_line_before_the_model_loads(tmp_path: Path, host: str, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        command = [sys.executable, "-m", "bot", "console", "--host", host, "--port", str(number)]
        environment = {**plain_environment(), "KILN_CONSOLE_PASSWORD": PASSWORD}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(rf"kiln: the console cannot listen on {host}:{number}: {why}\. Choose another", line)


def test_bound_to_the_world_without_a_password_it_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bot", "console", "--host", "0.0.0.0"]
    done = subprocess.run(
        command, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("kiln: KILN_CONSOLE_HOST is 0.0.0.0, where others can reach the console")
    assert not (tmp_path / "data").exists()


def test_after_a_restart_the_history_is_there_and_an_open_page_draws_on(
    tmp_path: Path, context: BrowserContext
) -> None:
    served = Served(tmp_path)
    old = open_page(context, served.url)
    draw(old, "a green tree", seed="2", steps="2")
    picture_of(old)
    served.stop()
    again = Served(tmp_path, port=served.port)
    try:
        page = open_page(context, again.url)
        expect(page.locator("#history img")).to_have_count(1, timeout=30_000)
        draw(old, "a red house", seed="3", steps="2")
        expect(old.locator("#history img")).to_have_count(2, timeout=PICTURE_MS)
    finally:
        again.stop()
