"""Where a picture goes when its channel does not take it, and what is remembered of that."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import discord
import pytest
from simcord import ChannelHandle

from bot.background import PAUSE_MAX
from bot.delivery.posting import NO_MESSAGES_HERE, Poster, Unsure
from bot.queue.job import Job, JobStatus
from bot.queue.outbox import DEAD_FOR
from tests.bot.conftest import Stage, eventually, open_stage, text_of


def post_to(channel_id: int) -> tuple[str, str]:
    return "POST", f"/channels/{channel_id}/messages"


def forbid(stage: Stage, channel_id: int | str = "*") -> None:
    stage.env.inject_error("POST", f"/channels/{channel_id}/messages", status=403, code=50013, times=None)


def posts(stage: Stage, channel_id: int | None = None) -> int:
    path = post_to(channel_id)[1] if channel_id else "/messages"
    return sum(one.method == "POST" and one.path.endswith(path) for one in stage.env.http_requests)


async def job_of(stage: Stage, number: int = 1) -> Job:
    job = await stage.kiln.queue.job(number)
    assert job is not None
    return job


async def open_thread(stage: Stage) -> ChannelHandle:
    channel = stage.bot.get_channel(stage.channel.id)
    assert isinstance(channel, discord.TextChannel)
    made = await channel.create_thread(name="a thread", type=discord.ChannelType.public_thread)
    (thread,) = [one for one in stage.channel.threads if one.id == made.id]
    return thread


def outbox(stage: Stage) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(stage.settings.database)) as raw:
        return raw.execute("SELECT job_id, state, attempts, tried_channel_id, error FROM outbox").fetchall()


def spend(stage: Stage) -> tuple[int, float]:
    """What the first person was charged: microseconds of the GPU, and seconds of the day's budget."""
    with closing(sqlite3.connect(stage.settings.database)) as raw:
        ((vtime,),) = raw.execute("SELECT vtime FROM accounts WHERE name LIKE 'user:%'").fetchall()
        ((budget,),) = raw.execute("SELECT budget_seconds FROM users").fetchall()
        return vtime, budget


async def test_a_picture_from_a_closed_thread_goes_to_the_channel_above_it(stage: Stage) -> None:
    thread = await open_thread(stage)
    stage.env.inject_error(*post_to(thread.id), status=400, code=50083, times=None)  # archived, and locked
    await stage.alice.slash(thread, "imagine", prompt="a fox")
    (picture,) = stage.pictures()
    assert f"may not post in <#{thread.id}>" in picture.content
    job = await job_of(stage)
    assert (job.status, job.result_message_id) == (JobStatus.DELIVERED, picture.id)
    assert job.parent_channel_id == stage.channel.id
    assert posts(stage, thread.id) == 1
    card = next(one for one in stage.messages(thread) if "fox" in text_of(one))
    assert f"/{stage.guild.id}/{stage.channel.id}/{picture.id}" in text_of(card)


