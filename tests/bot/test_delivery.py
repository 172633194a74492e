"""Pictures arrive once, whatever Discord answers; what cannot arrive is kept."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from PIL import Image

from bot.app import open_kiln
from bot.background import backoff
from bot.cards.job_card import card
from bot.client import RATE_LIMIT_SECONDS
from bot.delivery.delivery import Delivery
from bot.delivery.posting import NONCE_LASTS, UPLOAD_LIMIT, Notes, Posted, Poster, Target, Unsure
from bot.delivery.showing import _Card
from bot.delivery.upload import largest_fitting
from bot.errors import QueueUnavailable
from bot.language import say_in
from bot.queue.job import Job, JobStatus
from bot.queue.outbox import Letter, Outbox, nonce
from bot.settings import Settings
from gen.request import ImageResult
from tests.bot.conftest import Stage, eventually, open_stage, text_of
from tests.fakes import FakeGenerator, new_job

SEND = ("POST", "/channels/*/messages")


def name_of(job: Job) -> str:
    return nonce(job.id, job.interaction_id)


async def quiet(*_: object) -> None:
    """Notes that nobody reads."""


def to_channel(stage: Stage) -> dict[str, Any]:
    channel = stage.bot.get_partial_messageable(stage.channel.id, guild_id=stage.guild.id)
    target = Target(channel=channel, limit=UPLOAD_LIMIT, moved=False)
    return {"target": target, "notes": Notes(begun=quiet, failed=quiet)}


async def only_job(stage: Stage) -> Job:
    job = await stage.kiln.queue.job(1)
    assert job is not None
    return job


@pytest.mark.parametrize(("status", "code"), [(500, 0), (502, 0), (503, 0), (429, 0)])
async def test_a_passing_failure_is_tried_again(stage: Stage, status: int, code: int) -> None:
    stage.env.inject_error(*SEND, status=status, code=code, times=2)
    await stage.imagine()
    assert len(stage.pictures()) == 1
    assert (await only_job(stage)).status is JobStatus.DELIVERED


async def test_each_try_carries_the_jobs_id_and_its_interaction_as_nonce(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=500, times=1)
    await stage.imagine()
    posts = [entry.json for entry in stage.env.http_requests if entry.method == "POST"]
    sent = [body["nonce"] for body in posts if body and "nonce" in body]
    job = await only_job(stage)
    assert sent == [f"1-{job.interaction_id % 10**12}"] * 2
    assert len(nonce(10**12 - 1, 10**12 - 1)) == 25  # Discord's limit


@pytest.mark.parametrize(("status", "end"), [(401, JobStatus.DRAWN), (400, JobStatus.KEPT)])
async def test_what_a_repeat_cannot_cure_is_not_repeated(stage: Stage, status: int, end: JobStatus) -> None:
    stage.env.inject_error(*SEND, status=status, times=None)
    await stage.imagine()
    tries = [entry for entry in stage.env.http_requests if entry.method == "POST" and entry.path.endswith("/messages")]
    assert len(tries) == 1
    assert (await only_job(stage)).status is end


async def test_a_channel_that_is_closed_sends_the_picture_to_its_author(stage: Stage) -> None:
    stage.env.inject_error("POST", f"/channels/{stage.channel.id}/messages", status=403, code=50013, times=None)
    await stage.imagine()
    assert not stage.pictures()
    (direct,) = stage.pictures(stage.alice.user.dm_channel)
    assert f"may not post in <#{stage.channel.id}>" in direct.content
    job = await only_job(stage)
    assert job.status is JobStatus.DELIVERED
    assert job.result_message_id == direct.id


async def test_the_next_start_posts_what_was_drawn_without_drawing_again(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as first:
        first.env.inject_error(*SEND, status=401, times=None)
        await first.imagine()
    async with open_stage(tmp_path) as second:
        await second.env.settle()
        assert len(second.pictures()) == 1
        assert not second.generator.begun
        assert (await only_job(second)).status is JobStatus.DELIVERED


async def test_a_database_that_is_locked_at_the_start_delays_what_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stage(tmp_path / "data") as stage:
        stage.env.inject_error(*SEND, status=401, times=None)
        await stage.imagine()
    ask, tries = Outbox.letters, 0

    async def locked_at_first(outbox: Outbox, *job_ids: int) -> tuple[Letter, ...]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise QueueUnavailable
        return await ask(outbox, *job_ids)

    monkeypatch.setattr(Outbox, "letters", locked_at_first)
    async with open_stage(tmp_path / "data") as stage:
        await eventually(stage.pictures)
    assert tries == 3


async def test_a_picture_that_was_posted_but_not_recorded_is_not_posted_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*args: Any, **kwargs: Any) -> bool:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(stage.kiln.queue, "record_delivered", die)
        await stage.imagine()
    assert (await only_job(stage)).status is JobStatus.DRAWN
    stage.kiln.delivery.connect(stage.bot)
    await eventually(lambda: "Done in" in text_of(stage.messages()[0]))
    (picture,) = stage.pictures()
    assert (await only_job(stage)).result_message_id == picture.id


async def test_after_the_nonces_time_the_history_is_read_before_a_resend(stage: Stage) -> None:
    """The first try reached Discord, but its answer was lost; the next try comes too late for the nonce."""
    await stage.imagine()
    job = await only_job(stage)
    clock = iter([0.0, NONCE_LASTS.total_seconds() + 1])
    poster = Poster(stage.bot, pauses=lambda: iter([0.0] * 3), clock=lambda: next(clock))
    stage.env.inject_error(*SEND, status=500, times=1)
    posted = await poster.post(job, png=b"not needed", **to_channel(stage))
    assert len(stage.pictures()) == 1
    assert posted.message_id == stage.pictures()[0].id


async def test_after_the_nonces_time_what_the_history_does_not_have_is_sent(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    job = await only_job(stage)
    clock = iter([0.0, NONCE_LASTS.total_seconds() + 1, 200.0])
    poster = Poster(stage.bot, pauses=lambda: iter([0.0] * 3), clock=lambda: next(clock))
    stage.env.inject_error(*SEND, status=500, times=1)
    await poster.post(job, png=noise(16), **to_channel(stage))
    assert len(stage.pictures()) == 1


class RepeatsBehindUs:
    """A channel as discord.py shows it: it repeats a 500 that took effect, and the repeat is forbidden."""

    def __init__(self, channel: discord.PartialMessageable) -> None:
        self.id, self._channel = channel.id, channel

    async def send(self, text: str, *, file: discord.File, **options: Any) -> None:
        file.reset(seek=0)
        file.reset(seek=1)
        await self._channel.send(text, file=file, **options)
        raise discord.Forbidden(SimpleNamespace(status=403, reason="Forbidden"), "Missing Access")  # type: ignore[arg-type]


async def test_what_the_library_repeated_by_itself_is_looked_for_before_the_picture_moves_on(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    where = to_channel(stage)
    where["target"] = replace(where["target"], channel=RepeatsBehindUs(where["target"].channel))
    posted = await Poster(stage.bot).post(await only_job(stage), png=noise(16), **where)
    assert [picture.id for picture in stage.pictures()] == [posted.message_id]


class RepeatsLate:
    """As discord.py at a gateway that answers after minutes, once its first try took effect: it sends it once more."""

    def __init__(self, channel: discord.PartialMessageable) -> None:
        self.id, self._channel, self.history, self.seconds = channel.id, channel, channel.history, 0.0

    async def send(self, text: str, *, file: discord.File, **options: Any) -> discord.Message:
        file.reset(seek=0)
        await self._channel.send(text, file=discord.File(io.BytesIO(file.fp.read()), file.filename))
        self.seconds += NONCE_LASTS.total_seconds() + 1
        file.reset(seek=1)
        return await self._channel.send(text, file=file, **options)


async def test_the_library_does_not_repeat_a_picture_when_its_nonce_is_too_old(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    where = to_channel(stage)
    late = RepeatsLate(where["target"].channel)
    where["target"] = replace(where["target"], channel=late)
    poster = Poster(stage.bot, pauses=lambda: iter([0.0] * 3), clock=lambda: late.seconds)
    posted = await poster.post(await only_job(stage), png=noise(16), **where)
    assert [picture.id for picture in stage.pictures()] == [posted.message_id]


async def test_a_pause_that_discord_asks_for_is_kept_and_leaves_no_doubt(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library leaves long pauses to us, so that none outlasts the nonce without a look at the history."""
    assert NONCE_LASTS.total_seconds() >= 4 * RATE_LIMIT_SECONDS  # between its five tries
    await stage.imagine()
    job, pauses, answers = await only_job(stage), list[float](), iter([discord.RateLimited(0.125), None])
    original = Poster._send

    async def limited(self: Poster, *args: Any, **rest: Any) -> Posted:
        error = next(answers)
        if error is not None:
            raise error
        return await original(self, *args, **rest)

    async def failed(pause: float, error: str) -> None:
        pauses.append(pause)

    monkeypatch.setattr(Poster, "_send", limited)
    monkeypatch.setattr(Poster, "_find", None)  # would break
    clock = iter([0.0, NONCE_LASTS.total_seconds() + 1])
    poster = Poster(stage.bot, pauses=lambda: iter([0.0] * 3), clock=lambda: next(clock))
    where = to_channel(stage) | {"notes": Notes(begun=quiet, failed=failed)}
    await poster.post(job, png=noise(16), **where)
    assert pauses == [0.125]


