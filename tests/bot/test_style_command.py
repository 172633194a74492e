"""/style: a server's own styles, offered to its members first, for those who may manage it to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import discord
import pytest
from simcord import InteractionResult, MemberActor

from bot.asking.server_styles import STYLES_MAX, ServerStyles
from bot.asking.styles import Style
from bot.errors import Refusal
from gen.request import LoraUse
from tests.bot.conftest import Stage, open_stage, said, save_lora
from tests.bot.keepers import enter


def keeper(stage: Stage, name: str = "keeper") -> MemberActor:
    role = stage.guild.create_role("keepers", permissions=discord.Permissions(manage_guild=True))
    return stage.guild.add_member(stage.env.create_user(name), roles=[role])


async def add(stage: Stage, by: MemberActor, **options: Any) -> InteractionResult:
    return await by.slash(stage.channel, "style add", **options)


async def test_a_servers_style_is_offered_first_and_drawn(stage: Stage) -> None:
    save_lora(stage.settings.lora_folder, "ink")
    told = {"name": "House look", "before": "our", "after": "as we like it", "shape": "16:9", "steps": 3}
    words = said(await add(stage, keeper(stage), **told, guidance=2.0, lora="ink:0.5", negative="fog"))
    assert "This server has the style **House look** now: our …, as we like it · 16:9 · 3 steps · guidance 2" in words
    assert words.endswith("away from: fog · LoRA ink:0.5")
    found = await stage.alice.autocomplete(stage.channel, "imagine", "style", "", prompt="a fox")
    assert found[0]["value"] == "House look"
    assert "away from: fog" in found[0]["name"]
    assert len(found) == 13
    await stage.imagine("red house", style="house LOOK")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    request = job.request
    assert (request.prompt, request.steps, request.guidance) == ("our red house, as we like it", 3, 2.0)
    assert (request.negative, request.loras, job.style) == ("fog", (LoraUse(name="ink", strength=0.5),), "House look")


async def test_a_style_outlives_a_restart_and_is_changed_and_taken_away(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        await add(stage, keeper(stage), name="Ours", after="in blue")
    async with open_stage(tmp_path) as stage:
        boss = keeper(stage)
        assert stage.kiln.styles.of(stage.guild.id) == (Style(name="Ours", suffix=", in blue"),)
        await add(stage, boss, name="OURS", after="in red")
        assert [one.suffix for one in stage.kiln.styles.of(stage.guild.id)] == [", in red"]
        (choice,) = await boss.autocomplete(stage.channel, "style remove", "name", "ou")
        assert choice["name"] == "OURS: …, in red"
        assert said(await boss.slash(stage.channel, "style remove", name="ours")) == "The style **OURS** is gone."
        assert "There is no style 'Ours'" in said(await stage.imagine(style="Ours"))
        gone = said(await boss.slash(stage.channel, "style remove", name="_ours_ <@1>"))
        assert gone == r"This server has no style **\_ours\_ \<@​1\>** of its own."


async def test_the_log_channel_hears_of_styles_that_come_change_and_go(stage: Stage) -> None:
    keepers = enter(stage)
    await keepers.change(log_channel_id=keepers.log.id)
    await add(stage, keepers.keeper, name="O_u_rs", after="in blue", negative="fog")
    await keepers.keeper.slash(stage.channel, "style remove", name="o_u_rs")
    who = f"<@{keepers.keeper.id}>"
    assert keepers.posts()[-2:] == [
        rf"{who} set the style O\_u\_rs: …, in blue · away from: fog",
        rf"{who} took the style O\_u\_rs away.",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a\u202eb"}, "name has an invisible"),
        ({"name": "🎈"}, "name needs at least one letter"),
        ({"name": "Photo"}, "Photo is a style that Kiln comes with"),
        ({"name": "x", "before": "a" * 300, "after": "b" * 200}, "400 characters together; they have 503"),
        ({"name": "x", "after": "a\u202eb"}, "invisible or control"),
        ({"name": "x", "negative": "🎈"}, "negative prompt needs at least one letter"),
        ({"name": "x", "lora": "../../etc/passwd"}, "no LoRA named"),
        ({"name": "x", "lora": "gone"}, "no LoRA named 'gone'"),
    ],
)
async def test_a_style_that_cannot_be_drawn_is_refused(stage: Stage, options: dict[str, Any], words: str) -> None:
    assert words in said(await add(stage, keeper(stage), **options))
    assert stage.kiln.styles.of(stage.guild.id) == ()


async def test_all_words_of_the_longest_style_are_told_and_offered_as_far_as_a_choice_holds(stage: Stage) -> None:
    words = said(await add(stage, keeper(stage), name="x" * 40, after="_" * 397 + "a", negative="*" * 399 + "b"))
    assert words.endswith(r"\*b")
    assert len(words) <= 2000
    found = await stage.alice.autocomplete(stage.channel, "imagine", "style", "x", prompt="a fox")
    assert len(found[0]["name"]) == 100


async def test_only_who_may_manage_the_server_changes_its_styles(stage: Stage) -> None:
    assert "style" not in stage.alice.available_commands(stage.channel)
    member = keeper(stage)
    (style,) = [one for one in await stage.bot.tree.fetch_commands() if one.name == "style"]
    stage.guild.set_command_permissions(style, {stage.alice: True})  # an override lets Alice at it
    assert "permission Manage Server" in said(await add(stage, stage.alice, name="x", after="y"))
    assert "style **x** now" in said(await add(stage, member, name="x", after="y"))


async def test_styles_are_of_their_server_alone_and_not_too_many(stage: Stage) -> None:
    styles: ServerStyles = stage.kiln.styles
    for number in range(STYLES_MAX):
        await styles.put(1, Style(name=f"style {number}"), actor_id=1)
    assert styles.of(2) == ()
    with pytest.raises(Refusal, match="50 styles of its own"):
        await styles.put(1, Style(name="one more"), actor_id=1)
    await styles.put(1, Style(name="style 0", suffix=", changed"), actor_id=1)
    await styles.put(2, Style(name="one more"), actor_id=1)
    assert len(styles.of(1)) == STYLES_MAX


async def set_default(stage: Stage, name: str | None) -> None:
    await stage.kiln.keepers.servers.change(stage.guild.id, actor_id=1, default_style=name)


async def test_the_servers_default_style_is_for_whoever_names_none(stage: Stage) -> None:
    await add(stage, keeper(stage), name="Ours", after="in blue")
    await set_default(stage, "ours")
    await stage.imagine("a fox")
    await stage.imagine("a fox", style="Night")
    await stage.imagine("a fox", style="-")
    await stage.alice.slash(stage.channel, "settings", style="Watercolour")
    await stage.imagine("a fox")
    await stage.alice.slash(stage.channel, "settings", reset="style")
    await stage.kiln.styles.remove(stage.guild.id, "Ours", actor_id=1)
    await stage.imagine("a fox")
    jobs = [await stage.kiln.queue.job(number) for number in range(1, 6)]
    assert [job and job.style for job in jobs] == ["Ours", "Night", None, "Watercolour", None]
    assert jobs[0] is not None
    assert jobs[0].request.prompt == "a fox, in blue"
