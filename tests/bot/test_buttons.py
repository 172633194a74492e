"""Buttons under cards and pictures: what each does, who may, and that they work for ever."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
import pytest
from PIL import Image
from simcord import InteractionResult, MemberActor
from simcord.actors import _dispatch_actor_interaction
from simcord.enums import InteractionType

from bot.cards.buttons import Press
from bot.client import create_bot
from bot.errors import Refusal
from bot.language import say_in
from bot.panel.words import entry_words
from bot.queue.job import Job, JobStatus, Verb
from bot.servers.server import Act
from gen.request import STRONG, SUBTLE, LoraUse, Variation
from tests.bot.conftest import CHOSEN_SEED, Stage, eventually, open_stage, said, save_lora, text_of
from tests.fakes import FakeGenerator, image_request, new_job, picture

OLD_FIELDS = {"prompt": "a green house", "seed": "5", "size": "256x128", "numbers": "3, 2.5", "loras": "ink:0.5, oil"}


async def press(stage: Stage, name: str, *, job: int = 1, by: MemberActor | None = None) -> InteractionResult:
    """Click the button, wherever it stands."""
    wanted = f"job:{job}:{name}"
    for message in stage.messages():
        if wanted in str([row.to_dict() for row in message.components]):
            return await (by or stage.alice).click(message, custom_id=wanted)
    raise AssertionError(f"there is no button {wanted}")


async def forge(stage: Stage, custom_id: str, *, by: MemberActor | None = None) -> InteractionResult:
    """Press a button that stands on no message of the bot's, as a modified client might."""
    source = stage.pictures()[0]
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "x", "custom_id": custom_id}]}
    stored = stage.env.backend.get_message(source.channel.id, source.id)
    kept, stored.components = stored.components, [row]
    try:
        return await (by or stage.alice).click(source, custom_id=custom_id)
    finally:
        stored.components = kept


def buttons(message: discord.Message) -> list[str]:
    """What a message's buttons do."""
    return re.findall(r"'job:\d+:([a-z]+)'", str([row.to_dict() for row in message.components]))


async def job(stage: Stage, number: int) -> Job:
    found = await stage.kiln.queue.job(number)
    assert found is not None
    return found


def moderator(stage: Stage) -> MemberActor:
    role = stage.guild.create_role("mods", permissions=discord.Permissions(manage_messages=True))
    return stage.guild.add_member(stage.env.create_user("mod"), roles=[role])


def bob(stage: Stage) -> MemberActor:
    return stage.guild.add_member(stage.env.create_user("bob"))


async def test_a_picture_has_its_buttons_and_a_card_those_of_its_state(stage: Stage) -> None:
    await stage.imagine()
    await stage.imagine("a broken house")
    done, shown, failed = stage.messages()
    assert buttons(done) == []
    assert buttons(shown) == ["reroll", "subtle", "strong", "edit", "reproduce", "delete"]
    assert buttons(failed) == ["retry", "edit"]


async def test_a_re_roll_is_the_same_with_another_seed_and_its_card_links_to_its_parent(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42, size="256x128", steps=3)
    result = await press(stage, "reroll", by=bob(stage))
    first, child = await job(stage, 1), await job(stage, 2)
    assert child.request == replace(first.request, seed=CHOSEN_SEED)
    assert (child.parent_id, child.verb, child.user_id) == (1, Verb.REROLL, stage.env.backend.users[child.user_id].id)
    assert child.user_id != first.user_id
    card = result.response
    assert card is not None
    link = stage.pictures()[0].jump_url
    assert f"🎲 Another seed of [job 1]({link})" in text_of(card)
    assert f"🎲 Another seed of [job 1]({link})" in stage.pictures()[1].content


@pytest.mark.parametrize(("name", "share"), [("subtle", SUBTLE), ("strong", STRONG)])
async def test_a_variation_keeps_the_seed_and_mixes_another_in(stage: Stage, name: str, share: float) -> None:
    await stage.imagine(seed=42)
    await press(stage, name)
    await press(stage, "subtle", job=2)
    first, grandchild = await job(stage, 2), await job(stage, 3)
    mixed = Variation(seed=CHOSEN_SEED, share=share)
    assert (first.request.seed, first.request.variations) == (42, (mixed,))
    assert grandchild.request.variations == (mixed, Variation(seed=CHOSEN_SEED, share=SUBTLE))
    assert "mixed with the noise of seed" in stage.pictures()[1].content


async def test_reproducing_says_that_every_pixel_is_the_same(stage: Stage) -> None:
    await stage.imagine(seed=42)
    await press(stage, "reproduce")
    assert (await job(stage, 2)).request == (await job(stage, 1)).request
    assert "identical: every pixel is the same" in stage.pictures()[1].content