async def test_a_broken_connection_is_tried_again(stage: Stage) -> None:
    await stage.imagine()
    answers = iter([ConnectionResetError(), TimeoutError(), None])

    async def ask() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "answered"

    poster = Poster(stage.bot, pauses=lambda: iter([0.0] * 3))
    assert await poster.insist(await only_job(stage), ask) == "answered"


async def test_a_direct_message_is_found_again(stage: Stage) -> None:
    stage.env.inject_error("POST", f"/channels/{stage.channel.id}/messages", status=403, code=50013, times=None)
    await stage.imagine()
    (direct,) = stage.pictures(stage.alice.user.dm_channel)
    found = await Poster(stage.bot).find(await only_job(stage), channel_id=direct.channel.id)
    assert found == Posted(message_id=direct.id, channel_id=direct.channel.id)


async def test_without_the_history_nothing_is_sent_blindly(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        assert stage.bot.user is not None
        unreadable = discord.PermissionOverwrite(read_message_history=False)
        channel = stage.guild.create_text_channel("short memory", overwrites={stage.bot.user: unreadable})
        await stage.alice.slash(channel, "imagine", prompt="a fox")
        job = await only_job(stage)
        poster = Poster(stage.bot)
        with pytest.raises(Unsure, match="Read Message History"):
            await poster.find(job, channel_id=channel.id)
        assert len(stage.pictures(channel)) == 1


async def test_another_jobs_picture_is_not_taken_for_this_one(stage: Stage) -> None:
    for _ in range(11):
        await stage.imagine()
    assert len(stage.pictures()) == 10  # the eleventh is over the burst
    job = await only_job(stage)
    assert await Poster(stage.bot).find(job, channel_id=stage.channel.id) is not None
    assert await Poster(stage.bot).find(replace(job, id=100), channel_id=stage.channel.id) is None


async def test_a_job_of_the_same_id_from_another_database_is_not_taken_for_this_one(stage: Stage) -> None:
    await stage.imagine()
    job = await only_job(stage)
    asked_earlier = replace(job, interaction_id=job.interaction_id - 1)  # a restored backup: its id was used again
    assert await Poster(stage.bot).find(asked_earlier, channel_id=stage.channel.id) is None


@pytest.mark.parametrize(("status", "code"), [(413, 0), (400, 40005)])
async def test_a_file_that_is_too_large_is_sent_smaller(stage: Stage, status: int, code: int) -> None:
    stage.env.inject_error(*SEND, status=status, code=code, times=1)
    await stage.imagine(size="512x512")
    (picture,) = stage.pictures()
    assert picture.attachments[0].filename == f"kiln-{name_of(await only_job(stage))}.webp"
    assert (await only_job(stage)).status is JobStatus.DELIVERED


async def test_the_alt_text_says_prompt_seed_and_settings(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42)
    described = stage.pictures()[0].attachments[0].description
    assert described == "AI-generated picture: a red house (seed 42, 256x256, 4 steps, guidance 3.5)"


async def test_a_card_that_was_deleted_costs_nothing(stage: Stage) -> None:
    stage.env.inject_error("PATCH", "/channels/*/messages/*", status=404, code=10008, times=None)
    await stage.imagine()
    assert len(stage.pictures()) == 1


async def test_a_failure_is_told_by_message_when_the_card_is_gone(stage: Stage) -> None:
    stage.env.inject_error("PATCH", "/channels/*/messages/*", status=404, code=10008, times=None)
    await stage.imagine("a broken house")
    told = stage.messages()[-1]
    assert "more memory" in told.content
    assert stage.notified(told) == {stage.alice.id}
    pressed = await stage.alice.click(told, custom_id="job:1:retry")
    assert (await stage.kiln.queue.job(2)) is not None, pressed


async def test_the_last_edit_of_a_card_is_tried_again(stage: Stage) -> None:
    stage.detach()
    stage.env.inject_error("PATCH", "/channels/*/messages/*", status=500, times=2)
    await stage.imagine()
    await eventually(lambda: "Done in" in text_of(stage.messages()[0]))


async def lose_the_picture(stage: Stage) -> None:
    """Job 1 is drawn and refused; its file goes, and the next look finds that."""
    job = await only_job(stage)
    assert (job.status, stage.pictures()) == (JobStatus.DRAWN, [])
    assert job.picture is not None
    (stage.settings.data / job.picture).unlink()
    stage.kiln.delivery.connect(stage.bot)


async def test_a_picture_whose_file_is_gone_is_drawn_again_uncounted(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    await lose_the_picture(stage)
    await eventually(stage.pictures)
    await eventually(lambda: "[the picture]" in text_of(stage.messages()[0]))
    job = await only_job(stage)
    assert (job.status, job.attempts, len(stage.generator.drawn)) == (JobStatus.DELIVERED, 1, 2)


async def test_a_picture_whose_file_is_gone_twice_has_failed_and_is_said(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.env.inject_error(*SEND, status=401, times=2)
    await stage.imagine()
    await lose_the_picture(stage)
    await eventually(lambda: caplog.text.count("job 1 stays undelivered") == 2)
    await lose_the_picture(stage)
    await eventually(lambda: "lost each time" in text_of(stage.messages()[0]))
    assert (await only_job(stage)).status is JobStatus.FAILED
    assert len(stage.generator.drawn) == 2


async def test_a_picture_whose_file_cannot_be_read_waits_for_the_next_start(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    job = await only_job(stage)
    assert job.picture is not None
    file = stage.settings.data / job.picture
    file.rename(file.with_suffix(".away"))
    file.mkdir()
    stage.kiln.delivery.connect(stage.bot)
    await eventually(lambda: "cannot be read" in text_of(stage.messages()[0]))
    assert (await only_job(stage)).status is JobStatus.DRAWN
    file.rmdir()
    file.with_suffix(".away").rename(file)
    stage.kiln.delivery.connect(stage.bot)
    await eventually(stage.pictures)


async def test_a_job_that_is_over_meanwhile_is_neither_drawn_again_nor_closed_again(stage: Stage) -> None:
    await stage.imagine()
    before = await only_job(stage)
    delivery = stage.kiln.delivery
    await delivery._draw_again(before, picture=Path("gone.png"))
    await delivery._over(before, Unsure("x"), close=stage.kiln.queue.outbox.keep)
    assert await only_job(stage) == before


async def test_what_is_drawn_before_discord_is_there_or_while_it_is_posted_is_posted_once(stage: Stage) -> None:
    stage.env.inject_error(*SEND, status=401, times=1)
    await stage.imagine()
    job = await only_job(stage)
    early = Delivery(queue=stage.kiln.queue, data=stage.settings.data)
    early.drawn(job)
    assert early._posting == set()
    stage.kiln.delivery.drawn(job)
    stage.kiln.delivery.drawn(job)
    await eventually(stage.pictures)
    await stage.env.settle()
    assert len(stage.pictures()) == 1


async def test_an_end_that_discord_does_not_take_is_left_to_the_next_start(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bot.delivery.showing.LAST_EDIT_TRIES", 1)
    stage.env.inject_error("PATCH", "/channels/*/messages/*", status=500, times=None)
    await stage.imagine()
    await eventually(lambda: "the next start tries again" in caplog.text)
    assert [job.id for job in await stage.kiln.queue.unshown()] == [1]


async def test_a_card_is_not_edited_once_kiln_has_let_go_of_discord(stage: Stage) -> None:
    await stage.imagine()
    showing = stage.kiln.delivery._showing
    showing.disconnect()
    assert not await showing._tell(_Card(job=await only_job(stage), message_id=1), tries=1)


async def test_a_restart_shows_on_the_card_that_the_job_waits_again(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as first:
        first.detach()
        await first.imagine("endless rain")
        await eventually(lambda: first.generator.begun)
        await first.kiln.dispatcher.aclose()
        await eventually(lambda: "Waiting" in text_of(first.messages()[0]))
        assert (await only_job(first)).status is JobStatus.QUEUED


async def test_stopping_says_so_on_the_card_before_the_client_goes(tmp_path: Path) -> None:
    async with open_stage(tmp_path, edit_every=timedelta(hours=1)) as stage:
        stage.detach()
        await stage.imagine("endless rain")
        await eventually(lambda: "Drawing" in text_of(stage.messages()[0]))
        await stage.kiln.dispatcher.aclose()
        await stage.kiln.delivery.aclose()
        assert "Waiting" in text_of(stage.messages()[0])


async def test_a_slow_discord_does_not_hold_the_next_drawing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.detach()
    answering = asyncio.Event()
    original = Poster.post

    async def slow(self: Poster, job: Job, **rest: Any) -> Posted:
        await answering.wait()
        return await original(self, job, **rest)

    monkeypatch.setattr(Poster, "post", slow)
    await stage.imagine("the first")
    await stage.imagine("the second")
    await eventually(lambda: len(stage.generator.drawn) == 2)
    assert not stage.pictures()
    answering.set()
    await eventually(lambda: len(stage.pictures()) == 2)


def test_pauses_grow_to_two_minutes_and_differ() -> None:
    pauses = backoff()
    taken = [next(pauses) for _ in range(12)]
    assert 1.0 <= taken[0] <= 1.5
    assert all(120 <= pause <= 180 for pause in taken[8:])
    assert len(set(taken)) == 12
    assert timedelta(seconds=taken[0] + taken[1]) < NONCE_LASTS


def noise(side: int) -> bytes:
    """A PNG that hardly compresses."""
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), Random(1).randbytes(side * side * 3)).save(file, format="PNG")
    return file.getvalue()


def test_each_smaller_limit_gets_the_best_encoding_that_fits() -> None:
    png = noise(128)
    found = {}
    for limit in range(len(png) + 1, 0, -500):
        upload = largest_fitting(png, stem="kiln-1", limit=limit)
        if upload is None:
            break
        assert len(upload.data) <= limit
        with Image.open(io.BytesIO(upload.data)) as picture:
            assert picture.size == (128, 128)
        found[upload.name] = len(upload.data)
    assert list(found) == ["kiln-1.png", "kiln-1.webp", "kiln-1.jpg"]


def test_a_picture_that_fits_is_not_touched() -> None:
    png = noise(16)
    upload = largest_fitting(png, stem="kiln-1", limit=len(png))
    assert upload is not None
    assert (upload.name, upload.data) == ("kiln-1.png", png)


async def left_running(data: Path, *, times: int) -> None:
    """A process that dies while it draws, `times` times."""
    async with open_stage(data) as stage:
        stage.kiln.dispatcher.wake = lambda: None  # type: ignore[method-assign]
        await stage.imagine("a red house")
        for attempt in range(times):
            if attempt:
                await stage.kiln.queue.recover()
            assert await stage.kiln.queue.claim() is not None


async def test_a_job_that_was_interrupted_is_drawn_at_the_next_start(tmp_path: Path) -> None:
    await left_running(tmp_path, times=1)
    async with open_stage(tmp_path) as stage:
        await stage.env.settle()
        assert len(stage.pictures()) == 1
        assert (await only_job(stage)).status is JobStatus.DELIVERED


async def test_a_job_that_took_the_process_down_twice_is_set_aside_and_its_author_told(tmp_path: Path) -> None:
    await left_running(tmp_path, times=2)
    async with open_stage(tmp_path) as stage:
        await stage.env.settle()
        assert not stage.generator.begun
        (told,) = stage.messages()  # the card of the first stage is gone
        assert "Set aside" in told.content
        assert stage.notified(told) == {stage.alice.id}


async def test_a_card_that_comes_late_shows_what_happened_meanwhile(stage: Stage) -> None:
    stage.detach()
    await stage.imagine()
    await eventually(lambda: "Done in" in text_of(stage.messages()[0]))
    job = replace(await only_job(stage), id=99, card_message_id=None, status=JobStatus.RUNNING)
    stage.kiln.delivery.started(job)
    await asyncio.sleep(0)
    late = await stage.bot.get_partial_messageable(stage.channel.id).send(view=card(say_in(None), job))
    stage.kiln.delivery.started(replace(job, status=JobStatus.CANCELLED))
    stage.kiln.delivery.card_shown(99, message_id=late.id)
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[-1]))


async def test_a_card_that_comes_after_the_end_shows_the_end(stage: Stage) -> None:
    """The answer of the command took longer than the drawing and the post."""
    await stage.imagine()
    job = replace(await only_job(stage), id=99, card_message_id=None)
    stage.kiln.delivery.cancelled(replace(job, status=JobStatus.CANCELLED))
    await stage.env.settle()
    late = await stage.bot.get_partial_messageable(stage.channel.id).send(view=card(say_in(None), job))
    stage.kiln.delivery.card_shown(99, message_id=late.id)
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[-1]))
    await eventually(lambda: 99 not in stage.kiln.delivery._showing._cards)


