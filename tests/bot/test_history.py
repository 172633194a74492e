"""/history: my pictures on pages, over a restart; somebody else's only where I can see them."""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import discord
import pytest
from PIL import Image
from simcord import ChannelHandle, InteractionResult, MemberActor

from bot.cards.history import ADDRESS, SEARCH_CHARACTERS, Address
from bot.cards.thumbnails import SIDE, thumbnail
from bot.client import create_bot
from bot.delivery.sight import visible_channels
from bot.errors import QueueUnavailable
from bot.queue.job import JOB_ID_MAX, JobStatus
from bot.queue.past import Past, Shown, has_words
from bot.storage.database import Database
from tests.bot.conftest import Stage, open_stage, said, text_of

HIDDEN = discord.PermissionOverwrite(view_channel=False)
SEEN = discord.PermissionOverwrite(view_channel=True)
UNREADABLE = discord.PermissionOverwrite(read_message_history=False)


async def history(stage: Stage, *, by: MemberActor | None = None, **options: Any) -> InteractionResult:
    return await (by or stage.alice).slash(stage.channel, "history", **options)


async def draw(stage: Stage, *prompts: str, by: MemberActor | None = None, at: ChannelHandle | None = None) -> None:
    for prompt in prompts:
        await (by or stage.alice).slash(at or stage.channel, "imagine", prompt=prompt)


def bob_of(stage: Stage) -> MemberActor:
    return stage.guild.add_member(stage.env.create_user("bob"))


def turning(result: InteractionResult) -> dict[str, bool]:
    """The buttons to other pages: label → whether it can be pressed."""
    assert result.response is not None
    found: dict[str, bool] = {}

    def collect(parts: list[dict[str, Any]]) -> None:
        for part in parts:
            if part["type"] == 2 and part["custom_id"].startswith("history:"):
                found[part["label"]] = not part.get("disabled", False)
            collect(part.get("components", []))

    collect(result.response.components)
    return found


# Mine


async def test_my_pictures_come_newest_first_with_thumbnail_settings_and_link(stage: Stage) -> None:
    await draw(stage, "a red house", "a blue boat seed:5")
    result = await history(stage)
    words = said(result)
    assert words.index("a blue boat") < words.index("a red house")
    assert "2 pictures · page 1 of 1" in words
    assert "seed `5` · 256x256 · 4 steps" in words
    assert all(picture.jump_url in words for picture in stage.pictures())
    assert result.response is not None
    assert [file.filename for file in result.response.attachments] == ["picture-2.webp", "picture-1.webp"]
    assert turning(result) == {}


@pytest.mark.parametrize("prompts", [(), ("a red house",)])
async def test_what_takes_longer_than_discord_waits_is_deferred_and_comes_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, prompts: tuple[str, ...]
) -> None:
    await draw(stage, *prompts)

    async def late(interaction: discord.Interaction, work: Coroutine[Any, Any, Any], *, alone: bool) -> Any:
        await interaction.response.defer(ephemeral=alone, thinking=True)
        return await work

    monkeypatch.setattr("bot.cogs.history.in_time", late)
    result = await history(stage)
    assert ("a red house" if prompts else "no pictures yet") in said(result)
    assert result.response is not None
    assert len(result.response.attachments) == len(prompts)


async def test_who_has_none_is_told_so(stage: Stage) -> None:
    assert "You have no pictures yet" in said(await history(stage))


async def test_what_was_not_drawn_is_not_there(stage: Stage) -> None:
    await draw(stage, "a broken house")
    assert "You have no pictures yet" in said(await history(stage))


async def test_pages_turn_and_do_not_move_when_a_picture_comes(stage: Stage) -> None:
    await draw(stage, *(f"picture {number}" for number in range(1, 8)))
    first = await history(stage)
    assert "page 1 of 2" in said(first)
    assert turning(first) == {"◀ Newer": False, "Older ▶": True}
    await draw(stage, "later")
    await stage.alice.click(first.response, label="Older ▶")  # type: ignore[arg-type]
    assert first.response is not None
    words = text_of(first.response)
    assert "7 pictures · page 2 of 2" in words
    assert ("picture 2" in words, "picture 3" in words) == (True, False)
    assert turning(first) == {"◀ Newer": True, "Older ▶": False}
    await stage.alice.click(first.response, label="◀ Newer")
    assert "picture 7" in text_of(first.response)
    assert "later" not in text_of(first.response)
    assert len(first.response.attachments) == 5


async def test_pages_turn_after_a_restart(stage: Stage) -> None:
    await draw(stage, *(f"picture {number}" for number in range(1, 8)))
    shown = await history(stage)
    assert shown.response is not None
    await stage.env.restart_bot(create_bot(stage.kiln))  # a client that never sent this message
    await stage.alice.click(shown.response, label="Older ▶")
    assert "picture 1" in text_of(shown.response)


