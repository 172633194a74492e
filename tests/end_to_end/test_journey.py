"""From the slash command to the picture, through a real `kiln run` and discord.py's real transport."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback import faults
from tests.loopback_discord import LoopbackDiscord


async def test_a_slash_command_becomes_a_card_then_progress_then_a_picture(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.3
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house", seed=42, steps=13)
    assert interaction.message is not None
    assert "a red house" in interaction.message.text
    assert "42" in interaction.message.text
    await loopback.world.until(lambda world: "step" in interaction_text(loopback, interaction.id))
    [job] = await kiln.until_all("delivered")
    [picture] = loopback.pictures(room)
    assert (picture.nonce, picture.id) == (f"{job.id}-{job.interaction_id % 10**12}", job.result_message_id)
    assert loopback.unknown_routes() == []


def interaction_text(loopback: LoopbackDiscord, interaction_id: int) -> str:
    message = loopback.world.interactions[interaction_id].message
    return message.text.split("\n")[1] if message is not None else ""


async def test_a_picture_mentions_only_its_author_and_says_what_it_shows(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="@everyone a fox <@&1> `code`", seed=7)
    [job] = await kiln.until_all("delivered")
    [picture] = loopback.pictures(room)
    assert f"<@{ana.id}>" in picture.content
    assert picture.body["allowed_mentions"] == {"parse": [], "users": [ana.id]}
    description = picture.uploads[0].description or ""
    assert "a fox" in description
    assert "seed 7" in description
    for request in loopback.requests:  # the card, too, may wake nobody
        if request.payload.get("data", request.payload).get("components"):
            sent = request.payload.get("data", request.payload)
            assert sent["allowed_mentions"]["parse"] == []
    assert job.picture is not None
    assert (kiln.data / job.picture).read_bytes() == picture.uploads[0].content


async def test_progress_edits_come_at_most_every_three_seconds(loopback: LoopbackDiscord, kiln: KilnProcess) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.1
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=40)
    await kiln.until_all("delivered")
    begun, halfway = [one for one in loopback.asked(faults.EDIT_MESSAGE) if "Drawing" in json.dumps(one.body)]
    assert halfway.at - begun.at > 2.9


async def test_pictures_of_several_people_arrive_once_each_in_their_channel(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    rooms = [loopback.world.add_channel(name) for name in ("one", "two")]
    people = [loopback.world.add_person(name) for name in ("Ana", "Ben", "Cleo")]
    await kiln.start()
    for number in range(9):
        await loopback.slash(people[number % 3], rooms[number % 2], "imagine", prompt=f"picture {number}")
    jobs = await kiln.until_all("delivered")
    assert sorted(int(str(one.nonce).split("-")[0]) for one in loopback.pictures()) == [job.id for job in jobs]
    assert [len(loopback.pictures(room)) for room in rooms] == [5, 4]


async def test_twenty_people_at_once_are_all_answered_and_served(loopback: LoopbackDiscord, kiln: KilnProcess) -> None:
    room = loopback.world.add_channel("pictures")
    people = [loopback.world.add_person(f"user {number}") for number in range(20)]
    await kiln.start()
    asked = await asyncio.gather(
        *(loopback.slash(person, room, "imagine", prompt=f"a gift for {person.name}") for person in people)
    )
    jobs = await kiln.until_all("delivered")
    owners = {one.id: one.person for one in asked}
    mentioned = {str(job.id): f"<@{owners[job.interaction_id].id}>" for job in jobs}
    assert len(jobs) == len(loopback.pictures(room)) == 20
    assert all(mentioned[str(picture.nonce).split("-")[0]] in picture.content for picture in loopback.pictures(room))


async def test_the_same_interaction_twice_is_one_job_with_one_card(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    await loopback.gateway.repeat_last()
    await loopback.world.until(lambda world: len(loopback.asked(faults.CALLBACK)) == 2)
    await loopback.slash(ana, room, "imagine", prompt="another")
    await kiln.until(lambda: kiln.statuses() == ["delivered", "delivered"])
    assert [one.status for one in loopback.asked(faults.CALLBACK)] == [200, 400, 200]
    assert len([one for one in loopback.world.messages.values() if not one.uploads]) == 2
    assert len(loopback.pictures(room)) == 2


async def test_a_cancelled_drawing_stops_and_posts_nothing(loopback: LoopbackDiscord, kiln: KilnProcess) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.2
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house", steps=50)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    [(_, job_id)] = await loopback.autocomplete(ana, room, "cancel", job="")
    await loopback.slash(ana, room, "cancel", job=job_id)
    await kiln.until_all("cancelled", seconds=3)
    card = interaction.message
    assert card is not None
    await loopback.world.until(lambda world: "Cancelled" in card.text)
    assert loopback.pictures() == []


async def test_no_privileged_intent_is_asked_for_and_commands_sync_once(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    sync = ("PUT", "/applications/{application_id}/commands")
    await kiln.start()
    await kiln.stop()
    await kiln.start()
    privileged = 1 << 1 | 1 << 8 | 1 << 15  # members, presences, message content
    assert loopback.gateway.intents is not None
    assert loopback.gateway.intents & privileged == 0
    assert len(loopback.asked(sync)) == 1
    assert {command["name"] for command in loopback.world.commands} >= {"imagine", "queue", "cancel"}


@pytest.mark.slow
async def test_the_real_model_draws_the_png_that_kiln_draw_makes_of_the_same_recipe(
    loopback: LoopbackDiscord, kiln: KilnProcess, tmp_path: Path
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = None
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house at night", seed=42)
    [job] = await kiln.until_all("delivered", seconds=60)
    [picture] = loopback.pictures(room)
    with Image.open(io.BytesIO(picture.uploads[0].content)) as image:
        image.load()
        texts = dict(image.text)  # type: ignore[attr-defined]
    assert image.format == "PNG"
    assert "a red house at night" in texts["parameters"]
    assert json.loads(texts["kiln"])["seed"] == 42
    assert job.picture is not None
    on_disk = (kiln.data / job.picture).read_bytes()
    assert hashlib.sha256(on_disk).digest() == hashlib.sha256(picture.uploads[0].content).digest()
    for threads in ("1", "4"):
        by_hand = await asyncio.to_thread(_drawn_by_hand, tmp_path / f"{threads}.png", threads=threads)
        assert by_hand == on_disk


def _drawn_by_hand(out: Path, *, threads: str) -> bytes:
    """The same picture from `kiln draw`, told to use so many threads."""
    command = [sys.executable, "-m", "bot", "draw", "a red house at night", "--seed", "42", "--out", str(out)]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": threads}, check=True, capture_output=True)
    return out.read_bytes()