async def test_a_card_that_never_comes_is_forgotten_when_it_cannot_come_any_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.delivery.showing.CARD_COMES_WITHIN", timedelta(milliseconds=20))
    await stage.imagine()
    job = replace(await only_job(stage), id=99, card_message_id=None, status=JobStatus.CANCELLED)
    cards = stage.kiln.delivery._showing._cards
    stage.kiln.delivery.cancelled(job)
    assert 99 in cards
    await eventually(lambda: 99 not in cards)


async def test_a_card_that_could_not_be_recorded_still_moves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is locked while the second job's card is noted, and the job waits."""
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)

    async def locked(*_: Any, **__: Any) -> None:
        raise QueueUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(stage.kiln.queue, "record_card", locked)
        await stage.imagine("a red house")
    stage.kiln.dispatcher.cancel(1)
    await eventually(lambda: "Done in" in text_of(stage.messages()[1]))


async def none_unshown(stage: Stage) -> None:
    while await stage.kiln.queue.unshown():  # noqa: ASYNC110 - a row is nothing to await
        await asyncio.sleep(0.01)


async def test_a_failure_that_discord_did_not_take_is_told_once_by_the_next_starts(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as first:
        first.detach()
        first.env.inject_error("PATCH", "/channels/*/messages/*", status=500, times=None)
        await first.imagine("a broken house")
        async with asyncio.timeout(10):
            while (await only_job(first)).status is not JobStatus.FAILED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with open_stage(tmp_path) as second:  # the card of the first stage is gone
        await eventually(second.messages)
        assert "more memory" in second.messages()[0].content
        assert second.notified(second.messages()[0]) == {second.alice.id}
        await asyncio.wait_for(none_unshown(second), 10)
    async with open_stage(tmp_path) as third:
        await third.env.settle()
        assert third.messages() == []


async def test_a_job_set_aside_while_discord_was_away_is_told_at_the_next_start(tmp_path: Path) -> None:
    await left_running(tmp_path, times=2)
    settings = Settings(_env_file=None, data=tmp_path)  # type: ignore[call-arg]
    async with open_kiln(settings, load=FakeGenerator) as bot:  # never connects
        job = await bot.kiln.queue.job(1)
        assert job is not None
        assert job.status is JobStatus.QUARANTINED
    async with open_stage(tmp_path) as stage:
        (told,) = await eventually(stage.messages)
        assert "Set aside" in told.content
        assert stage.notified(told) == {stage.alice.id}


async def test_the_end_of_a_job_without_a_card_is_told_if_it_failed_and_else_only_noted(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data=tmp_path)  # type: ignore[call-arg]
    async with open_kiln(settings, load=FakeGenerator) as bot:
        queue = bot.kiln.queue
        for number in (1, 2, 3):
            await queue.submit(new_job(number))
        failed, drawn = await queue.claim(), await queue.claim()
        assert failed is not None
        assert drawn is not None
        await queue.record_failed(failed, reason="It broke.")
        await queue.record_drawn(drawn, picture="x", result=ImageResult(png=b"", sha256="", seconds=1.0, model="fake"))
        await queue.record_delivered(drawn.id, message_id=9)
        await queue.cancel(3, user_id=1)
        assert len(await queue.unshown()) == 3
    async with open_stage(tmp_path) as stage:
        await asyncio.wait_for(none_unshown(stage), 10)
        sent = [one.path for one in stage.env.http_requests if one.method == "POST" and one.path.endswith("/messages")]
        assert len(sent) == 1