async def test_pictures_are_there_after_a_restart(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        await draw(stage, "a red house")
    async with open_stage(tmp_path) as stage:
        assert "a red house" in said(await history(stage))


async def test_a_search_finds_every_word_in_whatever_case(stage: Stage) -> None:
    await draw(stage, "A Red House", "a red boat", "一座红房子")
    assert "A Red House" in said(await history(stage, search="HOUSE red"))
    assert "1 picture ·" in said(await history(stage, search="红房"))
    assert r"\*\*x\*\*" in said(await history(stage, search="**x**"))


async def test_my_prompts_are_offered_to_search_and_nobody_elses(stage: Stage) -> None:
    bob = bob_of(stage)
    await draw(stage, "a red house", "a red house", "a boat " + "on the sea " * 20)
    offered = await stage.alice.autocomplete(stage.channel, "history", "search", "")
    assert [choice["value"] for choice in offered] == ["a boat on the sea on the sea on the sea", "a red house"]
    assert all(len(choice["name"]) <= 100 and len(choice["value"]) <= SEARCH_CHARACTERS for choice in offered)
    assert await bob.autocomplete(stage.channel, "history", "search", "") == []
    assert await bob.autocomplete(stage.channel, "history", "search", "", user=stage.alice) == []


async def test_a_picture_whose_file_is_gone_is_shown_without_a_thumbnail(stage: Stage) -> None:
    await draw(stage, "a red house")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert job.picture is not None
    (stage.settings.data / job.picture).unlink()
    result = await history(stage)
    assert "a red house" in said(result)
    assert result.response is not None
    assert result.response.attachments == []


async def test_the_largest_page_fits_into_discords_limits(stage: Stage) -> None:
    await draw(stage, *(f"{number} " + "*" * 990 for number in range(6)))
    words = said(await history(stage, search="*" * SEARCH_CHARACTERS))
    assert "page 1 of 2" in words
    assert len(words) <= 4000


async def test_a_database_that_does_not_answer_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await draw(stage, *(f"picture {number}" for number in range(6)))
    shown = await history(stage)

    async def fail(*_: object) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(Past, "pictures", fail)
    assert "cannot reach its queue" in said(await history(stage))
    pressed = await stage.alice.click(shown.response, label="Older ▶")  # type: ignore[arg-type]
    assert "cannot reach its queue" in text_of(pressed.followups[0])
    assert pressed.followups[0].ephemeral


async def test_a_bug_behind_a_button_is_a_sentence_for_the_person_and_a_traceback_for_the_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await draw(stage, *(f"picture {number}" for number in range(6)))
    shown = await history(stage)

    async def fail(*_: object) -> None:
        raise KeyError("as asked")

    monkeypatch.setattr(Past, "pictures", fail)
    pressed = await stage.alice.click(shown.response, label="Older ▶")  # type: ignore[arg-type]
    assert "not your fault" in text_of(pressed.followups[0])
    assert "KeyError" in caplog.text


# Somebody else's


async def test_anothers_pictures_are_shown_where_they_were_posted_and_i_can_see(stage: Stage) -> None:
    bob = bob_of(stage)
    secret = stage.guild.create_text_channel("secret", overwrites={bob: HIDDEN})
    await draw(stage, "a red house")
    await draw(stage, "a secret garden", at=secret)
    words = said(await history(stage, by=bob, user=stage.alice))
    assert "a red house" in words
    assert "secret" not in words
    assert "1 picture ·" in words
    assert "a secret garden" in said(await history(stage, user=stage.alice))


@pytest.mark.parametrize("closed", [HIDDEN, UNREADABLE])
async def test_rights_are_those_of_the_moment_also_on_the_next_page(
    stage: Stage, closed: discord.PermissionOverwrite
) -> None:
    bob = bob_of(stage)
    await draw(stage, *(f"picture {number}" for number in range(6)))
    gallery = stage.guild.create_text_channel("gallery")
    shown = await bob.slash(gallery, "history", user=stage.alice)
    assert "6 pictures" in said(shown)
    channel = stage.bot.get_channel(stage.channel.id)
    assert isinstance(channel, discord.TextChannel)
    member = await channel.guild.fetch_member(bob.id)
    await channel.set_permissions(member, overwrite=closed)
    pressed = await bob.click(shown.response, label="Older ▶")  # type: ignore[arg-type]
    assert "no pictures" in text_of(pressed.followups[0])


async def test_a_picture_that_was_deleted_in_discord_is_not_shown_to_others(stage: Stage) -> None:
    bob = bob_of(stage)
    await draw(stage, "a red house", "a blue boat")
    await stage.pictures()[0].delete()
    words = said(await history(stage, by=bob, user=stage.alice))
    assert "a blue boat" in words
    assert "1 of them was deleted" in words
    assert "a red house" not in words


async def test_when_discord_does_not_say_whether_it_stands_it_is_not_shown(stage: Stage) -> None:
    bob = bob_of(stage)
    await draw(stage, "a red house")
    (picture,) = stage.pictures()
    place = f"/channels/{stage.channel.id}/messages/{picture.id}"
    stage.env.inject_error("GET", place, status=403, code=50001, times=None)
    assert "a red house" not in said(await history(stage, by=bob, user=stage.alice))


async def test_what_went_to_its_author_directly_is_for_them_alone(stage: Stage) -> None:
    bob = bob_of(stage)
    stage.env.inject_error("POST", f"/channels/{stage.channel.id}/messages", status=403, code=50013, times=1)
    await draw(stage, "a red house")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert (job.status, job.result_channel_id != stage.channel.id) == (JobStatus.DELIVERED, True)
    assert "no pictures" in said(await history(stage, by=bob, user=stage.alice))
    assert "channels/@me/" in said(await history(stage))


async def test_deleted_and_private_pictures_are_not_shown_to_others(stage: Stage) -> None:
    bob = bob_of(stage)
    await draw(stage, "a red house", "a blue boat")
    await stage.kiln.queue.removal.remove(1)
    await change(stage, "UPDATE jobs SET private = 1 WHERE id = 2")
    assert "no pictures" in said(await history(stage, by=bob, user=stage.alice))
    words = said(await history(stage))
    assert ("a blue boat" in words, "a red house" in words) == (True, False)


async def change(stage: Stage, statement: str) -> None:
    with closing(sqlite3.connect(stage.settings.database)) as raw, raw:
        raw.execute(statement)


async def test_pictures_of_another_server_are_not_shown(stage: Stage) -> None:
    bob = bob_of(stage)
    elsewhere = stage.env.create_guild("elsewhere")
    channel = elsewhere.create_text_channel("pictures")
    there = elsewhere.add_member(stage.env.create_user("carol"))
    await there.slash(channel, "imagine", prompt="a red house")
    found = await stage.kiln.past.pictures(
        Shown(user_id=there.id, guild_id=stage.guild.id, channel_ids=[channel.id, stage.channel.id])
    )
    assert found.jobs == ()
    assert "no pictures" in said(await history(stage, by=bob, user=stage.alice))


async def test_of_threads_a_member_sees_the_public_ones_below_channels_they_see(stage: Stage) -> None:
    bob = bob_of(stage)
    channel = stage.bot.get_channel(stage.channel.id)
    assert isinstance(channel, discord.TextChannel)
    public = await channel.create_thread(name="public", type=discord.ChannelType.public_thread)
    private = await channel.create_thread(name="private", type=discord.ChannelType.private_thread)
    member = await channel.guild.fetch_member(bob.id)
    seen = visible_channels(member, here=None)
    assert (public.id in seen, private.id in seen, channel.id in seen) == (True, False, True)
    assert private.id in visible_channels(member, here=private.id)
    await channel.set_permissions(member, overwrite=HIDDEN)
    assert visible_channels(member, here=public.id) & {public.id, private.id, channel.id} == frozenset()


# Parts


def test_an_address_fits_into_a_button_and_is_read_back() -> None:
    longest = Address(user_id=2**64 - 1, search="…" * SEARCH_CHARACTERS, newest=JOB_ID_MAX, page=10**9)
    assert len(longest.custom_id) <= 100
    for address in (longest, Address(user_id=1, search="a:b\nc", newest=2, page=3)):
        found = ADDRESS.fullmatch(address.custom_id)
        assert found is not None
        assert Address.read(found) == address


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", True),
        ("fox", True),
        ("FOX red", True),
        ("ｆｏｘ", True),
        ("fo", True),
        ("blue", False),
        ("fox blue", False),
    ],
)
def test_a_prompt_has_the_words_of_a_search_or_not(search: str, found: bool) -> None:
    assert has_words("a Red Fox", search) is found


async def test_a_page_behind_the_last_is_the_last(database: Database, stage: Stage) -> None:
    await draw(stage, *(f"picture {number}" for number in range(6)))
    page = await stage.kiln.past.pictures(Shown(user_id=stage.alice.id, page=99))
    assert (page.page, page.pages, len(page.jobs)) == (2, 2, 1)
    nobody = await stage.kiln.past.pictures(Shown(user_id=5))
    assert (nobody.page, nobody.pages, nobody.jobs) == (1, 1, ())


def test_a_thumbnail_is_small_and_what_is_no_picture_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (1024, 512), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_text("no picture")
    small = thumbnail(tmp_path / "a.png")
    assert small is not None
    (tmp_path / "small.webp").write_bytes(small)
    with Image.open(tmp_path / "small.webp") as picture:
        assert picture.size == (SIDE, SIDE // 2)
    assert [thumbnail(tmp_path / name) for name in ("b.png", "c.png", "gone.png", ".")] == [None] * 4
