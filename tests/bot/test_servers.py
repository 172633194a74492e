"""What a server's keepers choose holds for the next job, and what moderators do is done and written down at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bot.errors import (
    Banned,
    BudgetSpent,
    NotAllowed,
    PromptRefused,
    QueueFull,
    Refusal,
    ServerBudgetSpent,
    WrongChannel,
)
from bot.queue.job import Job, JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.servers.audit import Audit
from bot.servers.moderation import REPORTS_A_DAY, Moderation
from bot.servers.policy import RULES_MAX, Action, Rule, Where
from bot.servers.server import EVERYWHERE, Act, Ban, Entry, HeldFor, LoraAccess, ServerSettings, Standing
from bot.servers.servers import Servers
from bot.storage.database import Database, open_database
from gen.request import ImageResult, LoraUse
from tests.bot.conftest import PLENTY
from tests.fakes import Clock, image_request, new_job

GUILD, OTHER, CHANNEL, MOD, USER = 10, 11, 20, 99, 1


@pytest.fixture
def servers(database: Database, clock: Clock) -> Servers:
    return Servers(database, now=clock)


@pytest.fixture
def moderation(database: Database, clock: Clock, queue: JobQueue) -> Moderation:
    return Moderation(database, now=clock, moved=queue.moved)


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


async def acts(audit: Audit, guild: int = GUILD) -> list[Act]:
    return [entry.act for entry in reversed(await audit.of_server(guild, limit=100))]


def ban(clock: Clock, *, guild: int = GUILD, seconds: float | None = None, reason: str = "spam") -> Ban:
    until = None if seconds is None else clock() + timedelta(seconds=seconds)
    return Ban(guild_id=guild, user_id=USER, reason=reason, until=until, by_id=MOD, at=clock())


async def change(servers: Servers, **changes: Any) -> ServerSettings:
    return await servers.change(GUILD, actor_id=MOD, **changes)


# Settings


async def test_settings_outlive_the_process_and_each_change_is_noted_with_old_and_new(path: Path, clock: Clock) -> None:
    async with open_database(path) as database:
        await change(Servers(database, now=clock), channel_ids=(3, 4), steps_max=9, lora_access=LoraAccess.ROLES)
        await change(Servers(database, now=clock), steps_max=None, channel_ids=(3, 4))
    async with open_database(path) as database:
        settings = await Servers(database, now=clock).settings(GUILD)
        assert settings == ServerSettings(guild_id=GUILD, channel_ids=(3, 4), lora_access=LoraAccess.ROLES)
        entries = await Audit(database).of_server(GUILD, limit=9)
    said = [(entry.values["setting"], entry.values["old"], entry.values["new"]) for entry in reversed(entries)]
    assert said == [
        ("channel_ids", [], [3, 4]),
        ("steps_max", None, 9),
        ("lora_access", "everyone", "roles"),
        ("steps_max", 9, None),
    ]
    assert {entry.actor_id for entry in entries} == {MOD}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"burst": 0}, "burst must be from 1 to 3600; it is 0"),
        ({"pictures_per_hour": 3601}, "pictures_per_hour must be from 1 to 3600; it is 3601"),
        ({"gpu_seconds_per_day": float("nan")}, "gpu_seconds_per_day must be from 0"),
        ({"steps_max": 51}, "steps_max must be from 1 to 50; it is 51"),
        ({"size_max": "big"}, "size_max must be a size such as 1024x768; it is 'big'"),
        ({"default_style": "x" * 81}, "default_style must have 1 to 80 characters"),
    ],
)
async def test_settings_that_no_server_can_have_are_refused_and_nothing_is_stored(
    servers: Servers, audit: Audit, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        await change(servers, private_allowed=False, **wrong)
    assert await servers.settings(GUILD) == ServerSettings(guild_id=GUILD)
    assert await acts(audit) == []


@pytest.mark.parametrize(
    ("setting", "job", "refusal", "words"),
    [
        ({"channel_ids": (5, 6)}, {}, WrongChannel, "other channels: <#5>, <#6>"),
        ({"size_max": "128x112"}, {}, NotAllowed, r"128x112 \(14,336 pixels\); 128x128 has 16,384"),
        ({"steps_max": 3}, {}, NotAllowed, "may take 3 steps; you asked for 4"),
        ({"private_allowed": False}, {"private": True}, NotAllowed, "no private pictures"),
        ({"standing": Standing.DRAINED}, {}, Refusal, "takes no new pictures"),
    ],
)
async def test_a_setting_refuses_what_is_outside_it_in_its_server_alone(
    servers: Servers,
    queue: JobQueue,
    setting: dict[str, Any],
    job: dict[str, Any],
    refusal: type[Exception],
    words: str,
) -> None:
    new = replace(new_job(1), **job)
    await change(servers, **setting)
    with pytest.raises(refusal, match=words):
        await queue.submit(new)
    assert (await queue.overview()).waiting == 0
    await queue.submit(replace(new, guild_id=OTHER))


@pytest.mark.parametrize(
    ("access", "roles", "words"),
    [
        (LoraAccess.NOBODY, (70,), "Nobody may use LoRAs"),
        (LoraAccess.ROLES, (71,), "one of these roles: <@&70>"),
        (LoraAccess.ROLES, (70, 71), None),
        (LoraAccess.EVERYONE, (), None),
    ],
)
async def test_loras_are_for_whom_the_server_says(
    servers: Servers, queue: JobQueue, access: LoraAccess, roles: tuple[int, ...], words: str | None
) -> None:
    await change(servers, lora_access=access, lora_role_ids=(70,))
    request = image_request(loras=(LoraUse(name="ink", strength=1.0),))
    asked = queue.submit(replace(new_job(1), request=request, role_ids=roles))
    if words is None:
        await asked
    else:
        with pytest.raises(NotAllowed, match=words):
            await asked
    await queue.submit(new_job(2))


async def test_where_every_role_that_may_use_loras_is_gone_nobody_may_and_is_told_so(
    servers: Servers, queue: JobQueue
) -> None:
    await change(servers, lora_access=LoraAccess.ROLES, lora_role_ids=(70,))
    await servers.forget_role(GUILD, 70, name="painters")
    request = image_request(loras=(LoraUse(name="ink", strength=1.0),))
    with pytest.raises(NotAllowed, match="Nobody may use LoRAs"):
        await queue.submit(replace(new_job(1), request=request, role_ids=(70,)))


async def test_a_chosen_channel_speaks_for_its_threads(servers: Servers, queue: JobQueue) -> None:
    await change(servers, channel_ids=(CHANNEL,))
    await queue.submit(new_job(1))
    await queue.submit(replace(new_job(2), channel_id=77, parent_channel_id=CHANNEL))
    with pytest.raises(WrongChannel):
        await queue.submit(replace(new_job(3), channel_id=77, parent_channel_id=78))


async def test_a_servers_limits_take_the_place_of_the_hosts_and_roles_go_before_both(
    database: Database, servers: Servers, clock: Clock
) -> None:
    from bot.queue.roles import Roles, RoleTerms

    queue = JobQueue(database, limits=PLENTY, now=clock)
    await change(servers, waiting_per_user=1)
    await queue.submit(new_job(1))
    with pytest.raises(QueueFull, match="1 may"):
        await queue.submit(new_job(2))
    await Roles(database).set(RoleTerms(guild_id=GUILD, role_id=70, waiting_per_user=2))
    await queue.submit(replace(new_job(2), role_ids=(70,)))


async def test_simultaneous_jobs_never_pass_the_days_budget_of_a_server(
    database: Database, servers: Servers, clock: Clock
) -> None:
    queue = JobQueue(database, limits=PLENTY, now=clock, prior=1 / (128 * 128 * 4))  # a job takes a second
    await change(servers, server_gpu_seconds_per_day=3.5)
    asked = [queue.submit(new_job(number, user_id=number)) for number in range(1, 7)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, Job) for answer in answers) == 3
    refused = next(answer for answer in answers if isinstance(answer, ServerBudgetSpent))
    assert "about 1 s of the GPU, and 0 s of the 3.5 s a day" in str(refused)
    await queue.submit(replace(new_job(8), guild_id=OTHER))
    clock.move(24 * 3600)
    await queue.submit(new_job(9))


async def test_a_servers_budget_counts_what_was_used_and_not_what_was_thought(
    database: Database, servers: Servers, clock: Clock
) -> None:
    queue = JobQueue(database, limits=PLENTY, now=clock, prior=1 / (128 * 128 * 4))
    await change(servers, server_gpu_seconds_per_day=2.0)
    await queue.submit(new_job(1))
    job = await queue.claim()
    assert job is not None
    await queue.record_drawn(job, picture="x", result=ImageResult(png=b"", sha256="", seconds=0.1, model="fake"))
    second = await queue.submit(new_job(2))
    await queue.cancel(second.id, user_id=USER)
    used = await database.read(lambda session: session.scalar(text("SELECT budget_seconds FROM servers")))
    assert used == pytest.approx(0.1)


# Rules


async def test_a_rule_refuses_in_its_server_and_its_kind_of_channel(servers: Servers, queue: JobQueue) -> None:
    await servers.add_rule(GUILD, Rule(words="fox", action=Action.REFUSE, where=Where.OPEN), actor_id=MOD)
    fox = replace(new_job(1), request=image_request("a F0X"))
    with pytest.raises(PromptRefused, match="these words here: fox"):
        await queue.submit(fox)
    await queue.submit(replace(fox, age_restricted=True))
    await queue.submit(replace(fox, interaction_id=2, guild_id=OTHER))


async def test_no_server_can_allow_what_is_always_refused(servers: Servers, queue: JobQueue) -> None:
    await change(servers, default_rules=False)
    for restricted in (False, True):
        with pytest.raises(PromptRefused, match="no sexual pictures of minors"):
            await queue.submit(replace(new_job(1), request=image_request("a nude child"), age_restricted=restricted))
    await queue.submit(replace(new_job(1), request=image_request("a nude")))


async def test_rules_are_listed_noted_and_removed(servers: Servers, audit: Audit) -> None:
    rule = await servers.add_rule(GUILD, Rule(words="a | b", action=Action.HOLD), actor_id=MOD)
    with pytest.raises(Refusal, match="already"):
        await servers.add_rule(GUILD, Rule(words="a | b", action=Action.FLAG), actor_id=MOD)
    assert await servers.rules(GUILD) == (rule,)
    with pytest.raises(Refusal, match="gone already"):
        await servers.remove_rule(OTHER, rule.id, actor_id=MOD)
    await servers.remove_rule(GUILD, rule.id, actor_id=MOD)
    assert await servers.rules(GUILD) == ()
    assert await acts(audit) == [Act.RULE_ADDED, Act.RULE_REMOVED]


async def test_a_server_has_a_hundred_rules_at_most(servers: Servers) -> None:
    for number in range(RULES_MAX):
        await servers.add_rule(GUILD, Rule(words=f"word{number}", action=Action.FLAG), actor_id=MOD)
    with pytest.raises(Refusal, match="100 rules; this one has 100"):
        await servers.add_rule(GUILD, Rule(words="more", action=Action.FLAG), actor_id=MOD)


# Review


async def hold_one(servers: Servers, queue: JobQueue, number: int = 1) -> Job:
    if not await servers.rules(GUILD):
        await servers.add_rule(GUILD, Rule(words="fox", action=Action.HOLD), actor_id=MOD)
    return await queue.submit(replace(new_job(number), request=image_request("a fox")))


async def test_a_held_job_waits_outside_the_line_until_it_is_approved(
    servers: Servers, queue: JobQueue, moderation: Moderation, audit: Audit
) -> None:
    job = await hold_one(servers, queue)
    assert job.status is JobStatus.HELD
    assert "moderator" in (job.reason or "")
    assert await queue.claim() is None
    assert [mine.id for mine in await queue.active_jobs(USER)] == [job.id]
    approved = await moderation.decide(GUILD, job.id, actor_id=MOD, approve=True)
    assert (approved.status, approved.reason) == (JobStatus.QUEUED, None)
    assert (claimed := await queue.claim()) is not None
    assert claimed.id == job.id
    assert await acts(audit) == [Act.RULE_ADDED, Act.HOLD, Act.APPROVE]


async def test_a_denied_job_is_over_and_costs_nothing(database: Database, clock: Clock, servers: Servers) -> None:
    queue = JobQueue(database, limits=Limits(burst=1, pictures_per_hour=1, gpu_seconds_per_day=100), now=clock)
    moderation = Moderation(database, now=clock, moved=queue.moved)
    job = await hold_one(servers, queue)
    denied = await moderation.decide(GUILD, job.id, actor_id=MOD, approve=False)
    assert denied.status is JobStatus.CANCELLED
    assert denied.reason == "A moderator did not approve of its words."
    assert [left.id for left in await queue.unshown()] == [job.id]
    await queue.submit(new_job(2))


async def test_a_job_is_decided_once_and_only_by_its_server(
    servers: Servers, queue: JobQueue, moderation: Moderation
) -> None:
    job = await hold_one(servers, queue)
    with pytest.raises(NotAllowed, match=f"no job {job.id}"):
        await moderation.decide(OTHER, job.id, actor_id=MOD, approve=True)
    decisions = [moderation.decide(GUILD, job.id, actor_id=MOD, approve=approve) for approve in (True, False)]
    answers = await asyncio.gather(*decisions, return_exceptions=True)
    assert sum(isinstance(answer, Refusal) for answer in answers) == 1
    with pytest.raises(NotAllowed):
        await moderation.decide(GUILD, 999, actor_id=MOD, approve=True)


async def test_held_jobs_count_for_the_cap_and_can_be_taken_back(
    database: Database, clock: Clock, servers: Servers
) -> None:
    queue = JobQueue(database, limits=replace(PLENTY, waiting_per_user=1), now=clock)
    job = await hold_one(servers, queue)
    with pytest.raises(QueueFull):
        await queue.submit(new_job(2))
    assert (await queue.cancel(job.id, user_id=USER)).status is JobStatus.CANCELLED
    await queue.submit(new_job(2))
    assert await database.read(lambda session: session.scalar(text("SELECT count(*) FROM held"))) == 0


async def test_a_flagged_job_is_drawn_and_the_log_hears_of_it(servers: Servers, queue: JobQueue, audit: Audit) -> None:
    await servers.add_rule(GUILD, Rule(words="fox", action=Action.FLAG), actor_id=MOD)
    job = await queue.submit(replace(new_job(1), request=image_request("a fox")))
    assert job.status is JobStatus.QUEUED
    entry, *_ = await audit.of_server(GUILD, limit=1)
    assert (entry.act, entry.job_id, entry.user_id, entry.values) == (Act.FLAG, job.id, USER, {"rule": "fox"})


async def test_a_held_job_survives_a_restart(path: Path, clock: Clock) -> None:
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        job = await hold_one(Servers(database, now=clock), queue)
    async with open_database(path) as database:
        queue = JobQueue(database, limits=PLENTY, now=clock)
        await queue.recover()
        assert await queue.claim() is None
        moderation = Moderation(database, now=clock, moved=queue.moved)
        await moderation.decide(GUILD, job.id, actor_id=MOD, approve=True)
        assert await queue.claim() is not None


# Bans


async def test_a_ban_keeps_out_until_its_end_and_says_why(
    queue: JobQueue, moderation: Moderation, clock: Clock
) -> None:
    await moderation.ban(ban(clock, seconds=60, reason="*spam* @everyone"))
    with pytest.raises(Banned, match=r"in this server before <t:1767225660:f>. Reason: \\\*spam\\\* @\u200beveryone"):
        await queue.submit(new_job(1))
    await queue.submit(replace(new_job(1), guild_id=OTHER))
    clock.move(61)
    await queue.submit(new_job(2))


async def test_the_hosts_ban_holds_everywhere(queue: JobQueue, moderation: Moderation, clock: Clock) -> None:
    await moderation.ban(ban(clock, guild=EVERYWHERE))
    for guild in (GUILD, OTHER):
        with pytest.raises(Banned, match=r"You may not use Kiln everywhere\. Reason: spam"):
            await queue.submit(replace(new_job(1), guild_id=guild))


async def test_bans_are_listed_replaced_lifted_and_noted(moderation: Moderation, clock: Clock, audit: Audit) -> None:
    await moderation.ban(ban(clock))
    await moderation.ban(ban(clock, seconds=60, reason="again"))
    assert [found.reason for found in await moderation.bans(GUILD)] == ["again"]
    await moderation.unban(GUILD, USER, actor_id=MOD)
    with pytest.raises(Refusal, match="<@1> is not banned"):
        await moderation.unban(GUILD, USER, actor_id=MOD)
    assert await moderation.bans(GUILD) == ()
    assert await acts(audit) == [Act.BAN, Act.BAN, Act.UNBAN]


# Standing still


async def test_a_paused_server_waits_while_others_are_drawn_and_goes_on_where_it_was(
    queue: JobQueue, moderation: Moderation
) -> None:
    first = await queue.submit(new_job(1))
    assert len(await moderation.stand(GUILD, Standing.PAUSED, actor_id=MOD)) == 1
    second = await queue.submit(new_job(2))
    assert second.status is JobStatus.HELD
    assert "paused" in (second.reason or "")
    other = await queue.submit(replace(new_job(3, user_id=2), guild_id=OTHER))
    assert (claimed := await queue.claim()) is not None
    assert claimed.id == other.id
    assert await queue.claim() is None
    assert len(await moderation.stand(GUILD, Standing.OPEN, actor_id=MOD)) == 2
    claims = [await queue.claim(), await queue.claim()]
    assert [job and job.id for job in claims] == [first.id, second.id]


async def test_a_drained_server_draws_what_waits_and_takes_nothing_new(
    queue: JobQueue, moderation: Moderation, audit: Audit
) -> None:
    await queue.submit(new_job(1))
    await moderation.stand(GUILD, Standing.DRAINED, actor_id=MOD)
    with pytest.raises(Refusal, match="no new pictures"):
        await queue.submit(new_job(2))
    assert await queue.claim() is not None
    with pytest.raises(Refusal, match="drained already"):
        await moderation.stand(GUILD, Standing.DRAINED, actor_id=MOD)
    await moderation.stand(GUILD, Standing.OPEN, actor_id=MOD)
    await queue.submit(new_job(2))
    assert await acts(audit) == [Act.DRAIN, Act.RESUME]


async def test_the_hosts_pause_claims_nothing_and_loses_nothing(queue: JobQueue, moderation: Moderation) -> None:
    await moderation.stand(EVERYWHERE, Standing.PAUSED, actor_id=MOD)
    job = await queue.submit(new_job(1))
    assert job.status is JobStatus.QUEUED
    assert await queue.claim() is None
    await moderation.stand(EVERYWHERE, Standing.OPEN, actor_id=MOD)
    assert await queue.claim() is not None


async def test_the_hosts_drain_refuses_in_every_server(queue: JobQueue, moderation: Moderation) -> None:
    await moderation.stand(EVERYWHERE, Standing.DRAINED, actor_id=MOD)
    for guild in (GUILD, OTHER):
        with pytest.raises(Refusal, match="no new pictures for now"):
            await queue.submit(replace(new_job(1), guild_id=guild))


async def test_what_is_approved_in_a_pause_waits_for_its_end(
    servers: Servers, queue: JobQueue, moderation: Moderation
) -> None:
    job = await hold_one(servers, queue)
    await moderation.stand(GUILD, Standing.PAUSED, actor_id=MOD)
    assert (await moderation.decide(GUILD, job.id, actor_id=MOD, approve=True)).status is JobStatus.HELD
    await moderation.stand(GUILD, Standing.OPEN, actor_id=MOD)
    assert await queue.claim() is not None


async def test_a_job_that_only_waits_for_a_pause_to_end_is_not_to_be_decided(
    queue: JobQueue, moderation: Moderation
) -> None:
    job = await queue.submit(new_job(1))
    await moderation.stand(GUILD, Standing.PAUSED, actor_id=MOD)
    with pytest.raises(Refusal, match="waits for no decision: it is held"):
        await moderation.decide(GUILD, job.id, actor_id=MOD, approve=True)


async def test_a_pause_does_not_release_what_waits_for_a_review(
    servers: Servers, queue: JobQueue, moderation: Moderation
) -> None:
    await hold_one(servers, queue)
    await moderation.stand(GUILD, Standing.PAUSED, actor_id=MOD)
    assert await moderation.stand(GUILD, Standing.OPEN, actor_id=MOD) == ()
    assert await queue.claim() is None


# Wipe, reset, look, report


async def test_wipe_cancels_what_somebody_has_waiting_here_and_no_more(
    servers: Servers, queue: JobQueue, moderation: Moderation, audit: Audit
) -> None:
    running = await queue.submit(new_job(1))
    await queue.claim()
    waiting, held = await queue.submit(new_job(2)), await hold_one(servers, queue, 3)
    elsewhere = await queue.submit(replace(new_job(4), guild_id=OTHER))
    somebody = await queue.submit(new_job(5, user_id=2))
    wiped = await moderation.wipe(GUILD, USER, actor_id=MOD)
    assert [job.id for job in wiped] == [waiting.id, held.id]
    assert {job.reason for job in wiped} == {"A moderator cancelled it."}
    left = [await queue.job(job.id) for job in (running, elsewhere, somebody)]
    assert [job and job.status for job in left] == [JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.QUEUED]
    assert (await acts(audit))[-1] is Act.WIPE
    assert len(await moderation.wipe(EVERYWHERE, USER, actor_id=MOD)) == 1


async def test_reset_gives_rate_and_budget_anew(database: Database, clock: Clock) -> None:
    queue = JobQueue(
        database,
        limits=Limits(burst=1, pictures_per_hour=1, gpu_seconds_per_day=1.5),
        now=clock,
        prior=1 / (128 * 128 * 4),
    )
    moderation = Moderation(database, now=clock, moved=queue.moved)
    with pytest.raises(Refusal, match="<@1> has never asked"):
        await moderation.reset(GUILD, USER, actor_id=MOD)
    await queue.submit(new_job(1))
    clock.move(3600)
    with pytest.raises(BudgetSpent):
        await queue.submit(new_job(2))
    await moderation.reset(GUILD, USER, actor_id=MOD)
    await queue.submit(new_job(2))


async def test_a_look_is_noted_and_shows_no_job_of_another_server(
    queue: JobQueue, moderation: Moderation, audit: Audit, servers: Servers
) -> None:
    job = await hold_one(servers, queue)
    assert await moderation.look(GUILD, job.id, actor_id=MOD) == (job, HeldFor.REVIEW)
    assert (await acts(audit))[-1] is Act.LOOK
    with pytest.raises(NotAllowed, match="This server has no job"):
        await moderation.look(OTHER, job.id, actor_id=MOD)
    assert (await moderation.look(EVERYWHERE, job.id, actor_id=MOD))[0] == job


def report(message: int, *, by: int = USER) -> Entry:
    return Entry(act=Act.REPORT, guild_id=GUILD, actor_id=by, channel_id=CHANNEL, message_id=message)


async def test_a_report_counts_once_a_person_and_picture_and_has_a_limit(moderation: Moderation, clock: Clock) -> None:
    await moderation.report(report(1))
    await moderation.report(report(1, by=2))
    with pytest.raises(Refusal, match="reported this picture already"):
        await moderation.report(report(1))
    for message in range(2, REPORTS_A_DAY + 1):
        await moderation.report(report(message))
    with pytest.raises(Refusal, match="20 pictures a day, and have reported 20"):
        await moderation.report(report(99))
    clock.move(24 * 3600 + 1)
    await moderation.report(report(99))


# The log as an outbox


async def test_what_the_log_channel_has_not_heard_is_kept_in_its_order(audit: Audit, clock: Clock) -> None:
    for act in (Act.BAN, Act.WIPE, Act.RESET):
        await audit.note(Entry(act=act, guild_id=GUILD), now=clock())
    first, *_ = await audit.unposted(limit=10)
    await audit.record_posted(first.id)
    assert [entry.act for entry in await audit.unposted(limit=10)] == [Act.WIPE, Act.RESET]
    assert [entry.act for entry in await audit.unposted(limit=1)] == [Act.WIPE]


async def test_an_act_that_is_refused_leaves_no_line(moderation: Moderation, audit: Audit) -> None:
    with pytest.raises(Refusal):
        await moderation.stand(GUILD, Standing.OPEN, actor_id=MOD)
    with pytest.raises(NotAllowed):
        await moderation.look(GUILD, 5, actor_id=MOD)
    assert await acts(audit) == []
