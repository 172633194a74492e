"""Words that a rule holds: two buttons in the log channel, before and after a restart, pressed by anybody, twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import discord
import pytest

from bot.asking.intake import is_age_restricted
from bot.client import create_bot
from bot.queue.job import JobStatus
from bot.servers.policy import Action, Rule, Where
from bot.servers.server import Act
from tests.bot.conftest import Stage, open_stage, said, text_of
from tests.bot.keepers import Keepers, enter


@pytest.fixture
def keepers(stage: Stage) -> Keepers:
    return enter(stage)


async def held(keepers: Keepers, prompt: str = "a fox", *, log: bool = True) -> discord.Message:
    """Ask for what a rule holds, and return the moderators' post of it."""
    if log:
        await keepers.change(log_channel_id=keepers.log.id)
    rule = Rule(words="fox", action=Action.HOLD)
    await keepers.stage.kiln.keepers.servers.add_rule(keepers.stage.guild.id, rule, actor_id=1)
    await keepers.stage.imagine(prompt)
    last = keepers.log.last_message() if callable(keepers.log.last_message) else keepers.log.last_message
    assert last is not None or not log
    return last  # type: ignore[return-value]


async def acts(keepers: Keepers) -> list[Act]:
    entries = await keepers.stage.kiln.keepers.audit.of_server(keepers.stage.guild.id, limit=50)
    return [entry.act for entry in reversed(entries)]


async def test_the_asker_is_told_that_it_is_held_and_the_moderators_see_the_words(keepers: Keepers) -> None:
    post = await held(keepers, "a *red* fox @everyone")
    (card,) = keepers.stage.messages()
    assert "Held: A moderator looks at your words first" in text_of(card)
    assert f"Job 1 of <@{keepers.stage.alice.id}> waits for your decision. A rule found: fox" in post.content
    assert r"**a \*red\* fox @" in post.content
    assert "@everyone" not in post.content
    assert keepers.stage.notified(post) == set()


async def test_its_owner_takes_a_held_job_back_by_the_button_on_its_card(keepers: Keepers) -> None:
    await held(keepers)
    (card,) = keepers.stage.messages()
    await keepers.stage.alice.click(card, custom_id="job:1:cancel")
    assert "Cancelled" in text_of(keepers.stage.messages()[0])
    job = await keepers.stage.kiln.queue.job(1)
    assert job is not None
    assert job.status is JobStatus.CANCELLED


async def test_approved_it_is_drawn_and_the_post_says_by_whom(keepers: Keepers) -> None:
    post = await held(keepers)
    await keepers.moderator.click(post, custom_id="review:1:approve")
    assert len(keepers.stage.pictures()) == 1
    assert "Done in" in text_of(keepers.stage.messages()[0])
    closed = next(message for message in keepers.log.history() if message.id == post.id)
    assert f"Job 1 is approved. (<@{keepers.moderator.id}>)" in closed.content
    assert closed.components == []
    assert (await acts(keepers))[-2:] == [Act.HOLD, Act.APPROVE]


async def test_denied_its_card_says_so_and_it_is_never_drawn(keepers: Keepers) -> None:
    post = await held(keepers)
    await keepers.moderator.click(post, custom_id="review:1:deny")
    (card,) = keepers.stage.messages()
    assert "Cancelled: A moderator did not approve of its words." in text_of(card)
    job = await keepers.stage.kiln.queue.job(1)
    assert job is not None
    assert job.status is JobStatus.CANCELLED


async def test_a_member_who_sees_the_log_channel_decides_nothing(keepers: Keepers) -> None:
    post = await held(keepers)
    result = await keepers.stage.alice.click(post, custom_id="review:1:approve")
    assert "You need the permission Timeout Members" in said(result)
    assert keepers.stage.pictures() == []


async def test_the_second_moderator_is_told_that_it_is_decided(keepers: Keepers) -> None:
    post = await held(keepers)
    await keepers.stage.kiln.keepers.moderation.decide(keepers.stage.guild.id, 1, actor_id=5, approve=False)
    result = await keepers.moderator.click(post, custom_id="review:1:approve")
    told = text_of(result.followups[0])
    assert "Job 1 waits for no decision: it is cancelled." in told
    closed = next(message for message in keepers.log.history() if message.id == post.id)
    assert closed.components == []


async def test_what_its_owner_took_back_can_not_be_approved(keepers: Keepers) -> None:
    post = await held(keepers)
    await keepers.stage.alice.slash(keepers.stage.channel, "cancel", job=1)
    result = await keepers.moderator.click(post, custom_id="review:1:approve")
    assert "it is cancelled" in text_of(result.followups[0])
    assert keepers.stage.pictures() == []


async def test_the_buttons_work_after_a_restart(keepers: Keepers) -> None:
    post = await held(keepers)
    await keepers.stage.env.restart_bot(create_bot(keepers.stage.kiln))
    await keepers.moderator.click(post, custom_id="review:1:approve")
    assert len(keepers.stage.pictures()) == 1


async def test_a_review_that_no_channel_heard_of_comes_with_the_first_log_channel(keepers: Keepers) -> None:
    await held(keepers, log=False)
    assert keepers.log.history() == []
    await keepers.use(await keepers.panel(), "log", keepers.log)
    posts = keepers.log.history()
    post = next(post for post in posts if "waits for your decision" in post.content)
    await keepers.moderator.click(post, custom_id="review:1:approve")
    assert len(keepers.stage.pictures()) == 1


async def test_a_post_that_a_dying_process_did_not_make_is_made_by_the_next(tmp_path: Path) -> None:
    async with open_stage(tmp_path / "data") as stage:
        keepers = enter(stage)
        stage.kiln.keepers.log_channel._client = None  # it dies before it posts
        await keepers.change(log_channel_id=keepers.log.id)
        await held(keepers, log=False)
        assert keepers.log.history() == []
        await stage.env.restart_bot(create_bot(stage.kiln))
        assert any("waits for your decision" in post for post in keepers.posts())


async def test_a_flagged_prompt_is_drawn_and_heard(keepers: Keepers) -> None:
    await keepers.change(log_channel_id=keepers.log.id)
    rule = Rule(words="fox", action=Action.FLAG)
    await keepers.stage.kiln.keepers.servers.add_rule(keepers.stage.guild.id, rule, actor_id=1)
    await keepers.stage.imagine("a fox")
    assert len(keepers.stage.pictures()) == 1
    assert any("Job 1 of" in post and "is drawn. A rule found: fox" in post for post in keepers.posts())


async def test_an_age_restricted_channel_and_its_threads_have_their_own_rules(keepers: Keepers) -> None:
    stage = keepers.stage
    rule = Rule(words="fox", action=Action.REFUSE, where=Where.OPEN)
    await stage.kiln.keepers.servers.add_rule(stage.guild.id, rule, actor_id=1)
    assert "refuses these words here: fox" in said(await stage.imagine("a fox"))
    channel = stage.bot.get_channel(stage.channel.id)
    assert isinstance(channel, discord.TextChannel)
    channel.nsfw = True
    thread = await channel.create_thread(name="deep", type=discord.ChannelType.public_thread)
    assert thread.is_nsfw()
    assert is_age_restricted(thread)
    assert is_age_restricted(channel)
    channel.nsfw = False
    assert not is_age_restricted(thread)


async def test_two_moderators_at_once_decide_once(keepers: Keepers) -> None:
    await held(keepers)
    decide = keepers.stage.kiln.keepers.moderation.decide
    both = [decide(keepers.stage.guild.id, 1, actor_id=by, approve=True) for by in (5, 6)]
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(answer, Exception) for answer in answers) == 1