async def test_just_after_the_start_a_large_picture_waits_for_its_servers_own_limit(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, usual = list[bool](), stage.bot.get_guild

    async def becomes_ready() -> None:
        ready.append(True)

    stage.kiln.keepers.log_channel._client = None  # which waits for the same
    monkeypatch.setattr("bot.delivery.ladder.UPLOAD_LIMIT", 100)  # bytes, for any server that is not known
    monkeypatch.setattr(stage.bot, "get_guild", lambda number: usual(number) if ready else None)
    monkeypatch.setattr(stage.bot, "wait_until_ready", becomes_ready)
    await stage.imagine()
    assert stage.pictures()[0].attachments[0].filename.endswith(".png")


async def test_from_a_thread_under_a_closed_channel_it_goes_to_its_author(stage: Stage) -> None:
    thread = await open_thread(stage)
    for channel in (thread, stage.channel):
        forbid(stage, channel.id)
    await stage.alice.slash(thread, "imagine", prompt="a fox")
    assert len(stage.pictures(stage.alice.user.dm_channel)) == 1
    assert (posts(stage, thread.id), posts(stage, stage.channel.id)) == (1, 1)


@pytest.mark.parametrize("code", sorted(NO_MESSAGES_HERE))
async def test_where_nobody_can_post_at_all_as_in_a_forum_it_goes_to_its_author(stage: Stage, code: int) -> None:
    thread = await open_thread(stage)
    stage.env.inject_error(*post_to(thread.id), status=404, code=10003, times=None)
    stage.env.inject_error(*post_to(stage.channel.id), status=400, code=code, times=None)
    await stage.alice.slash(thread, "imagine", prompt="a fox")
    assert len(stage.pictures(stage.alice.user.dm_channel)) == 1


async def test_a_picture_that_nobody_takes_is_kept_and_costs_nothing(tmp_path: Path) -> None:
    async with open_stage(tmp_path, gpu_seconds_per_day=1000, burst=1, pictures_per_hour=1) as stage:
        forbid(stage)
        await stage.imagine()
        job = await job_of(stage)
        assert job.status is JobStatus.KEPT
        assert job.picture is not None
        assert (stage.settings.data / job.picture).exists()
        assert "not delivered" in text_of(stage.messages()[0])
        assert "neither in" in text_of(stage.messages()[0])
        assert "cost you nothing" in text_of(stage.messages()[0])
        assert spend(stage) == (0, 0.0)
        assert outbox(stage) == []
        await stage.imagine()  # the only one of this hour: the first gave its place back
        assert (await job_of(stage, 2)).status is JobStatus.KEPT
    async with open_stage(tmp_path) as again:
        await again.env.settle()
        assert again.pictures() == []  # it is over


async def test_an_author_who_takes_no_direct_messages_is_not_asked_to_open_one_again(stage: Stage) -> None:
    forbid(stage, stage.channel.id)
    stage.env.inject_error("POST", "/users/@me/channels", status=403, code=50007, times=None)
    await stage.imagine()
    assert (await job_of(stage)).status is JobStatus.KEPT
    assert sum(one.path == "/users/@me/channels" for one in stage.env.http_requests) == 1


async def test_a_direct_message_that_opens_at_the_second_try_is_sent(stage: Stage) -> None:
    forbid(stage, stage.channel.id)
    stage.env.inject_error("POST", "/users/@me/channels", status=503, times=1)
    await stage.imagine()
    assert len(stage.pictures(stage.alice.user.dm_channel)) == 1


async def test_a_dead_channel_is_remembered_over_a_restart_and_asked_again_after_an_hour(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        forbid(stage, stage.channel.id)
        for _ in range(3):
            await stage.imagine()
        assert posts(stage, stage.channel.id) == 1
    async with open_stage(tmp_path) as stage:
        while not stage.pictures(stage.alice.user.dm_channel):
            await stage.imagine()  # the first have the ids of interactions of before
        assert stage.pictures() == []
        now = stage.kiln.queue.now
        stage.kiln.queue.outbox._now = lambda: now() + DEAD_FOR + timedelta(seconds=1)
        while not stage.pictures():
            await stage.imagine()
        assert posts(stage, stage.channel.id) == 1


async def test_a_clock_that_was_set_back_does_not_keep_a_channel_dead(stage: Stage) -> None:
    remembers, now = stage.kiln.queue.outbox, stage.kiln.queue.now
    await stage.imagine()
    await remembers.refuse(1, channel_id=5, error="x")
    assert await remembers.is_dead(5)
    remembers._now = lambda: now() - timedelta(days=1)
    assert not await remembers.is_dead(5)


async def test_before_each_try_the_outbox_says_where_a_message_may_stand(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = Poster._send

    async def look(self: Poster, *args: Any, **rest: Any) -> Any:
        seen.extend(outbox(stage))
        return await original(self, *args, **rest)

    monkeypatch.setattr(Poster, "_send", look)
    stage.env.inject_error("POST", "/channels/*/messages", status=500, times=1)
    await stage.imagine()
    first, second = seen
    assert first == (1, "sending", 1, stage.channel.id, None)
    assert second[:4] == (1, "sending", 2, stage.channel.id)
    assert "500" in str(second[4])
    assert outbox(stage) == []


async def put_in_doubt(stage: Stage, *, tried: int | None) -> Job:
    """Job 1 was posted, and Kiln does not know it; `tried` says where it may stand."""
    await stage.imagine()
    with closing(sqlite3.connect(stage.settings.database)) as raw, raw:
        raw.execute("UPDATE jobs SET status = 'drawn', result_message_id = NULL")
        letter = (1, "x", "waiting" if tried is None else "sending", tried)
        raw.execute("INSERT INTO outbox (job_id, nonce, state, tried_channel_id) VALUES (?, ?, ?, ?)", letter)
    return await job_of(stage)


async def is_over(stage: Stage) -> Job:
    while (job := await job_of(stage)).status is JobStatus.DRAWN:  # noqa: ASYNC110 - a row is nothing to await
        await asyncio.sleep(0.01)
    return job


async def test_where_the_history_cannot_be_read_a_reply_in_doubt_is_never_sent_again(stage: Stage) -> None:
    job = await put_in_doubt(stage, tried=stage.channel.id)
    stage.env.inject_error("GET", f"/channels/{stage.channel.id}/messages", status=403, code=50001, times=None)
    stage.kiln.delivery.drawn(job)
    job = await asyncio.wait_for(is_over(stage), 10)
    assert job.status is JobStatus.REPLY_UNKNOWN
    assert "may not look any more" in str(job.reason)
    assert len(stage.pictures()) == 1
    await eventually(lambda: "may not look any more" in text_of(stage.messages()[0]))
    stage.kiln.delivery.connect(stage.bot)  # as the next start does
    await stage.env.settle()
    assert len(stage.pictures()) == 1


async def test_a_reply_in_doubt_is_looked_for_until_discord_answers(stage: Stage) -> None:
    job = await put_in_doubt(stage, tried=stage.channel.id)
    stage.env.inject_error("GET", f"/channels/{stage.channel.id}/messages", status=502, times=2)
    stage.kiln.delivery.drawn(job)
    job = await asyncio.wait_for(is_over(stage), 10)
    assert (job.status, job.result_message_id) == (JobStatus.DELIVERED, stage.pictures()[0].id)
    assert len(stage.pictures()) == 1


async def test_a_reply_in_doubt_in_a_channel_that_is_gone_goes_on_down_the_ladder(stage: Stage) -> None:
    job = await put_in_doubt(stage, tried=stage.channel.id)
    stage.env.inject_error("GET", f"/channels/{stage.channel.id}/messages", status=404, code=10003, times=None)
    stage.env.inject_error(*post_to(stage.channel.id), status=404, code=10003, times=None)
    stage.kiln.delivery.drawn(job)
    await eventually(lambda: stage.pictures(stage.alice.user.dm_channel))


async def test_in_an_archived_thread_the_rights_of_the_channel_above_say_if_its_history_can_be_read(
    stage: Stage,
) -> None:
    assert stage.bot.user is not None
    unreadable = discord.PermissionOverwrite(read_message_history=False)
    above = stage.guild.create_text_channel("short memory", overwrites={stage.bot.user: unreadable})
    await stage.imagine()
    job = replace(await job_of(stage), channel_id=12345, parent_channel_id=above.id)  # not among the threads it knows
    with pytest.raises(Unsure, match="Read Message History in <#12345>"):
        await Poster(stage.bot).find(job, channel_id=12345)


async def test_a_channel_that_closes_after_a_lost_answer_is_searched_before_the_picture_moves_on(stage: Stage) -> None:
    """The first send took effect, its answer was a 500; the second is forbidden."""
    job = await put_in_doubt(stage, tried=None)
    stage.env.inject_error("POST", "/channels/*/messages", status=500, times=1)
    forbid(stage)
    stage.kiln.delivery.drawn(job)
    job = await asyncio.wait_for(is_over(stage), 10)
    assert (job.status, job.result_message_id) == (JobStatus.DELIVERED, stage.pictures()[0].id)
    assert len(stage.pictures()) == 1


async def test_a_channel_that_closes_after_a_lost_answer_without_effect_sends_the_picture_on(stage: Stage) -> None:
    stage.env.inject_error("POST", "/channels/*/messages", status=500, times=1)
    forbid(stage, stage.channel.id)
    await stage.imagine()
    assert len(stage.pictures(stage.alice.user.dm_channel)) == 1


async def test_the_next_try_is_waited_for_also_by_another_process_but_never_long(stage: Stage) -> None:
    stage.env.inject_error("POST", "/channels/*/messages", status=401, times=1)
    await stage.imagine()
    queue = stage.kiln.queue
    await queue.outbox.postpone(1, pause=timedelta(seconds=60), error="503")
    (letter,) = await queue.outbox.letters(1)
    assert letter.nonce == f"1-{letter.job.interaction_id % 10**12}"
    assert 55 < letter.pause(queue.now()) <= 60
    assert letter.pause(queue.now() + timedelta(days=1)) == 0
    assert letter.pause(queue.now() - timedelta(days=1)) == 1.5 * PAUSE_MAX


async def test_what_is_over_is_not_closed_again(stage: Stage) -> None:
    await stage.imagine()
    assert await stage.kiln.queue.outbox.keep(1, reason="x") is None
    assert await stage.kiln.queue.outbox.give_up(77, reason="x") is None
    assert (await job_of(stage)).status is JobStatus.DELIVERED


async def test_a_picture_that_fits_nowhere_is_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.delivery.posting.largest_fitting", lambda *_, **__: None)
    await stage.imagine()
    job = await job_of(stage)
    assert (job.status, job.reason) == (JobStatus.KEPT, "The picture's file is too large for this server.")
