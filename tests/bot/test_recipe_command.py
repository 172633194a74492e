"""/recipe, Show recipe and Remix: what a picture was drawn from, for whoever may see it, from jobs and from files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import discord
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from simcord import InteractionResult

from bot.queue.job import Job, Verb
from gen.png import Recipe, encode_png
from gen.request import LoraUse, Variation
from tests.bot.conftest import Stage, said, text_of
from tests.fakes import image_request, new_job

REQUEST = image_request(
    "a *red* house @everyone",
    negative="a tree",
    cfg_scale=2.0,
    loras=(LoraUse(name="ink", strength=0.5),),
    variations=(Variation(seed=7, share=0.1),),
)


def kiln_png() -> bytes:
    recipe = Recipe(
        request=REQUEST, model="majicflus", weights_sha256="ab" * 32, dtype="bfloat16", versions={"kiln": "1"}
    )
    return encode_png(Image.new("RGB", (128, 128)), recipe)


def other_png(text: str = "a cat <@123> **x**\nSteps: 20") -> bytes:
    info, file = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


async def recipe(stage: Stage, **options: Any) -> InteractionResult:
    return await stage.alice.slash(stage.channel, "recipe", **options)


async def job(stage: Stage, number: int) -> Job:
    found = await stage.kiln.queue.job(number)
    assert found is not None
    return found


async def test_a_message_of_a_job_tells_all_that_it_asked_for(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42, style="Night", negative="a tree")
    for message in stage.messages():
        words = said(await recipe(stage, message=message.jump_url))
        assert "**a red house at night**" in words
        assert "seed `42` · 256x256" in words
        assert "away from: a tree (cfg_scale 2)" in words
        assert "model: fake" in words
        assert f"job 1, asked for by <@{stage.alice.id}>" in words
        assert "style: Night" in words


async def test_a_file_of_kilns_is_read_back_and_its_text_is_inert(stage: Stage) -> None:
    words = said(await recipe(stage, picture=("a.png", kiln_png())))
    assert r"**a \*red\* house @​everyone**" in words
    assert "seed `42` · 128x128 · 4 steps · guidance 3.5" in words
    assert "LoRA: ink:0.5" in words
    assert "mixed with the noise of seed `7` 10%" in words
    assert "model: majicflus" in words
    assert "Here fake draws now" in words
    assert "weights ababababab, bfloat16, kiln 1" in words
    assert "whoever sent it may have changed that" in words


async def test_another_programs_picture_says_what_stands_in_it(stage: Stage) -> None:
    words = said(await recipe(stage, picture=("a.png", other_png())))
    assert "Another program drew this" in words
    assert r"a cat \<@​123\> \*\*x\*\* Steps: 20" in words


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (("notes.png", b"just text"), "This is not a PNG file."),
        (("a.txt", b""), "This is not a PNG file."),
        (("a.png", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\x27\x0f" * 2 + bytes(99)), "9999x9999 pixels"),
        (("a.png", other_png("x" * 30_000)), "30,000 characters; 20,000 is the most"),
        (("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100)), "This is not a PNG file."),
    ],
)
async def test_a_file_that_is_no_picture_of_kilns_says_why(stage: Stage, file: tuple[str, bytes], words: str) -> None:
    assert words in said(await recipe(stage, picture=file))


async def test_what_a_forged_recipe_says_is_inert_in_the_words_about_it(stage: Stage) -> None:
    told = json.loads(Recipe(request=REQUEST, model="m", weights_sha256="", dtype="", versions={}).as_json())
    for name, value in (("loras", [{"name": "[x](https://a.b)", "strength": 1}]), ("seed", "**[x](https://a.b)**")):
        info, file = PngInfo(), io.BytesIO()
        info.add_itxt("kiln", json.dumps({**told, name: value}))
        Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
        words = said(await recipe(stage, picture=("x.png", file.getvalue())))
        assert (r"\[x\](https:\//a.b)" in words, "**" in words) == (True, False)


async def test_a_picture_without_a_recipe_says_so(stage: Stage) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    assert "has no recipe" in said(await recipe(stage, picture=("a.png", file.getvalue())))


async def test_one_of_picture_and_message_is_wanted(stage: Stage) -> None:
    assert "either a picture or a message's link" in said(await recipe(stage))
    both = {"picture": ("a.png", kiln_png()), "message": "https://discord.com/channels/1/2/3"}
    assert "either a picture or a message's link" in said(await recipe(stage, **both))


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("hello", "no link of a message"),
        ("https://example.com/channels/1/2/3", "no link of a message"),
        ("https://discord.com.evil.com/channels/1/2/3", "no link of a message"),
        ("https://discord.com/channels/1/2/3", "not in this server"),
        ("https://discord.com/channels/@me/2/3", "not in this server"),
        ("https://discord.com/channels/{guild}/2/3", "You cannot read that message"),
        ("https://discord.com/channels/{guild}/{channel}/3", "I cannot read that message"),
        ("<https://canary.discord.com/channels/{guild}/{channel}/3>", "I cannot read that message"),
        ("https://discord.com/channels/" + "9" * 150, "no link of a message"),
    ],
)
async def test_a_link_that_leads_nowhere_says_why(stage: Stage, link: str, words: str) -> None:
    assert words in said(await recipe(stage, message=link.format(guild=stage.guild.id, channel=stage.channel.id)))


async def test_a_message_in_a_channel_that_one_cannot_read_stays_unread(stage: Stage) -> None:
    unseen = discord.PermissionOverwrite(view_channel=False)
    hidden = stage.guild.create_text_channel("hidden", overwrites={stage.alice: unseen})
    boss = stage.guild.add_member(stage.env.create_user("boss"))
    await boss.slash(hidden, "imagine", prompt="a secret")
    link = stage.pictures(hidden)[0].jump_url
    assert "You cannot read that message" in said(await recipe(stage, message=link))
    picture = stage.pictures(hidden)[0]
    forged = f"https://discord.com/channels/{stage.guild.id}/{stage.channel.id}/{picture.id}"
    assert "I cannot read that message" in said(await recipe(stage, message=forged))


async def test_a_deleted_picture_and_a_private_job_stay_unread(stage: Stage) -> None:
    await stage.imagine()
    card, picture = stage.messages()
    await stage.alice.click(picture, custom_id="job:1:delete")
    assert "was deleted" in said(await recipe(stage, message=card.jump_url))
    new = replace(new_job(5, user_id=1), guild_id=stage.guild.id, channel_id=stage.channel.id, private=True)
    secret = await stage.kiln.queue.submit(new)
    await stage.kiln.queue.record_card(secret.id, message_id=99)
    link = f"https://discord.com/channels/{stage.guild.id}/{stage.channel.id}/99"
    assert "somebody else's" in said(await recipe(stage, message=link))


async def test_show_recipe_in_a_messages_menu(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42)
    result = await stage.alice.context_menu(stage.channel, "Show recipe", stage.pictures()[0])
    assert "seed `42`" in said(result)
    sent = await stage.alice.send(stage.channel, "look", attachments=[("a.png", kiln_png())])
    assert "model: majicflus" in said(await stage.alice.context_menu(stage.channel, "Show recipe", sent))
    plain = await stage.alice.send(stage.channel, "no picture")
    assert "That message has no picture." in said(await stage.alice.context_menu(stage.channel, "Show recipe", plain))


async def test_remixing_goes_on_from_a_job_and_links_to_it(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42)
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    shown = await bob.context_menu(stage.channel, "Remix", stage.pictures()[0])
    await bob.submit_modal(shown, {"prompt": "a blue house", "seed": "42", "size": ["256x256"], "numbers": "2, 3.5"})
    child = await job(stage, 2)
    assert (child.verb, child.parent_id, child.user_id) == (Verb.REMIX, 1, bob.id)
    assert "🎛️ Remixed from [job 1]" in stage.pictures()[1].content


async def test_remixing_a_file_starts_from_what_it_says(stage: Stage) -> None:
    sent = await stage.alice.send(stage.channel, "look", attachments=[("a.png", kiln_png())])
    shown = await stage.alice.context_menu(stage.channel, "Remix", sent)
    assert shown.modal is not None
    assert shown.modal["title"] == "Remix, without its negative prompt"
    values = {"prompt": "a blue house", "seed": "42", "size": ["128x128"], "numbers": "2, 3.5", "loras": ""}
    await stage.alice.submit_modal(shown, values)
    made = await job(stage, 1)
    assert (made.request.prompt, made.request.size, made.parent_id) == ("a blue house", "128x128", None)
    other = await stage.alice.send(stage.channel, "look", attachments=[("a.png", other_png())])
    assert "not go on from it" in said(await stage.alice.context_menu(stage.channel, "Remix", other))


def test_the_longest_recipe_fits() -> None:
    from bot.cards.recipes import Found, recipe_view
    from bot.language import say_in

    longest = replace(
        REQUEST,
        prompt="*" * 999 + "a",
        negative="_" * 999 + "a",
        loras=tuple(LoraUse(name=f"{n}" + "_" * 79, strength=-3.9) for n in range(5)),
        variations=(Variation(seed=2**32 - 1, share=0.1),) * 10,
    )
    view = recipe_view(say_in("zh-CN"), Found(request=longest), here="x" * 200)
    assert view.content_length() <= 4000
    assert "seed" not in text_of_view(view)
    assert "LoRA: 4" in text_of_view(view)


def text_of_view(view: discord.ui.LayoutView) -> str:
    class Sent:
        content, components = "", view.to_components()  # type: ignore[no-untyped-call]

    return text_of(Sent())
