"""kill -9 at named points and at random ones: nothing accepted is lost, nothing is posted twice."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from datetime import timedelta

import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.end_to_end.launch_kiln import MID_DRAWING
from tests.loopback import faults
from tests.loopback.world import Channel, Interaction, Message, Person
from tests.loopback_discord import LoopbackDiscord

KILLS, JOBS = 20, 30


@pytest.fixture
def ana(loopback: LoopbackDiscord) -> Person:
    return loopback.world.add_person("Ana")


@pytest.fixture
def room(loopback: LoopbackDiscord) -> Channel:
    return loopback.world.add_channel("pictures")


async def test_killed_after_the_commit_and_before_the_answer_the_job_is_still_drawn(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start(crash_at="submitted, not answered")
    interaction = await loopback.send_slash(ana, room, "imagine", prompt="a red house")
    await kiln.crash()
    assert (interaction.answer, kiln.statuses()) == (None, ["queued"])
    await kiln.start()
    [job] = await kiln.until_all("delivered")
    assert len(loopback.pictures(room)) == 1
    assert job.attempts == 1


@pytest.mark.parametrize("point", ["claimed", MID_DRAWING, "picture on disk, not recorded"])
async def test_killed_while_drawing_the_job_is_drawn_again_and_those_behind_it_still_wait(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, point: str
) -> None:
    await ask_then_crash(loopback, kiln, ana, room, point=point)
    assert kiln.statuses() == ["running", "queued", "queued"]
    await kiln.start()
    jobs = await kiln.until_all("delivered")
    assert [job.attempts for job in jobs] == [2, 1, 1]
    assert sorted(drawn_for(one) for one in loopback.pictures(room)) == [job.id for job in jobs]


async def test_a_job_whose_process_died_twice_is_quarantined_and_the_next_is_drawn(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    [interaction, *_] = await ask_then_crash(loopback, kiln, ana, room, point=MID_DRAWING)
    await kiln.start(crash_at=MID_DRAWING, connect=False)
    assert await kiln.ended() == -9
    await kiln.start()
    await kiln.until(lambda: kiln.statuses() == ["quarantined", "delivered", "delivered"])
    first = interaction.message
    assert first is not None
    await loopback.world.until(lambda world: "twice" in first.text)  # its owner is told on the card
    assert len(loopback.pictures(room)) == 2


@pytest.mark.parametrize("point", ["recorded as drawn, not posted", "posted, not recorded", "delivered"])
async def test_killed_around_the_post_the_picture_is_posted_once_and_not_drawn_again(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, point: str
) -> None:
    asked = await ask_then_crash(loopback, kiln, ana, room, point=point)
    await kiln.start()
    jobs = await kiln.until_all("delivered")
    assert jobs[0].attempts == 1  # the others may have been in mid drawing
    cards = [one.message for one in asked if one.message is not None]
    await loopback.world.until(lambda world: ["Done in" in card.text for card in cards] == [True] * 3)
    assert sorted(drawn_for(one) for one in loopback.pictures(room)) == [job.id for job in jobs]


async def test_posted_but_not_recorded_and_restarted_when_discord_has_forgotten_the_nonce_is_posted_once(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start(crash_at="posted, not recorded")
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    await kiln.crash()
    loopback.world.advance(timedelta(minutes=20))
    await kiln.start()
    [job] = await kiln.until_all("delivered")
    [picture] = loopback.pictures(room)
    assert job.result_message_id == picture.id


async def test_a_new_database_whose_job_1_is_another_gets_its_own_picture(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    """Within the minutes in which Discord remembers the nonce of the old job 1."""
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    await kiln.until_all("delivered")
    await kiln.kill()
    shutil.rmtree(kiln.data)
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a blue boat")
    [job] = await kiln.until_all("delivered")
    old, new = loopback.pictures(room)
    assert job.id == 1
    assert (job.result_message_id, "a blue boat" in new.text, "a red house" in old.text) == (new.id, True, True)


async def test_killed_while_discord_handles_the_post_the_picture_is_there_once(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.POST_MESSAGE, faults.slow(5.0))
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    await loopback.world.until(lambda world: bool(loopback.pictures()))
    await kiln.kill()
    await kiln.start()
    await kiln.until_all("delivered")
    assert len(loopback.pictures()) == 1


async def test_killed_in_mid_card_edit_the_job_is_drawn_again(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.EDIT_MESSAGE, faults.slow(5.0))
    kiln.step_seconds = 0.1
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=50)
    await loopback.world.until(lambda world: bool(loopback.asked(faults.EDIT_MESSAGE)))
    await kiln.kill()
    kiln.step_seconds = 0.005
    await kiln.start()
    [job] = await kiln.until_all("delivered")
    assert (job.attempts, len(loopback.pictures(room))) == (2, 1)


@pytest.mark.slow
async def test_twenty_kills_at_random_points_lose_and_repeat_nothing(
    loopback: LoopbackDiscord, kiln: KilnProcess, room: Channel
) -> None:
    seed = int(os.environ.get("LOOPBACK_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed of the kills: {seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)
    people = [loopback.world.add_person(name) for name in ("Ana", "Ben", "Cleo")]
    asked: list[Interaction] = []
    kiln.step_seconds = 0.02
    for kill in range(KILLS):
        starting = kill > 0 and chance.random() < 0.25  # a quarter of the kills come before it is connected
        await kiln.start(connect=not starting)
        while not starting and len(asked) < JOBS * (kill + 1) / KILLS:
            asked.append(await loopback.send_slash(chance.choice(people), room, "imagine", prompt=f"job {len(asked)}"))
        await kill_at_random(kiln, chance, seconds=1.5 if starting else 0.3)
        print(f"killed at {kiln.statuses()[-5:]}")  # noqa: T201
        if chance.random() < 0.3:
            loopback.world.advance(timedelta(minutes=10))  # a long downtime: Discord forgets the nonces
    await kiln.start()
    while len(asked) < JOBS:
        asked.append(await loopback.slash(chance.choice(people), room, "imagine", prompt=f"job {len(asked)}"))
    jobs = {job.interaction_id: job for job in await kiln.until_all("delivered")}
    acknowledged = [one for one in asked if one.answer is not None]
    assert len(acknowledged) >= JOBS / 3
    assert {one.id for one in acknowledged} <= jobs.keys()
    assert sorted(drawn_for(one) for one in loopback.pictures()) == [job.id for job in jobs.values()]
    assert loopback.refused_again() == []


def drawn_for(picture: Message) -> int:
    """The job's id, which its nonce begins with."""
    return int((picture.nonce or "0").partition("-")[0])


async def kill_at_random(kiln: KilnProcess, chance: random.Random, *, seconds: float) -> None:
    """Kill within `seconds`, but never in a job's second drawing: that would rightly put it into quarantine."""
    while True:
        await asyncio.sleep(chance.uniform(0.0, seconds))  # chooses when to kill; nothing is waited for
        kiln.freeze()
        try:
            if all(job.attempts < 2 for job in kiln.jobs() if job.status == "running"):
                await kiln.kill()
                return
        except sqlite3.OperationalError as locked:
            print(f"frozen while it kept the file to itself: {locked}")  # noqa: T201
        kiln.go_on()


async def ask_then_crash(
    loopback: LoopbackDiscord, kiln: KilnProcess, person: Person, room: Channel, *, point: str
) -> list[Interaction]:
    """Ask for three pictures, see all three accepted, and let the process die at `point` of the first."""
    await kiln.start(crash_at=point)
    asked = [await loopback.slash(person, room, "imagine", prompt=f"picture {number}") for number in range(3)]
    await kiln.crash()
    return asked