async def test_reproducing_says_how_far_off_it_is(stage: Stage) -> None:
    await stage.imagine(seed=42, size="128x128", steps=4)
    first = stage.settings.data / ((await job(stage, 1)).picture or "")
    first.write_bytes(picture(image_request(seed=52)))  # what another machine might have drawn: red is ten off
    await press(stage, "reproduce")
    words = "not identical: 100.0% of the pixels differ, by 3.33 of 255 on average, 10 at most"
    assert words in stage.pictures()[1].content
    first.unlink()
    await press(stage, "reproduce")
    assert "the first picture's file is missing" in stage.pictures()[2].content


async def test_editing_offers_what_was_asked_and_takes_what_comes_back(stage: Stage) -> None:
    save_lora(stage.settings.lora_folder, "ink", "oil")
    await stage.imagine("a red house", seed=42, size="256x128")
    shown = await press(stage, "edit")
    assert shown.modal is not None
    fields = {part["component"]["custom_id"]: part["component"] for part in shown.modal["components"]}
    assert (fields["prompt"]["value"], fields["seed"]["value"]) == ("a red house", "42")
    assert [o["value"] for o in fields["size"]["options"] if o.get("default")] == ["256x128"]
    await stage.alice.submit_modal(shown, {**OLD_FIELDS, "size": ["256x128"]})
    child = await job(stage, 2)
    assert (child.request.prompt, child.request.seed, child.request.size) == ("a green house", 5, "256x128")
    assert (child.request.steps, child.request.guidance) == (3, 2.5)
    assert child.request.loras == (LoraUse(name="ink", strength=0.5), LoraUse(name="oil", strength=1.0))
    assert child.verb is Verb.EDIT
    assert "✏️ Edited from [job 1]" in text_of(stage.messages()[2])


async def test_an_empty_seed_in_the_dialog_is_a_new_one(stage: Stage) -> None:
    await stage.imagine(seed=42)
    shown = await press(stage, "edit")
    await stage.alice.submit_modal(shown, {**OLD_FIELDS, "seed": "", "size": ["256x256"], "loras": ""})
    assert (await job(stage, 2)).request.seed == CHOSEN_SEED


async def test_enter_in_the_dialogs_large_field_is_a_space_of_the_prompt(stage: Stage) -> None:
    await stage.imagine()
    shown = await press(stage, "edit")
    typed = {**OLD_FIELDS, "prompt": "a green house\nby the sea, \r\n\n at night\n", "size": ["256x256"], "loras": ""}
    await stage.alice.submit_modal(shown, typed)
    assert (await job(stage, 2)).request.prompt == "a green house by the sea, at night"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seed", "-1", "whole number from 0 to 4,294,967,295; it is '-1'"),
        ("seed", "9" * 20, "The seed must be from 0"),
        ("seed", "many", "it is 'many'"),
        ("numbers", "20", "two numbers, such as 20, 3.5; it is '20'"),
        ("numbers", "99, 3.5", "The steps must be from 1 to 50; it is 99"),
        ("numbers", "4, 99", "The guidance must be from 1.0 to 10.0; it is 99"),
        ("numbers", "4, " + "9" * 100, "two numbers"),
        ("prompt", "```", "at least one letter or digit"),
        ("loras", "../../etc/passwd:1", "no LoRA named '../../etc/passwd'"),
        ("loras", "ink:much", "name:strength, such as ink:0.8; it is 'ink:much'"),
        ("loras", "inkk:1", "There is no LoRA named 'inkk'; did you mean ink?"),
        ("loras", "a,b,c,d,e,f", "5 LoRAs at most; there are 6"),
        ("loras", "a,a", "Each LoRA may be there once"),
        ("loras", "a:nan", "strength of a must be from -4.0 to 4.0"),
    ],
)
async def test_junk_in_the_dialog_is_a_clear_word_and_no_job(stage: Stage, field: str, value: str, words: str) -> None:
    save_lora(stage.settings.lora_folder, "ink", "oil")
    await stage.imagine()
    shown = await press(stage, "edit")
    result = await stage.alice.submit_modal(shown, {**OLD_FIELDS, "size": ["256x256"], field: value})
    assert words in said(result)
    assert await stage.kiln.queue.job(2) is None


