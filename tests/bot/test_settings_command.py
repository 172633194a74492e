"""/settings: defaults that /imagine takes, kept over a restart, checked again whenever they are used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simcord import MemberActor, OptionError

from bot.asking.people import CHOICES, NOTHING_CHOSEN, Preferences, open_people
from bot.errors import QueueUnavailable
from bot.storage.database import Database
from bot.storage.people_tables import PreferencesRow
from tests.bot.conftest import Stage, open_stage, said
from tests.fakes import FAKE_PROFILE, FakeGenerator


async def settings(stage: Stage, *, by: MemberActor | None = None, **options: Any) -> str:
    return said(await (by or stage.alice).slash(stage.channel, "settings", **options))


async def test_who_chose_nothing_sees_the_models_defaults(stage: Stage) -> None:
    words = await settings(stage)
    assert "size: 256x256 (the model's)" in words
    assert "steps: 4 (the model's)" in words
    assert "guidance: 3.5 (the model's)" in words
    assert "language: English (as in Discord)" in words


async def test_imagine_takes_my_defaults_for_what_i_leave_out(stage: Stage) -> None:
    assert "size: **128x144**" in await settings(stage, size=" 128 X 144 ", steps=2, guidance=5.0)
    await stage.imagine("one")
    await stage.imagine("two", size="256x128", steps=3)
    one, two = stage.pictures()
    assert "128x144 · 2 steps · guidance 5" in one.content
    assert "256x128 · 3 steps · guidance 5" in two.content


async def test_a_default_style_is_taken_and_its_words_are_shown(stage: Stage) -> None:
    assert "style: **Pixel art**" in await settings(stage, style="pixel ART")
    await stage.imagine("a fox")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert (job.style, job.request.guidance) == ("Pixel art", 5.0)
    assert job.request.prompt == "a fox, pixel art, 16 bit, limited palette"


async def test_what_i_name_now_goes_before_my_defaults_and_they_before_a_default_style(stage: Stage) -> None:
    await settings(stage, style="Pixel art", guidance=2.0)
    await stage.imagine("one")
    await stage.imagine("two", style="Ink wash")
    await stage.imagine("three", style="-")
    await stage.imagine("four", style="Ink wash", guidance=1.5)
    jobs = [job for number in range(1, 5) if (job := await stage.kiln.queue.job(number)) is not None]
    assert [(job.style, job.request.guidance) for job in jobs] == [
        ("Pixel art", 2.0),
        ("Ink wash", 4.5),
        (None, 2.0),
        ("Ink wash", 1.5),
    ]


async def test_no_style_is_offered_to_whom_has_a_default_one(stage: Stage) -> None:
    first = await stage.alice.autocomplete(stage.channel, "imagine", "style", "", prompt="a fox")
    assert "-" not in [choice["value"] for choice in first]
    await settings(stage, style="Night")
    offered = await stage.alice.autocomplete(stage.channel, "imagine", "style", "", prompt="a fox")
    assert offered[0] == {"name": "no style", "value": "-"}
    mine = await stage.alice.autocomplete(stage.channel, "settings", "style", "night")
    assert [choice["value"] for choice in mine] == ["Night"]


async def test_private_is_my_default_until_i_say_otherwise(stage: Stage) -> None:
    assert "private: **yes**" in await settings(stage, private=True)
    await stage.imagine("open", private=False)
    await stage.imagine("hidden")
    jobs = [job for number in (1, 2) if (job := await stage.kiln.queue.job(number)) is not None]
    assert [job.private for job in jobs] == [False, True]
    assert "private: no" in await settings(stage, reset="private")


async def test_a_style_that_there_is_not_is_refused_also_as_an_old_default(stage: Stage) -> None:
    assert "There is no style 'cubism'" in await settings(stage, style="cubism")
    await stage.kiln.people.choose(stage.alice.id, style="cubism")  # of a Kiln that had it
    assert "Your default style no longer works: There is no style 'cubism'" in said(await stage.imagine())
    assert "Your default style no longer works" in await settings(stage)
    await stage.imagine("a fox", style="-")
    assert len(stage.pictures()) == 1


async def test_nobody_elses_pictures_change_with_mine(stage: Stage) -> None:
    await settings(stage, steps=2, language="zh")
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    assert "steps: 4 (the model's)" in await settings(stage, by=bob)
    await stage.imagine(by=bob)
    assert "4 steps" in stage.pictures()[0].content


async def test_one_default_is_taken_back_or_all_of_them(stage: Stage) -> None:
    await settings(stage, size="128x128", steps=2, guidance=5.0, language="en")
    words = await settings(stage, reset="steps")
    assert "steps: 4 (the model's)" in words
    assert "size: **128x128**" in words
    words = await settings(stage, reset="everything", guidance=2.0)
    assert "size: 256x256 (the model's)" in words
    assert "guidance: **2.0**" in words
    assert stage.kiln.people.of(stage.alice.id) == Preferences(guidance=2.0)


async def test_defaults_and_language_are_there_after_a_restart(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        await settings(stage, steps=2, language="zh")
    async with open_stage(tmp_path) as stage:
        assert "步数：**2**" in await settings(stage)
        await stage.imagine()
        assert "2 步" in stage.pictures()[0].content


async def test_a_language_that_was_chosen_beats_discords_at_once(stage: Stage) -> None:
    assert "语言：**简体中文**" in await settings(stage, language="zh")
    assert "没有编号为 9 的任务" in said(await stage.alice.slash(stage.channel, "cancel", job=9))
    assert "language: English (as in Discord)" in await settings(stage, reset="locale")


@pytest.mark.parametrize(
    ("size", "word"), [("huge", "width x height"), ("200x200", "multiple of 16"), ("1024x1024", "128 to 512")]
)
async def test_a_size_that_the_model_does_not_draw_is_refused_and_nothing_is_kept(
    stage: Stage, size: str, word: str
) -> None:
    assert word in await settings(stage, size=size, steps=2)
    assert stage.kiln.people.of(stage.alice.id) == NOTHING_CHOSEN


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 51}, {"guidance": 99.0}, {"language": "de"}, {"reset": "users"}, {"size": ""}]
)
async def test_discord_itself_refuses_what_is_no_choice(stage: Stage, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        await settings(stage, **options)


async def test_a_default_that_the_model_no_longer_allows_is_said_and_not_changed(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        await settings(stage, size="512x512")
    smaller = FakeGenerator(profile=replace(FAKE_PROFILE, side_max=256))
    async with open_stage(tmp_path, generator=smaller) as stage:
        words = said(await stage.imagine())
        assert "Your default size no longer works: fake draws a width of 128 to 256 pixels; it is 512." in words
        assert "Your default size no longer works" in await settings(stage)
        await stage.imagine(size="128x128")
        assert "128x128" in stage.pictures()[0].content
        assert stage.kiln.people.of(stage.alice.id).size == "512x512"


async def test_sizes_are_offered(stage: Stage) -> None:
    offered = await stage.alice.autocomplete(stage.channel, "settings", "size", "144x160")
    assert offered[0] == {"name": "144x160 · tall", "value": "144x160"}


async def test_what_the_database_does_not_take_is_told_and_not_believed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise QueueUnavailable

    monkeypatch.setattr(Database, "write", fail)
    assert "Nothing was changed" in await settings(stage, steps=2)
    assert stage.kiln.people.of(stage.alice.id) == NOTHING_CHOSEN


async def test_choices_at_the_same_time_are_all_kept_and_memory_is_as_the_file(database: Database) -> None:
    people = await open_people(database)
    await asyncio.gather(
        *(people.choose(1, steps=steps) for steps in range(1, 21)), people.choose(1, size="128x128"), people.forget(2)
    )
    assert people.of(1).size == "128x128"
    assert (await open_people(database)).of(1) == people.of(1)
    await people.forget(1)
    assert (await open_people(database)).of(1) == people.of(1) == NOTHING_CHOSEN


def test_a_row_has_what_a_person_may_choose() -> None:
    assert {column.name for column in PreferencesRow.__table__.columns} == {"user_id", *CHOICES}
