"""What /imagine takes beside a prompt and numbers: styles, LoRAs, a negative prompt, several pictures, private ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
import pytest

from bot.asking.styles import SHIPPED
from bot.cards.captions import detail_lines
from bot.cards.recipes import Found, recipe_view
from bot.language import say_in
from bot.queue.job import Job, JobStatus
from gen.request import LoraUse
from tests.bot.conftest import Stage, eventually, open_stage, said, save_lora, text_of
from tests.fakes import FAKE_PROFILE, image_request, new_job


async def job(stage: Stage, number: int = 1) -> Job:
    found = await stage.kiln.queue.job(number)
    assert found is not None
    return found


async def choices(stage: Stage, option: str, typed: str) -> list[str]:
    found = await stage.alice.autocomplete(stage.channel, "imagine", option, typed, prompt="a fox")
    return [choice["value"] for choice in found]


# Styles


async def test_a_styles_words_and_settings_are_in_the_request_and_shown(stage: Stage) -> None:
    await stage.imagine("a red house", style="cinematic")
    made = await job(stage)
    assert made.request.prompt == "a red house, film still, dramatic light, shallow focus"
    assert (made.request.guidance, made.style) == (3.0, "Cinematic")
    width, height = made.request.width, made.request.height
    assert 1.6 < width / height < 1.9
    for message in stage.messages():
        assert "a red house, film still, dramatic light, shallow focus" in text_of(message)
        assert "style: Cinematic" in text_of(message)


async def test_a_style_is_found_and_shown_by_its_chinese_name(stage: Stage) -> None:
    await stage.imagine("a red house", style=" 水墨画 ")
    made = await job(stage)
    assert made.style == "Ink wash"
    zh = say_in("zh")
    assert "风格：水墨画" in detail_lines(zh, made)
    assert "style: Ink wash" in detail_lines(say_in("en"), made)
    assert "风格：Done" in detail_lines(zh, replace(made, style="Done"))
    recipe = recipe_view(zh, Found(job=made, request=made.request), here="x")
    assert "风格：水墨画" in str(recipe.to_components())  # type: ignore[no-untyped-call]


async def test_what_is_said_beside_a_style_goes_before_it(stage: Stage) -> None:
    await stage.imagine(style="Cinematic", guidance=7.0, size="128x128", steps=2)
    made = (await job(stage)).request
    assert (made.guidance, made.size, made.steps) == (7.0, "128x128", 2)


async def test_a_style_that_is_none_is_refused(stage: Stage) -> None:
    assert "There is no style 'Baroque'" in said(await stage.imagine(style="Baroque"))


async def test_styles_are_offered_as_what_they_are(stage: Stage) -> None:
    found = await stage.alice.autocomplete(stage.channel, "imagine", "style", "ink", prompt="a fox")
    assert [choice["value"] for choice in found] == ["Ink wash"]
    assert "…, ink wash painting, few brush strokes" in found[0]["name"]
    assert len(await choices(stage, "style", "")) == 12
    assert len(await choices(stage, "style", "nothing like it")) == 12


def test_every_shipped_style_fits_the_model_and_has_a_chinese_name() -> None:
    assert len({style.name for style in SHIPPED}) == len(SHIPPED) == 12
    for style in SHIPPED:
        assert style.name != say_in("zh")(style.name)
        assert len(style.prompt("x" * 900)) <= 1000
        if style.shape is not None:
            assert FAKE_PROFILE.size_of(*style.shape) is not None
        image_request(style.prompt("a fox"), steps=style.steps or 4, guidance=style.guidance or 3.5)


async def test_a_prompt_that_is_too_long_with_its_style_says_so(stage: Stage) -> None:
    assert "1,000 characters at most; it has 1,042" in said(await stage.imagine("x" * 999, style="Cinematic"))


# LoRAs


async def test_a_lora_by_name_with_its_strength(stage: Stage) -> None:
    save_lora(stage.settings.lora_folder, "ink wash", "oil")
    await stage.imagine(lora="ink wash", lora_strength=0.7)
    await stage.imagine(lora="ink wash:0.5, oil", lora_strength=2.0)
    assert (await job(stage, 1)).request.loras == (LoraUse(name="ink wash", strength=0.7),)
    assert (await job(stage, 2)).request.loras == (
        LoraUse(name="ink wash", strength=0.5),
        LoraUse(name="oil", strength=2.0),
    )
    assert "LoRA: ink wash:0.7" in text_of(stage.messages()[0])


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ("../../etc/passwd", "There is no LoRA named '../../etc/passwd'."),
        ("/etc/passwd", "no LoRA named"),
        ("ink wach", "There is no LoRA named 'ink wach'; did you mean ink wash?"),
        ("xyzzy", "There is no LoRA named 'xyzzy'."),
        ("ink wash:9", "strength of ink wash must be from -4.0 to 4.0; it is 9"),
        ("ink wash:x", "name:strength"),
        ("a,b,c,d,e,f", "5 LoRAs at most; there are 6"),
        ("ink wash, ink wash", "Each LoRA may be there once"),
    ],
)
async def test_a_lora_that_cannot_be_is_refused_by_name(stage: Stage, lora: str, words: str) -> None:
    save_lora(stage.settings.lora_folder, "ink wash")
    assert words in said(await stage.imagine(lora=lora))
    assert await stage.kiln.queue.job(1) is None


async def test_a_strength_without_a_lora_is_refused(stage: Stage) -> None:
    assert "no LoRA: choose one" in said(await stage.imagine(lora_strength=0.5))


@pytest.mark.parametrize("count", [26, 5000])
async def test_any_number_of_loras_is_searched_and_25_are_offered(stage: Stage, count: int) -> None:
    save_lora(stage.settings.lora_folder, *(f"style {number:04}" for number in range(count)))
    save_lora(stage.settings.lora_folder, "watercolor fox", trigger_words="wtrclr")
    assert len(await choices(stage, "lora", "")) == 25
    assert (
        await choices(stage, "lora", "style 0025")
        == ["style 0025"][:count] + (await choices(stage, "lora", "style 0025"))[1:]
    )
    assert (await choices(stage, "lora", "watercolour fx"))[0] == "watercolor fox"
    assert (await choices(stage, "lora", "wtrclr"))[0] == "watercolor fox"
    assert (await choices(stage, "lora", "style 0001, waterc"))[0] == "style 0001, watercolor fox"


async def test_trigger_words_are_shown_with_a_name(stage: Stage) -> None:
    save_lora(stage.settings.lora_folder, "ink", trigger_words="inkwash, brush")
    (found,) = await stage.alice.autocomplete(stage.channel, "imagine", "lora", "in", prompt="a fox")
    assert found["name"] == "ink · inkwash, brush"


async def test_only_what_fits_into_a_choice_is_offered_and_it_can_be_used(stage: Stage) -> None:
    long, longer = [f"a{n:02}" + "x" * 77 for n in range(30)], "b" * 81
    save_lora(stage.settings.lora_folder, *long, longer, "zebra", trigger_words="inkwash " * 20)
    found = await stage.alice.autocomplete(stage.channel, "imagine", "lora", "", prompt="a fox")
    assert [choice["value"] for choice in found] == long[:25]
    assert all(80 < len(choice["name"]) <= 100 and choice["name"].endswith("…") for choice in found)
    assert await choices(stage, "lora", longer[:40]) == []
    behind = f"{long[0]}, "
    assert await choices(stage, "lora", behind) == [f"{behind}zebra"]
    await stage.imagine(lora=f"{behind}zebra")
    assert [use.name for use in (await job(stage)).request.loras] == [long[0], "zebra"]


async def test_without_a_folder_no_lora_is_offered(stage: Stage) -> None:
    assert await choices(stage, "lora", "ink") == []


# A negative prompt


async def test_a_negative_prompt_has_the_models_scale_and_is_shown(stage: Stage) -> None:
    await stage.imagine(negative="a tree")
    made = (await job(stage)).request
    assert (made.negative, made.cfg_scale) == ("a tree", FAKE_PROFILE.cfg_scale)
    assert "away from: a tree (cfg_scale 2)" in stage.pictures()[0].content


async def test_a_negative_prompt_of_tricks_is_refused(stage: Stage) -> None:
    assert "negative prompt has an invisible" in said(await stage.imagine(negative="a\u202eb"))


# Several pictures


async def test_several_pictures_are_jobs_of_their_own_on_one_card(stage: Stage) -> None:
    await stage.imagine("a red house", count=3, seed=2**32 - 2)
    jobs = [await job(stage, number) for number in (1, 2, 3)]
    assert [one.request.seed for one in jobs] == [2**32 - 2, 2**32 - 1, 0]
    assert {one.status for one in jobs} == {JobStatus.DELIVERED}
    (card,) = [message for message in stage.messages() if not message.attachments]
    assert {one.card_message_id for one in jobs} == {card.id}
    pictures = stage.pictures()
    assert len(pictures) == 3
    await eventually(lambda: all(one.jump_url in text_of(stage.messages()[0]) for one in pictures))


async def test_each_of_several_has_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds = iter(range(100, 200))
    async with open_stage(tmp_path, choose_seed=lambda: next(seeds)) as stage:
        await stage.imagine(count=2)
        assert [(await job(stage, number)).request.seed for number in (1, 2)] == [100, 101]


async def test_several_are_accepted_together_or_not_at_all(tmp_path: Path) -> None:
    async with open_stage(tmp_path, max_waiting_per_user=3) as stage:
        assert "of your jobs wait already" in said(await stage.imagine(count=4))
        assert await stage.kiln.queue.job(1) is None
        await stage.imagine(count=3)
        assert (await job(stage, 3)).count == 3


async def test_one_of_several_is_cancelled_on_their_card(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain", count=3)
    card = stage.messages()[0]
    assert "place" in text_of(card)
    result = await stage.alice.click(card, custom_id="job:2:cancel")
    assert said(result) == "Job 2 is cancelled."
    await eventually(lambda: "`2` Cancelled" in text_of(stage.messages()[0]))
    await eventually(lambda: "`1` Drawing" in text_of(stage.messages()[0]))
    for number in (3, 1):
        await stage.alice.click(stage.messages()[0], custom_id=f"job:{number}:cancel")
    await eventually(lambda: text_of(stage.messages()[0]).count("Cancelled") == 3)


# Private


async def submit_private(stage: Stage) -> None:
    """A private job whose command nobody can answer any more."""
    new = new_job(5, user_id=stage.alice.id)
    new = replace(new, guild_id=stage.guild.id, channel_id=stage.channel.id, private=True)
    await stage.kiln.queue.submit(new)


def everyone_sees(stage: Stage) -> list[Any]:
    return stage.messages()


async def test_a_private_picture_is_seen_by_its_author_alone(stage: Stage) -> None:
    result = await stage.imagine(private=True)
    assert result.response is not None
    assert result.response.ephemeral
    assert everyone_sees(stage) == []
    (picture,) = result.followups
    assert picture.ephemeral
    assert picture.attachments[0].filename.startswith("kiln-1-")
    made = await job(stage)
    assert (made.status, made.private) == (JobStatus.DELIVERED, True)
    assert "Done in" in text_of(result.response)


async def test_a_child_of_a_private_picture_is_private(stage: Stage) -> None:
    result = await stage.imagine(private=True)
    pressed = await stage.alice.click(result.followups[0].message, custom_id="job:1:reroll")
    assert pressed.response is not None
    assert pressed.response.ephemeral
    assert (await job(stage, 2)).private
    assert everyone_sees(stage) == []


async def test_when_the_token_has_died_a_private_picture_comes_directly(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("stuck in the rain", private=True)
    await eventually(lambda: stage.generator.begun)
    await stage.env.advance_time(15 * 60)
    stage.generator.release.set()
    await eventually(lambda: stage.pictures(stage.alice.user.dm_channel))
    (picture,) = stage.pictures(stage.alice.user.dm_channel)
    assert "I may not post" not in picture.content
    assert everyone_sees(stage) == []
    await eventually(lambda: stage.kiln.delivery._posting == set())
    assert (await job(stage)).result_channel_id == stage.alice.user.dm_channel.id


async def test_a_private_job_of_an_earlier_process_comes_directly(stage: Stage) -> None:
    await submit_private(stage)
    stage.kiln.dispatcher.wake()
    await eventually(lambda: stage.pictures(stage.alice.user.dm_channel))
    assert everyone_sees(stage) == []


async def test_a_private_picture_whose_author_takes_no_direct_message_is_kept(stage: Stage) -> None:
    stage.env.inject_error("POST", "/users/@me/channels", status=403, code=50007, times=None)
    await submit_private(stage)
    stage.kiln.dispatcher.wake()
    async with asyncio.timeout(20):
        while (made := await job(stage)).status in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.DRAWN):  # noqa: ASYNC110 - the database: nothing to await
            await asyncio.sleep(0.01)
    assert (made.status, made.reason) == (JobStatus.KEPT, "I may not send it to you directly.")
    assert everyone_sees(stage) == []


async def test_a_private_failure_is_told_on_its_card(stage: Stage) -> None:
    result = await stage.imagine("a broken house", private=True)
    assert result.response is not None
    assert "more memory than the card has" in text_of(result.response)
    assert everyone_sees(stage) == []


async def test_a_private_picture_needs_no_right_to_post_here(stage: Stage) -> None:
    for role in stage.env.backend.get_guild(stage.guild.id).roles.values():
        role.permissions = discord.Permissions(view_channel=True, use_application_commands=True).value
    result = await stage.imagine(private=True)
    assert result.followups[0].attachments