@pytest.mark.parametrize(
    "data",
    [
        {"components": None},
        {"components": []},
        {"components": [1, None, {"component": 5}, {"custom_id": "prompt", "value": {"a": 1}}]},
        {"components": [{"type": 18, "component": {"custom_id": "size", "values": ["99999x1"]}}]},
    ],
)
async def test_a_dialog_of_junk_is_answered(stage: Stage, data: dict[str, Any]) -> None:
    await stage.imagine()
    result = await _dispatch_actor_interaction(
        stage.alice, InteractionType.MODAL_SUBMIT, stage.channel, {"custom_id": "job:1:edited", **data}
    )
    assert said(result)
    assert await stage.kiln.queue.job(2) is None


async def test_trying_again_costs_nothing_and_works_once(tmp_path: Path) -> None:
    async with open_stage(tmp_path, burst=1, pictures_per_hour=1, gpu_seconds_per_day=10) as stage:
        await stage.imagine("a broken house")
        stage.generator._misbehave = lambda request: None  # type: ignore[method-assign]  # the fault is mended
        await press(stage, "retry")
        retried = await job(stage, 2)
        assert (retried.status, retried.request) == (JobStatus.DELIVERED, (await job(stage, 1)).request)
        assert "Job 1 was tried again already, as job 2." in said(await press(stage, "retry"))
        await stage.imagine("this one counts")
        assert (await job(stage, 3)).status is JobStatus.DELIVERED
        assert "That is a lot of pictures" in said(await stage.imagine("and this is one too many"))


async def test_a_job_that_waits_or_runs_is_cancelled_by_its_owner_once(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await stage.imagine("a second picture")
    assert said(await press(stage, "cancel", job=2)) == "Job 2 is cancelled."
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[1]))
    assert buttons(stage.messages()[1]) == ["reroll", "edit"]
    assert said(await forge_cancel(stage, 2)) == "Job 2 is over already: it is cancelled."
    assert said(await press(stage, "cancel", job=1)) == "Job 1 is being stopped."
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[0]))


async def forge_cancel(stage: Stage, number: int) -> InteractionResult:
    """Press a cancel button that an old client still shows."""
    card = stage.messages()[0]
    stored = stage.env.backend.get_message(card.channel.id, card.id)
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "x", "custom_id": f"job:{number}:cancel"}]}
    kept, stored.components = stored.components, [row]
    try:
        return await stage.alice.click(card, custom_id=f"job:{number}:cancel")
    finally:
        stored.components = kept


async def test_what_there_is_nothing_to_do_with_is_said(stage: Stage) -> None:
    await stage.imagine()
    assert "did not fail, so there is nothing to try again" in said(await forge(stage, "job:1:retry"))
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: len(stage.generator.begun) == 2)
    assert "has no picture to compare with" in said(await forge(stage, "job:2:reproduce"))
    assert "has no picture to delete: it is being drawn" in said(await forge(stage, "job:2:delete"))
    await press(stage, "cancel", job=2)


async def test_a_message_that_cannot_be_taken_away_is_said_and_the_picture_is_gone_all_the_same(stage: Stage) -> None:
    await stage.imagine()
    picture = stage.pictures()[0]
    path = f"/channels/{picture.channel.id}/messages/{picture.id}"
    stage.env.inject_error("DELETE", path, status=403, code=50013, times=None)
    assert "but its message stays: I cannot take it away" in said(await press(stage, "delete"))
    assert (await job(stage, 1)).deleted_at is not None
    assert not list((stage.settings.data / "pictures").rglob("*.png"))


async def test_of_two_who_delete_at_once_one_finds_the_message_gone(stage: Stage) -> None:
    await stage.imagine()
    picture = stage.pictures()[0]
    path = f"/channels/{picture.channel.id}/messages/{picture.id}"
    stage.env.inject_error("DELETE", path, status=404, code=10008, times=None)
    assert said(await press(stage, "delete")) == "The picture of job 1 is deleted."


async def test_nobody_else_cancels_or_tries_again_but_a_moderator_cancels(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await stage.imagine("a second picture")
    words = "Job 2 is somebody else's: only they may do that."
    assert said(await press(stage, "cancel", job=2, by=bob(stage))) == words
    assert (await job(stage, 2)).status is JobStatus.QUEUED
    assert said(await press(stage, "cancel", job=2, by=moderator(stage))) == "Job 2 is cancelled."
    await press(stage, "cancel", job=1)
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[0]))


