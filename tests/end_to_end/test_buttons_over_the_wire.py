"""Buttons, dialogs and previews through a real `kiln run`, discord.py's real transport, and a kill between."""

from __future__ import annotations

import io

from PIL import Image

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback import faults
from tests.loopback.world import Channel, Json, Person
from tests.loopback_discord import LoopbackDiscord

MODAL = 9


def custom_ids(body: Json) -> list[str]:
    """The names of a message's buttons, at any depth."""
    own = [str(body["custom_id"])] if "custom_id" in body else []
    return own + [name for part in body.get("components") or [] for name in custom_ids(part)]


async def test_buttons_of_a_killed_process_work_in_the_next(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", seed=42)
    await kiln.until_all("delivered")
    [picture] = loopback.pictures(room)
    assert "job:1:reroll" in custom_ids(picture.body)
    await kiln.kill()
    await kiln.start()
    pressed = await loopback.press(ana, picture, "job:1:reroll")
    assert pressed.message is not None
    assert f"[job 1](https://discord.com/channels/{loopback.world.guild_id}/{room.id}/{picture.id})" in (
        pressed.message.text
    )
    dialog = await loopback.press(ana, picture, "job:1:edit")
    assert dialog.answer is not None
    assert (dialog.answer["type"], dialog.answer["data"]["custom_id"]) == (MODAL, "job:1:edited")
    fields = {"prompt": "a boat", "seed": "7", "size": "256x256", "numbers": "2, 3.5", "loras": ""}
    await loopback.submit(ana, room, "job:1:edited", **fields)
    await kiln.until_all("delivered")
    await kiln.until_accepted(jobs=3)
    await kiln.until_all("delivered")
    gone = await loopback.press(ana, picture, "job:1:delete")
    assert gone.message is not None
    assert gone.message.text == "The picture of job 1 is deleted."
    assert picture.id not in loopback.world.messages
    assert len(loopback.pictures(room)) == 2


async def test_one_press_that_discord_delivers_twice_is_one_job(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", seed=42)
    await kiln.until_all("delivered")
    [picture] = loopback.pictures(room)
    await loopback.press(ana, picture, "job:1:reroll")
    await loopback.gateway.repeat_last()
    await loopback.world.until(lambda world: len(loopback.asked(faults.CALLBACK)) == 3)
    await kiln.until_accepted(jobs=2)
    await kiln.until_all("delivered")
    assert len(loopback.pictures(room)) == 2


async def test_the_card_shows_small_previews_while_the_real_model_draws_and_none_in_the_end(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = None
    await kiln.start()
    asked = await loopback.slash(ana, room, "imagine", prompt="a red house", seed=42, steps=50, size="384x384")
    card = asked.message
    assert card is not None
    await loopback.world.until(lambda world: bool(card.uploads), seconds=60)
    preview = card.uploads[0]
    with Image.open(io.BytesIO(preview.content)) as shown:
        assert (preview.filename, shown.format, shown.width <= 160) == ("preview.jpg", "JPEG", True)
    assert len(preview.content) < 20_000
    await kiln.until_all("delivered", seconds=60)
    await loopback.world.until(lambda world: "Done in" in card.text)
    assert card.uploads == []
