"""Shares and limits by role: a member has the best of their roles, and the bound of fairness holds with any weights."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import BudgetSpent, QueueFull, RateLimited
from bot.queue.job import Job, Limits
from bot.queue.job_queue import JobQueue
from bot.queue.roles import Roles, RoleTerms
from bot.storage.database import Database
from gen.request import ImageResult
from tests.bot.conftest import Stage
from tests.fakes import Clock, new_job

GUILD, GOLD, SILVER = 10, 70, 71


@pytest.fixture
def roles(database: Database) -> Roles:
    return Roles(database)


@pytest.fixture
def queue(database: Database, clock: Clock) -> JobQueue:
    """One job may wait, one a row, ten an hour; a job of four steps is thought to take an hour."""
    limits = Limits(waiting_per_user=1, pictures_per_hour=10, burst=1, gpu_seconds_per_day=1.0)
    return JobQueue(database, limits=limits, now=clock, prior=1 / (128 * 128 * 4))


async def ask(queue: JobQueue, number: int, *roles: int, guild: int = GUILD) -> Job:
    return await queue.submit(replace(new_job(number), role_ids=(guild, *roles), guild_id=guild))


def gold(**terms: float) -> RoleTerms:
    return RoleTerms(guild_id=GUILD, role_id=GOLD, **terms)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "refusal"),
    [
        ({"burst": 9, "gpu_seconds_per_day": 0}, QueueFull),
        ({"waiting_per_user": 9, "gpu_seconds_per_day": 0}, RateLimited),
        ({"waiting_per_user": 9, "burst": 9}, BudgetSpent),
        ({"waiting_per_user": 9, "burst": 9, "gpu_seconds_per_day": 1.5}, BudgetSpent),
    ],
)
async def test_what_a_role_does_not_say_is_as_for_everybody(
    queue: JobQueue, roles: Roles, terms: dict[str, float], refusal: type[Exception]
) -> None:
    await roles.set(gold(**terms))
    await ask(queue, 1, GOLD)
    with pytest.raises(refusal):
        await ask(queue, 2, GOLD)
    await roles.set(gold(waiting_per_user=9, burst=9, gpu_seconds_per_day=2.0))
    await ask(queue, 2, GOLD)


async def test_a_member_has_the_best_of_their_roles_and_only_of_this_server(
    queue: JobQueue, roles: Roles, path: Path
) -> None:
    await roles.set(gold(weight=3.0, waiting_per_user=2, burst=5, gpu_seconds_per_day=5))
    await roles.set(RoleTerms(guild_id=GUILD, role_id=SILVER, weight=2.0, waiting_per_user=4, gpu_seconds_per_day=0))
    await roles.set(RoleTerms(guild_id=GUILD, role_id=GUILD, weight=0.5))
    for number in range(4):
        await ask(queue, number, GOLD, SILVER)
    assert weight(path) == 3.0
    with pytest.raises(QueueFull, match="4 may"):
        await ask(queue, 9, GOLD, SILVER)
    with pytest.raises(QueueFull, match="1 may"):
        await ask(queue, 9, GOLD, SILVER, guild=11)
    assert [terms.role_id for terms in await roles.of_guild(GUILD)] == [GUILD, GOLD, SILVER]


async def test_the_role_of_everyone_can_weigh_less_and_no_role_weighs_one(
    queue: JobQueue, roles: Roles, path: Path
) -> None:
    await ask(queue, 1)
    assert weight(path) == 1.0
    await queue.cancel(1, user_id=1)
    await roles.set(RoleTerms(guild_id=GUILD, role_id=GUILD, weight=0.5))
    await ask(queue, 2)
    assert weight(path) == 0.5
    await queue.cancel(2, user_id=1)
    await roles.remove(GUILD, GUILD)
    await ask(queue, 3)
    assert weight(path) == 1.0


async def test_twice_the_role_is_twice_the_gpu(database: Database, roles: Roles, clock: Clock) -> None:
    queue = JobQueue(database, limits=Limits(waiting_per_user=100, burst=100), now=clock)
    await roles.set(gold(weight=2.0))
    for number in range(30):
        await queue.submit(replace(new_job(2 * number, user_id=1), role_ids=(GOLD,)))
        await queue.submit(new_job(2 * number + 1, user_id=2))
    turns = []
    for _ in range(30):
        job = await queue.claim()
        assert job is not None
        result = ImageResult(png=b"", sha256="", seconds=10.0, model="fake")
        await queue.record_drawn(job, picture="x", result=result)
        turns.append(job.user_id)
    assert turns.count(1) == 20


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weight": 0.0}, "a weight must be from 0.01 to 100; it is 0.0"),
        ({"weight": float("nan")}, "a weight must be"),
        ({"burst": 0}, "burst must be 1 or more; it is 0"),
        ({"gpu_seconds_per_day": -1.0}, "gpu_seconds_per_day must be 0 or more"),
    ],
)
def test_terms_that_no_role_can_have_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gold(**wrong)


async def test_a_command_carries_the_roles_of_whoever_used_it(stage: Stage) -> None:
    role = stage.guild.create_role("patrons")
    bob = stage.guild.add_member(stage.env.create_user("bob"), roles=[role])
    await Roles(stage.kiln.queue._database).set(RoleTerms(guild_id=stage.guild.id, role_id=role.id, weight=4.0))
    await stage.imagine(by=bob)
    await stage.imagine()
    accounts = f"SELECT weight FROM accounts WHERE name IN ('user:{bob.id}', 'user:{stage.alice.id}') ORDER BY id"
    with closing(sqlite3.connect(stage.settings.database)) as raw:
        assert raw.execute(accounts).fetchall() == [(4.0,), (1.0,)]


def weight(path: Path) -> float:
    with closing(sqlite3.connect(path)) as raw:
        return float(raw.execute("SELECT weight FROM accounts WHERE name = 'user:1'").fetchone()[0])


@pytest.mark.parametrize(("end", "comes_back"), [("failed", True), ("taken back", True), ("stopped", False)])
async def test_the_rate_is_given_back_for_what_failed_or_never_began(
    database: Database, clock: Clock, end: str, comes_back: bool
) -> None:
    queue = JobQueue(database, limits=Limits(burst=1, pictures_per_hour=1), now=clock)
    job = await queue.submit(new_job(1))
    if end == "taken back":
        await queue.cancel(job.id, user_id=1)
    else:
        running = await queue.claim()
        assert running is not None
        await (queue.record_failed(running, reason="x") if end == "failed" else queue.record_cancelled(running))
    if comes_back:
        await queue.submit(new_job(2))
    with pytest.raises(RateLimited):
        await queue.submit(new_job(3))