async def test_what_a_moderator_takes_from_others_by_button_is_in_the_audit_log(stage: Stage) -> None:
    stage.detach()
    await stage.imagine()
    await eventually(lambda: "[the picture]" in text_of(stage.messages()[0]))
    await stage.imagine("endless rain")
    await stage.imagine("a third picture")
    by = moderator(stage)
    await press(stage, "delete", by=by)
    await press(stage, "cancel", job=3, by=by)
    await press(stage, "cancel", job=2)  # her own: nobody's business
    entries = await stage.kiln.keepers.audit.of_server(stage.guild.id, limit=9)
    noted = [(entry.act, entry.job_id, entry.actor_id, entry.user_id) for entry in reversed(entries)]
    assert noted == [(Act.DELETE, 1, by.id, stage.alice.id), (Act.CANCEL, 3, by.id, stage.alice.id)]
    assert entry_words(say_in("en"), entries[1]) == f"<@{by.id}> deleted the picture of job 1 of <@{stage.alice.id}>."
    assert (await job(stage, 3)).reason == "A moderator cancelled it."
    await eventually(lambda: "Cancelled: A moderator cancelled it." in text_of(stage.messages()[-1]))


async def test_the_card_of_a_drawing_that_a_moderator_stopped_says_so(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: "Drawing" in text_of(stage.messages()[0]))
    assert said(await press(stage, "cancel", by=moderator(stage))) == "Job 1 is being stopped."
    await eventually(lambda: "Cancelled: A moderator cancelled it." in text_of(stage.messages()[0]))


async def test_a_moderators_second_delete_leaves_no_second_line(stage: Stage) -> None:
    await stage.imagine()
    await stage.imagine("another, to press on")
    await press(stage, "delete", by=moderator(stage))
    with pytest.raises(Refusal):
        await stage.kiln.queue.removal.remove(1, moderator_id=5)
    assert len(await stage.kiln.keepers.audit.of_server(stage.guild.id, limit=9)) == 1


async def test_nobody_else_tries_a_failed_job_again(stage: Stage) -> None:
    await stage.imagine("a broken house")
    assert "somebody else's" in said(await press(stage, "retry", by=bob(stage)))
    assert "somebody else's" in said(await press(stage, "retry", by=moderator(stage)))


@pytest.mark.parametrize("who", ["author", "moderator"])
async def test_deleting_takes_the_message_and_the_file_away(stage: Stage, who: str) -> None:
    await stage.imagine()
    file = stage.settings.data / ((await job(stage, 1)).picture or "")
    by = stage.alice if who == "author" else moderator(stage)
    assert said(await press(stage, "delete", by=by)) == "The picture of job 1 is deleted."
    assert not stage.pictures()
    assert not file.exists()
    assert (await job(stage, 1)).deleted_at is not None
    await eventually(lambda: "Deleted" in text_of(stage.messages()[0]))


async def test_nobody_else_deletes_a_picture(stage: Stage) -> None:
    await stage.imagine()
    assert "somebody else's" in said(await press(stage, "delete", by=bob(stage)))
    assert stage.pictures()


@pytest.mark.parametrize("name", [press.value for press in Press])
async def test_on_a_deleted_job_every_button_says_so(stage: Stage, name: str) -> None:
    await stage.imagine()
    await stage.imagine("another, to press on")
    await press(stage, "delete")
    assert said(await forge(stage, f"job:1:{name}")) == "The picture of job 1 was deleted."


async def test_a_child_of_a_deleted_picture_names_it_without_a_link(stage: Stage) -> None:
    await stage.imagine()
    await press(stage, "reroll")
    await press(stage, "delete")
    await press(stage, "reroll", job=2)
    stage.kiln.delivery.cancelled(await job(stage, 2))
    await eventually(lambda: "🎲 Another seed of job 1\n" in text_of(stage.messages()[1]) + "\n")


@pytest.mark.parametrize("name", [press.value for press in Press])
@pytest.mark.parametrize("number", ["99", "999999999999999"])
async def test_a_forged_number_says_that_there_is_no_such_job(stage: Stage, name: str, number: str) -> None:
    await stage.imagine()
    assert f"There is no job {int(number)} here." == said(await forge(stage, f"job:{number}:{name}"))


async def test_a_job_of_another_server_is_not_there(stage: Stage) -> None:
    await stage.imagine()
    await stage.kiln.queue.submit(replace(new_job(5), user_id=stage.alice.id))
    assert said(await forge(stage, "job:2:reroll")) == "There is no job 2 here."


async def test_a_button_of_another_kiln_says_so(stage: Stage) -> None:
    await stage.imagine()
    assert "another version of Kiln" in said(await forge(stage, "job:1:dance"))


@pytest.mark.parametrize("custom_id", ["job:1:", "job::reroll", "job:-1:reroll", "job:1:re roll", "job:" + "9" * 80])
async def test_what_is_no_button_of_a_job_does_nothing(stage: Stage, custom_id: str) -> None:
    await stage.imagine()
    result = await forge(stage, custom_id)
    assert result.response is None
    assert await stage.kiln.queue.job(2) is None


