"""The console's jobs: in the same queue as everyone's, seen by their console alone, and never Discord's business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot.app import open_kiln, run_console_until_stopped
from bot.client import Kiln
from bot.console.address import check_console, is_loopback
from bot.console.guard import BODY_MAX, LOGIN_BODY_MAX, Guard, is_strange
from bot.console.jobs import ACTIVE, CONSOLE, NUMBER_MAX, Console, is_number, new_number
from bot.console.words import LABELS, language_of, picture_html, plain, status_html, trouble_html
from bot.delivery.delivery import Delivery
from bot.errors import NotAllowed, PromptRefused, QueueFull, Refusal, StartError
from bot.host.courtesy import WORDS, Why
from bot.host.notify import watch
from bot.language import Message
from bot.queue.job import Job, JobStatus
from bot.servers.server import EVERYWHERE, Standing
from bot.settings import Settings, load_settings
from gen.errors import InvalidRequest
from gen.request import GUIDANCE_MAX, GUIDANCE_MIN, LORA_STRENGTH_MAX, STEPS_MAX, STEPS_MIN, ImageResult, LoraUse
from tests.bot.conftest import eventually
from tests.fakes import FakeGenerator, image_request, new_job, picture

ANA, BEN = 11, 22  # consoles
CHOSEN = 7
FORM = {"prompt": "a red house", "seed": 42, "size": "128x128", "steps": 4, "guidance": 3.5}


@asynccontextmanager
async def kiln_on(data: Path, generator: FakeGenerator | None = None, **settings: Any) -> AsyncIterator[Kiln]:
    """Kiln with its queue and GPU thread, connected to no Discord."""
    chosen = Settings(_env_file=None, data=data, **settings)  # type: ignore[call-arg]
    fake = generator or FakeGenerator()
    async with open_kiln(chosen, load=lambda: fake, choose_seed=lambda: CHOSEN) as bot:
        yield bot.kiln


@pytest.fixture
async def kiln(tmp_path: Path) -> AsyncIterator[Kiln]:
    async with kiln_on(tmp_path) as kiln:
        yield kiln


async def over(kiln: Kiln, job_id: int) -> Job:
    """The job when it is over."""
    looks = [look async for look in kiln.console.follow(job_id)]
    return looks[-1].job


async def test_a_job_is_followed_to_the_picture_that_the_generator_drew(kiln: Kiln) -> None:
    job = await kiln.console.ask(ANA, image_request())
    done = await over(kiln, job.id)
    assert done.status in (JobStatus.DRAWN, JobStatus.DELIVERED)
    assert await kiln.console.picture(done) == picture(image_request())
    assert [past.id for past in await kiln.console.pictures(ANA, limit=5)] == [job.id]


async def test_steps_are_seen_while_they_are_taken(tmp_path: Path) -> None:
    async with kiln_on(tmp_path, FakeGenerator(seconds_per_step=0.02)) as kiln:
        job = await kiln.console.ask(ANA, image_request(steps=10))
        seen = [look.report.step async for look in kiln.console.follow(job.id) if look.report]
    assert len(seen) > 2
    assert seen == sorted(seen)


async def test_its_end_needs_no_posting_and_no_telling(kiln: Kiln) -> None:
    done = await over(kiln, (await kiln.console.ask(ANA, image_request())).id)
    failed = await over(kiln, (await kiln.console.ask(ANA, image_request("a broken house"))).id)
    assert failed.status is JobStatus.FAILED
    await _settled(kiln)
    assert (await kiln.queue.job(done.id)).status is JobStatus.DELIVERED  # type: ignore[union-attr]
    assert await kiln.queue.outbox.letters() == ()


async def _settled(kiln: Kiln) -> None:
    """Everything that is over is closed."""
    for _ in range(1000):
        if not await kiln.queue.undelivered() and not await kiln.queue.unshown():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was not closed in time")


async def test_two_consoles_and_two_people_on_discord_share_fairly(tmp_path: Path) -> None:
    """Ana's console asks for all of hers first: first come, first served would give her five turns at once.

    Shares are counted in seconds, and a busy machine makes one drawing longer than another: so two, not one.
    """
    generator = FakeGenerator(seconds_per_step=0.02)
    async with kiln_on(tmp_path, generator, max_waiting_per_user=100) as kiln:
        held = await kiln.queue.submit(new_job(1, user_id=99, request=image_request("an endless one")))
        kiln.dispatcher.wake()
        await eventually(lambda: generator.begun)
        for number in (ANA, BEN):
            for _ in range(5):
                await kiln.console.ask(number, image_request(seed=number))
        for person in (10**17, 10**18):
            for turn in range(5):
                request = image_request(seed=person // 10**15)
                await kiln.queue.submit(new_job(person + turn, user_id=person, request=request))
        kiln.dispatcher.cancel(held.id)
        await eventually(lambda: len(generator.drawn) == 20, seconds=30)
    order = [request.seed for request in generator.drawn]
    for turns in range(4, 21):
        counts = [order[:turns].count(seed) for seed in (ANA, BEN, 100, 1000)]
        assert max(counts) - min(counts) <= 2, order


async def test_a_console_has_the_limits_that_everybody_has(tmp_path: Path) -> None:
    generator = FakeGenerator()
    async with kiln_on(tmp_path, generator, max_waiting_per_user=1) as kiln:
        await kiln.console.ask(BEN, image_request("an endless one"))
        await eventually(lambda: generator.begun)
        await kiln.console.ask(ANA, image_request())
        with pytest.raises(QueueFull):
            await kiln.console.ask(ANA, image_request())
        await kiln.console.ask(BEN, image_request())


async def test_what_is_always_refused_is_refused_to_a_console_too(kiln: Kiln) -> None:
    with pytest.raises(PromptRefused):
        await kiln.console.ask(ANA, image_request("a nude child"))


async def test_words_that_a_moderator_would_have_to_look_at_are_refused_where_there_is_none(kiln: Kiln) -> None:
    with pytest.raises(PromptRefused, match="the console has none: gory"):
        await kiln.console.ask(ANA, image_request("a gory scene"))
    assert await kiln.console.next_active(ANA) is None


async def test_what_is_asked_while_the_host_pauses_everything_is_drawn_when_it_goes_on(kiln: Kiln) -> None:
    moderation = kiln.keepers.moderation
    await moderation.stand(EVERYWHERE, Standing.PAUSED, actor_id=1)
    job = await kiln.console.ask(ANA, image_request())
    assert job.status is JobStatus.QUEUED
    kiln.show_changed(await moderation.stand(EVERYWHERE, Standing.OPEN, actor_id=1))
    assert (await over(kiln, job.id)).status in (JobStatus.DRAWN, JobStatus.DELIVERED)


async def test_a_gpu_thread_that_hangs_is_told_while_the_console_serves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen.pulse.NEW_SECONDS", 0.1)
    monkeypatch.setattr("bot.service.watch", partial(watch, look_seconds=0.02))
    monkeypatch.setattr("bot.app.open_console", lambda console, settings: nullcontext(console))
    generator, consoles, hung = FakeGenerator(), asyncio.Queue[Console](), asyncio.Event()
    settings = Settings(_env_file=None, data=tmp_path, web="off")  # type: ignore[call-arg]
    running = asyncio.create_task(
        run_console_until_stopped(
            settings,
            load=lambda: generator,
            tell=consoles.put_nowait,  # type: ignore[arg-type]
            on_hung=hung.set,
        )
    )
    try:
        await (await consoles.get()).ask(ANA, image_request("stuck"))
        await asyncio.wait_for(hung.wait(), 10)
    finally:
        generator.release.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_held_job_is_shown_with_its_reason_and_is_not_over(kiln: Kiln) -> None:
    look = await _look(kiln, "a red house", status=JobStatus.HELD, reason="Kiln is paused.")
    assert "Kiln is paused." in status_html(language_of("en"), look)
    assert JobStatus.HELD in ACTIVE


async def test_a_console_sees_and_cancels_its_own_jobs_only(tmp_path: Path) -> None:
    async with kiln_on(tmp_path) as kiln:
        job = await kiln.console.ask(ANA, image_request("an endless one"))
        of_discord = await kiln.queue.submit(new_job(5, user_id=ANA))
        for job_id, number in ((job.id, BEN), (10**6, ANA)):
            with pytest.raises(NotAllowed):
                await kiln.console.cancel(job_id, number=number)
        assert await kiln.console.next_active(BEN) is None
        assert (await kiln.console.next_active(ANA)).id == job.id  # type: ignore[union-attr]
        assert await kiln.console.pictures(BEN, limit=5) == ()
        await kiln.console.cancel(job.id, number=ANA)
        assert (await over(kiln, job.id)).status is JobStatus.CANCELLED
        with pytest.raises(Refusal, match="over already"):
            await kiln.console.cancel(job.id, number=ANA)
        assert of_discord.guild_id != CONSOLE


async def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    async with kiln_on(tmp_path) as kiln:
        await kiln.console.ask(BEN, image_request("an endless one"))
        waiting = await kiln.console.ask(ANA, image_request())
        assert (await kiln.console.cancel(waiting.id, number=ANA)).status is JobStatus.CANCELLED
        assert (await over(kiln, waiting.id)).status is JobStatus.CANCELLED


class _Told(Delivery):
    """Notes what Discord is told."""

    told: list[int]

    def started(self, job: Job) -> None:
        self.told.append(job.id)

    drawn = started


async def test_discord_hears_of_its_jobs_and_the_console_of_its_own(tmp_path: Path) -> None:
    deliveries: list[_Told] = []

    def make(**parts: Any) -> _Told:
        deliveries.append(_Told(**parts))
        deliveries[0].told = []
        return deliveries[0]

    chosen = Settings(_env_file=None, data=tmp_path)  # type: ignore[call-arg]
    async with open_kiln(chosen, load=FakeGenerator, make_delivery=make) as bot:
        mine = await bot.kiln.console.ask(ANA, image_request())
        theirs = await bot.kiln.queue.submit(new_job(5))
        bot.kiln.dispatcher.wake()
        await over(bot.kiln, mine.id)
        await over(bot.kiln, theirs.id)
        assert deliveries[0].told == [theirs.id, theirs.id]


async def test_a_picture_that_a_killed_process_drew_is_the_consoles_at_the_next_start(tmp_path: Path) -> None:
    """As it is when the process dies between recording a picture and closing it: drawn, and in the outbox."""
    async with kiln_on(tmp_path) as kiln:
        job = await _drawn_by_a_dead_process(kiln, tmp_path)
        assert await kiln.queue.outbox.letters() != ()
    async with kiln_on(tmp_path) as kiln:
        await _settled(kiln)
        assert await kiln.queue.outbox.letters() == ()
        assert [past.id for past in await kiln.console.pictures(ANA, limit=5)] == [job.id]


async def _drawn_by_a_dead_process(kiln: Kiln, data: Path) -> Job:
    wake, kiln.console._dispatcher = kiln.console._dispatcher, None  # the test takes the dispatcher's part
    job = await kiln.console.ask(ANA, image_request())
    kiln.console._dispatcher = wake
    claimed = await kiln.queue.claim()
    assert claimed is not None
    (data / "a.png").write_bytes(picture(job.request))
    result = ImageResult(png=b"", sha256="", seconds=1.0, model="fake")
    assert await kiln.queue.record_drawn(claimed, picture="a.png", result=result)
    return job


async def test_a_picture_whose_file_is_gone_is_no_error(kiln: Kiln, tmp_path: Path) -> None:
    done = await over(kiln, (await kiln.console.ask(ANA, image_request())).id)
    assert done.picture is not None
    (tmp_path / done.picture).unlink()
    assert await kiln.console.picture(done) is None


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "text", "folder"])
async def test_a_damaged_picture_of_the_history_is_told_and_the_others_are_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    gradio, pages = pytest.importorskip("gradio"), pytest.importorskip("bot.console.page")
    chinese = gradio.Request(headers={"accept-language": "zh-CN"})
    async with kiln_on(tmp_path) as kiln:
        sound, bad = [await over(kiln, (await kiln.console.ask(ANA, image_request(seed=n))).id) for n in (1, 2)]
        _damage(tmp_path / str(bad.picture), damage)
        page = pages.Page(kiln.console, asyncio.get_running_loop())
        (views,) = [dict(zip(pages.VIEWS, found, strict=True)) async for found in page.follow(chinese, ANA)]
        assert views["shown"] == [bad.id, sound.id]
        (_, told), (picture_, words) = views["history"]
        assert told == f"任务 {bad.id} 的图片无法显示：文件缺失或已损坏。"
        assert (picture_.size, words) == ((128, 128), f"{sound.request.prompt} · 1")
        assert f"job {bad.id}: its" in caplog.text
        html, seed, recipe = await page.pick(SimpleNamespace(index=0), chinese, ANA, views["shown"])
        assert "无法显示" in html
        assert (seed, recipe) == ("2", "")
        assert "<img" in (await page.pick(SimpleNamespace(index=1), chinese, ANA, views["shown"]))[0]


def _damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 9]) + whole[middle + 9 :]
        path.write_bytes({"empty": b"", "truncated": whole[:middle], "flipped": flipped, "text": b"<html>"}[how])


async def test_minus_one_is_a_seed_by_chance_and_a_seed_is_itself(kiln: Kiln) -> None:
    assert kiln.console.read_form({**FORM, "seed": -1}).seed == CHOSEN
    assert kiln.console.read_form(FORM).seed == 42
    assert kiln.console.read_form({**FORM, "seed": 42.0, "steps": 4.0}) == kiln.console.read_form(FORM)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": -2}, r"seed must be from 0 to 4,294,967,295, or -1 .*; it is -2"),
        ({"seed": 2**32}, r"seed must be from 0 to .*; it is 4,294,967,296"),
        ({"seed": 1.5}, r"seed must be a whole number; it is 1\.5"),
        ({"seed": None}, "seed must be a number; it is empty"),
        ({"seed": "42"}, "seed must be a number; it is 42"),
        ({"seed": True}, "seed must be a number; it is True"),
        ({"steps": 0}, "steps must be from 1 to 50; it is 0"),
        ({"steps": 51}, "steps must be from 1 to 50; it is 51"),
        ({"steps": 3.7}, r"steps must be a whole number; it is 3\.7"),
        ({"steps": float("inf")}, "steps must be a number; it is inf"),
        *(({name: 10**400}, f"{name} must be a number; it is 10000") for name in ("seed", "steps", "guidance")),
        ({"guidance": 0.5}, r"guidance must be from 1(\.0)? to 10(\.0)?; it is 0\.5"),
        ({"guidance": float("nan")}, "guidance must be a number; it is nan"),
        ({"size": "100x100"}, "draws a width of 128 to 512 pixels; it is 100"),
        ({"size": None}, "A size is width x height"),
        ({"size": "large"}, "A size is width x height"),
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": {"a": 1}}, "The prompt is empty"),
        ({"lora": "../weights"}, r"There is no LoRA named '\.\./weights'"),
        ({"lora": ["a"], "strength": 1}, "There is no LoRA named"),
        ({"prompt": "x" * 1001}, "1,000 characters at most; it has 1,001"),
    ],
)
async def test_what_a_page_may_not_ask_is_one_line(kiln: Kiln, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        kiln.console.read_form({**FORM, **changed})


async def test_a_lora_of_the_folder_comes_with_its_strength(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ink wash.safetensors").write_bytes(b"")
    async with kiln_on(tmp_path, loras=tmp_path / "loras") as kiln:
        assert kiln.console.loras() == ["ink wash"]
        wanted = kiln.console.read_form({**FORM, "lora": "ink wash", "strength": 0.5})
        assert wanted.loras == (LoraUse(name="ink wash", strength=0.5),)
        assert kiln.console.read_form({**FORM, "lora": "", "strength": 9}).loras == ()
        for strength, words in ((9, "strength of ink wash must be from -4"), (None, "strength of ink wash must be a")):
            with pytest.raises(InvalidRequest, match=words):
                kiln.console.read_form({**FORM, "lora": "ink wash", "strength": strength})


@pytest.mark.parametrize("value", [None, 0, -1, NUMBER_MAX, 10**17, 1.0, "7", True, [7]])
def test_a_console_cannot_take_the_number_of_a_person_on_discord(value: Any) -> None:
    assert not is_number(value)
    assert is_number(new_number())


async def _look(kiln: Kiln, prompt: str, **changed: Any) -> Any:
    from dataclasses import replace

    job = await kiln.console.ask(ANA, image_request(prompt))
    looks = [look async for look in kiln.console.follow(job.id)]
    return replace(looks[-1], job=replace(looks[-1].job, **changed))


async def test_what_a_person_wrote_is_escaped_on_the_page(kiln: Kiln) -> None:
    look = await _look(kiln, "<script>alert(1)</script> house")
    english = language_of("en")
    for html in (status_html(english, look), trouble_html("<b>"), picture_html(look.job, b"png")):
        assert "<script>" not in html
        assert "<b>" not in html.replace("<p><b>", "")
    quote = await _look(kiln, 'a house" onload="alert(1)')
    assert 'onload="' not in picture_html(quote.job, b"png")


async def test_a_place_says_why_nothing_is_drawn_and_no_time(kiln: Kiln) -> None:
    kiln.executor.is_held = True
    kiln.queue.held = Message(WORDS[Why.OWNER])
    job = await kiln.console.ask(ANA, image_request())
    look = await anext(kiln.console.follow(job.id))
    told = "Place 1 of 1 in the queue. The owner is using the card; drawing goes on when it is free."
    assert told in status_html(language_of("en"), look)
    assert "ready" not in status_html(language_of("en"), look)


async def test_a_failure_is_told_with_its_reason_in_the_readers_language(kiln: Kiln) -> None:
    look = await _look(kiln, "a broken house")
    assert "It could not be drawn: The picture needs more memory" in status_html(language_of("en"), look)
    assert "无法绘制" in status_html(language_of("zh-CN,zh;q=0.9,en;q=0.8"), look)


def test_times_meant_for_discord_are_times_of_day_on_the_page() -> None:
    told = plain("You can ask again from <t:1767225600:t> (<t:1767225600:R>) on.")
    assert "&lt;" not in told
    assert told.count(":") == 2


@pytest.mark.parametrize(
    ("accepted", "locale"),
    [("zh-CN,zh;q=0.9", "zh"), ("de,zh-TW;q=0.5", "zh"), ("en-US,en", "en"), ("de", "en"), ("", "en")],
)
def test_the_pages_language_is_the_browsers(accepted: str, locale: str) -> None:
    assert language_of(accepted).locale == locale


def test_the_labels_name_the_real_limits() -> None:
    assert f"({STEPS_MIN} to {STEPS_MAX})" in LABELS["steps"]
    assert f"({GUIDANCE_MIN:g} to {GUIDANCE_MAX:g})" in LABELS["guidance"]
    assert f"({-LORA_STRENGTH_MAX:g} to {LORA_STRENGTH_MAX:g})" in LABELS["strength"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine"])
def test_beyond_this_machine_it_wants_a_password_and_tells_of_the_tunnel(host: str) -> None:
    with pytest.raises(StartError, match=r"set KILN_CONSOLE_PASSWORD.\n.*ssh -L 6006:127\.0\.0\.1:6006"):
        check_console(load_settings(console_host=host))
    check_console(load_settings(console_host=host, console_password="long enough"))


@pytest.mark.parametrize(
    ("headers", "has_password", "strange"),
    [
        ({"host": "127.0.0.1:6006"}, False, False),
        ({"host": "localhost:7007", "origin": "http://localhost:7007"}, False, False),
        ({"host": "[::1]:6006", "origin": "http://[::1]:6006"}, False, False),
        ({"host": "127.0.0.1:6006", "origin": "http://evil.example"}, False, True),
        ({"host": "127.0.0.1:6006", "origin": "http://127.0.0.1:8000"}, False, True),
        ({"host": "127.0.0.1:6006", "origin": "null"}, False, True),
        ({"host": "evil.example", "origin": "http://evil.example"}, False, True),
        ({"host": "[nonsense"}, False, True),
        ({"host": "127.0.0.1", "origin": "http://[nonsense"}, True, True),
        ({}, False, True),
        ({"host": "my.house:6006", "origin": "http://my.house:6006"}, True, False),
        ({"host": "my.house:6006", "origin": "https://evil.example"}, True, True),
        ({"host": "127.0.0.1", "x-forwarded-host": "my.house", "origin": "https://my.house"}, True, False),
    ],
)
def test_only_its_own_pages_may_ask_a_console(headers: dict[str, str], has_password: bool, strange: bool) -> None:
    assert is_strange(headers, has_password=has_password) is strange


class Asked:
    """One request through the guard, in pieces of 1 KiB: what was answered, and how much was read for it."""

    def __init__(self, *, path: str = "/gradio_api/queue/join", method: str = "POST", bytes_: int = 0) -> None:
        self.scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", b"my.house")]}
        self.left, self.read, self.status = bytes_, 0, 0

    async def _receive(self) -> dict[str, Any]:
        piece = min(self.left, 1024)
        self.left -= piece
        self.read += piece
        return {"type": "http.request", "body": bytes(piece), "more_body": self.left > 0}

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)

    async def through(self, *, logged_in: bool, announced: bool = False) -> Asked:
        async def app(_: Any, receive: Any, send: Any) -> None:
            while (await receive())["more_body"]:
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})

        if announced:
            self.scope["headers"].append((b"content-length", str(self.left).encode()))  # type: ignore[attr-defined]
        await Guard(app, has_password=True, is_logged_in=lambda _: logged_in)(self.scope, self._receive, self._send)
        return self


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/", "/login/../upload"])
async def test_who_is_not_logged_in_is_turned_away_before_a_byte_is_read(path: str) -> None:
    for bytes_ in (10, 2 * BODY_MAX):
        asked = await Asked(path=path, bytes_=bytes_).through(logged_in=False)
        assert (asked.status, asked.read) == (401, 0)


@pytest.mark.parametrize(("logged_in", "most"), [(False, LOGIN_BODY_MAX), (True, BODY_MAX)])
async def test_a_large_body_is_read_to_nobodys_limit_and_no_further(logged_in: bool, most: int) -> None:
    asked = await Asked(path="/login", bytes_=most).through(logged_in=logged_in)
    assert (asked.status, asked.read) == (200, most)
    asked = await Asked(path="/login", bytes_=most * 3).through(logged_in=logged_in)
    assert (asked.status, asked.read) == (413, most + 1024)
    asked = await Asked(path="/login", bytes_=most + 1).through(logged_in=logged_in, announced=True)
    assert (asked.status, asked.read) == (413, 0)


def test_a_short_password_is_refused_without_being_shown() -> None:
    with pytest.raises(StartError, match="needs 8 characters or more; it has 5") as refused:
        check_console(load_settings(console_password="sesam"))
    assert "sesam" not in str(refused.value)
    with pytest.raises(StartError, match="nothing but spaces"):
        check_console(load_settings(console_password=" " * 12))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    check_console(load_settings(console_host=host))


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Callable[[str], None] = lambda _: None  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", missing)
    with pytest.raises(StartError, match=r"pip install 'kiln-bot\[console\]'"):
        check_console(load_settings())
