"""/settings, /history, /stats and /about through a real `kiln run`, in two languages, before and after a kill."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback.world import EPHEMERAL, Channel, Interaction, Message, Person
from tests.loopback_discord import LoopbackDiscord


async def told(loopback: LoopbackDiscord, person: Person, room: Channel, command: str, **options: Any) -> Message:
    """What the person is answered, which nobody else sees."""
    message = (await loopback.slash(person, room, command, **options)).message
    assert message is not None
    assert message.body["flags"] & EPHEMERAL
    return message


async def ask(loopback: LoopbackDiscord, person: Person, room: Channel, prompt: str) -> Interaction:
    return await loopback.slash(person, room, "imagine", prompt=prompt)


def buttons(value: Any) -> dict[str, str]:
    """Every button's name by its label."""
    if isinstance(value, list):
        return {label: name for item in value for label, name in buttons(item).items()}
    if not isinstance(value, dict):
        return {}
    own = {value["label"]: value["custom_id"]} if value.get("type") == 2 else {}
    return own | {label: name for item in value.values() for label, name in buttons(item).items()}


async def test_two_people_are_answered_in_two_languages_and_their_pictures_are_too(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    room = loopback.world.add_channel("pictures")
    ana, mei = loopback.world.add_person("Ana"), loopback.world.add_person("Mei", locale="zh-CN")
    await kiln.start()
    for person in (ana, mei):
        await ask(loopback, person, room, "a red house seed:5")
    await kiln.until_all("delivered")
    english, chinese = sorted(loopback.pictures(room), key=lambda one: one.id)
    assert "seed `5` · 256x256 · 4 steps" in english.content
    assert "种子 `5` · 256x256 · 4 步" in chinese.content
    assert "You have no job 9." in (await told(loopback, ana, room, "cancel", job=9)).text
    assert "你没有编号为 9 的任务。" in (await told(loopback, mei, room, "cancel", job=9)).text
    (imagine,) = (command for command in loopback.world.commands if command["name"] == "imagine")
    assert imagine["description_localizations"]["zh-CN"] == "用文字描述生成一张图片"


async def test_pages_of_history_turn_also_after_a_kill(loopback: LoopbackDiscord, kiln: KilnProcess) -> None:
    room, ana = loopback.world.add_channel("pictures"), loopback.world.add_person("Ana")
    await kiln.start()
    for number in range(1, 8):
        await ask(loopback, ana, room, f"picture {number}")
    await kiln.until_all("delivered", seconds=60)
    page = await told(loopback, ana, room, "history")
    assert "picture 7" in page.text
    assert [upload.filename for upload in page.uploads] == [f"picture-{job}.webp" for job in (7, 6, 5, 4, 3)]
    with Image.open(io.BytesIO(page.uploads[0].content)) as small:
        assert (small.format, small.size) == ("WEBP", (256, 256))
    await kiln.kill()
    await kiln.start()
    pressed = await loopback.press(ana, page, buttons(page.body["components"])["Older ▶"])
    await loopback.world.until(lambda _: "picture 1" in page.text)
    assert pressed.answer is not None
    assert [upload.filename for upload in page.uploads] == ["picture-2.webp", "picture-1.webp"]


async def test_settings_outlive_a_kill_and_the_counts_are_there(loopback: LoopbackDiscord, kiln: KilnProcess) -> None:
    room, ana = loopback.world.add_channel("pictures"), loopback.world.add_person("Ana")
    await kiln.start()
    await told(loopback, ana, room, "settings", size="128x160", steps=3, language="zh")
    await kiln.kill()
    await kiln.start()
    await ask(loopback, ana, room, "a red house")
    await kiln.until_all("delivered")
    assert "128x160 · 3 步" in loopback.pictures(room)[0].content
    assert "步数：**3**" in (await told(loopback, ana, room, "settings")).text
    stats = (await told(loopback, ana, room, "stats")).text
    assert "你：今天 1 张图片" in stats
    assert "没有 NVIDIA 显卡" in stats or "°C" in stats
    assert "保存的数据" in (await told(loopback, ana, room, "about")).text
    offered = await loopback.autocomplete(ana, room, "history", search="red")
    assert offered == [("a red house", "a red house")]