async def test_a_private_job_is_for_its_owner_alone(stage: Stage) -> None:
    await stage.imagine()
    secret = replace(new_job(5), user_id=stage.alice.id, guild_id=stage.guild.id, private=True)
    await stage.kiln.queue.submit(secret)
    assert "somebody else's" in said(await forge(stage, "job:2:reroll", by=bob(stage)))


async def test_buttons_and_dialogs_work_after_a_restart(stage: Stage) -> None:
    await stage.imagine(seed=42)
    shown = await press(stage, "edit")
    await stage.env.restart_bot(create_bot(stage.kiln))
    await press(stage, "reroll")
    assert (await job(stage, 2)).verb is Verb.REROLL
    await stage.alice.submit_modal(shown, {**OLD_FIELDS, "size": ["256x256"], "loras": ""})
    assert (await job(stage, 3)).request.prompt == "a green house"


@pytest.mark.parametrize("name", [press for press in Press if press not in (Press.CANCEL, Press.RETRY)])
async def test_every_button_of_a_picture_works_after_a_restart(stage: Stage, name: str) -> None:
    await stage.imagine(seed=42)
    await stage.env.restart_bot(create_bot(stage.kiln))
    pressed = await press(stage, name)
    made = await stage.kiln.queue.job(2)
    match name:
        case Press.EDIT:
            assert pressed.modal is not None
        case Press.DELETE:
            assert (stage.pictures(), "is deleted" in said(pressed)) == ([], True)
        case _:
            assert made is not None
            assert (made.verb, made.parent_id) == (Verb(name), 1)


async def test_cancel_and_try_again_work_after_a_restart(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("broken")
    await eventually(lambda: "job:1:retry" in str([m.components for m in stage.messages()]))
    await stage.imagine("endless rain")
    await eventually(lambda: len(stage.generator.begun) == 2)
    await stage.env.restart_bot(create_bot(stage.kiln))
    assert "is being stopped" in said(await press(stage, "cancel", job=2))
    await press(stage, "retry")
    assert (await job(stage, 3)).verb is Verb.RETRY


async def test_a_button_works_on_a_job_of_a_kiln_before_buttons(stage: Stage) -> None:
    await stage.imagine(seed=42)

    def age(session: Any) -> None:
        from sqlalchemy import text

        session.execute(text("UPDATE jobs SET created_at = '2020-01-01 00:00:00.000000', model = NULL, locale = NULL"))

    await stage.kiln.queue._database.write(age)
    await press(stage, "strong")
    assert (await job(stage, 2)).verb is Verb.STRONG


async def test_a_bug_behind_a_button_is_a_sentence_and_a_traceback_for_the_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.imagine()
    gone: dict[str, Any] = {}
    monkeypatch.setattr("bot.cogs.buttons.child_request", lambda *_, **__: gone["request"])
    assert "it is not your fault" in said(await press(stage, "reroll"))
    assert "KeyError" in caplog.text


async def test_limits_hold_for_buttons(tmp_path: Path) -> None:
    async with open_stage(tmp_path, burst=1, pictures_per_hour=1) as stage:
        await stage.imagine()
        for name in ("reroll", "subtle", "strong", "reproduce"):
            assert "That is a lot of pictures" in said(await press(stage, name))


async def test_who_may_not_post_here_is_told_before_anything_is_stored(stage: Stage) -> None:
    await stage.imagine()
    for role in stage.env.backend.get_guild(stage.guild.id).roles.values():
        role.permissions &= ~discord.Permissions(attach_files=True, administrator=True).value
    assert "I may not post pictures here" in said(await press(stage, "reroll"))
    assert await stage.kiln.queue.job(2) is None


async def test_a_preview_is_on_the_card_while_it_is_drawn_and_goes_with_the_end(tmp_path: Path) -> None:

    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG")
    generator = FakeGenerator(preview=file.getvalue())
    async with open_stage(tmp_path, generator=generator) as stage:
        stage.detach()
        await stage.imagine("endless rain")

        def shown() -> Any:
            (card,) = stage.messages()
            return card.attachments and card

        drawing = await eventually(shown)
        assert drawing.attachments[0].filename == "preview.jpg"
        assert "AI-generated picture: endless rain" in str([part.to_dict() for part in drawing.components])
        await press(stage, "cancel")
        await eventually(lambda: "Cancelled" in text_of(stage.messages()[0]))
        assert not stage.messages()[0].attachments
