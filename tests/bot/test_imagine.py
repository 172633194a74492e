"""/imagine, from the option to the picture."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import discord
import pytest
from simcord import OptionError
from simcord.actors import _dispatch_actor_interaction
from simcord.enums import InteractionType

from bot.answers import in_time
from bot.errors import QueueUnavailable
from bot.queue.job import JobStatus
from gen.errors import InvalidRequest
from gen.prompt import split_seed
from gen.request import SEED_MAX
from tests.bot.conftest import CHOSEN_SEED, Stage, eventually, open_stage, opened_png, said, text_of
from tests.fakes import FakeGenerator


async def test_a_prompt_becomes_a_picture_that_notifies_its_author_alone(stage: Stage) -> None:
    await stage.imagine("a red house", seed=42, size="256x128", steps=3, guidance=2.5)
    (picture,) = stage.pictures()
    assert stage.notified(picture) == {stage.alice.id}
    assert "a red house" in picture.content
    assert "seed `42` · 256x128 · 3 steps · guidance 2.5" in picture.content
    assert picture.attachments[0].filename.startswith("kiln-1-")


async def test_the_picture_on_disk_is_the_one_that_was_asked_for(stage: Stage) -> None:
    await stage.imagine(size="256x128")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert job.status is JobStatus.DELIVERED
    assert job.picture is not None
    assert opened_png((stage.settings.data / job.picture).read_bytes()) == (256, 128)


async def test_the_answer_is_one_card_that_all_can_see(stage: Stage) -> None:
    result = await stage.imagine()
    assert result.response is not None
    assert not result.response.ephemeral
    assert not result.followups
    assert result.response.flags.components_v2


async def test_the_card_says_place_time_seed_and_settings_at_once(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    second = await stage.imagine("a second picture")
    assert second.response is not None
    words = text_of(second.response)
    assert "place 1 of 1" in words
    assert "<t:" in words
    assert f"seed `{CHOSEN_SEED}`" in words
    assert "256x256 · 4 steps · guidance 3.5" in words


async def test_the_card_ends_with_a_link_to_the_picture(stage: Stage) -> None:
    await stage.imagine()
    card, picture = stage.messages()
    assert "Done in" in text_of(card)
    assert picture.jump_url in text_of(card)


async def test_the_models_notice_is_shown_with_the_picture(stage: Stage) -> None:
    await stage.imagine("a house with notice")
    card, picture = stage.messages()
    assert "drawn by a fake" in picture.content
    assert "drawn by a fake" in text_of(card)


async def test_a_failure_is_worded_on_the_card(stage: Stage) -> None:
    await stage.imagine("a broken house")
    (card,) = stage.messages()
    assert "more memory than the card has" in text_of(card)


async def test_a_bug_in_drawing_shows_no_traceback(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await stage.imagine("a bug in a house")
    (card,) = stage.messages()
    assert "job 1" in text_of(card)
    assert "KeyError" not in text_of(card)
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("prompt", ["a fox seed:42", "a fox SEED: 42", "a fox\tseed:42 ", "a fox seed：42"])
async def test_a_trailing_seed_in_the_prompt_is_the_option(stage: Stage, prompt: str) -> None:
    await stage.imagine(prompt)
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert (job.request.prompt, job.request.seed) == ("a fox", 42)


@pytest.mark.parametrize(
    "prompt",
    ["a seed:42 fox", "birdseed:42", "a fox seed", "a fox cfg:7", "seed packets: many", "a bird eating seed: millet"],
)
def test_other_words_stay_in_the_prompt(prompt: str) -> None:
    assert split_seed(prompt) == (prompt, None)


@pytest.mark.parametrize(
    "value", ["-1", str(SEED_MAX + 1), str(2**60), "9" * 900, "abc", "4.5", "1e5", "0x10", "1_000"]
)
def test_a_trailing_seed_that_is_none_is_refused_with_the_limit(value: str) -> None:
    with pytest.raises(InvalidRequest, match="from 0 to 4,294,967,295") as refused:
        split_seed(f"a fox seed:{value}")
    assert value[:40] in str(refused.value)


@pytest.mark.parametrize("prompt", ["a fox seed:42 seed:43", "a fox seed: 42 SEED:43"])
def test_two_seeds_at_the_end_are_refused(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="two seeds, 42 and 43"):
        split_seed(prompt)


async def test_two_seeds_are_refused(stage: Stage) -> None:
    words = said(await stage.imagine("a fox seed:1", seed=2))
    assert "seed is there twice" in words
    assert await stage.kiln.queue.job(1) is None


async def test_a_seed_alone_is_no_prompt(stage: Stage) -> None:
    assert "prompt is empty" in said(await stage.imagine("seed:42"))


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        (" ", "empty"),
        ("a\u0000b", "U+0000"),
        ("a\u0007b", "U+0007"),
        ("zero\u200bwidth", "U+200B"),
        ("\u202egnirts", "U+202E"),
        ("a\u2066b", "U+2066"),
        ("🔥🔥🔥", "letter or digit"),
        ("```", "letter or digit"),
        ("* _ ~", "letter or digit"),
    ],
)
async def test_a_prompt_without_visible_words_is_refused_to_the_person_alone(
    stage: Stage, prompt: str, word: str
) -> None:
    assert word in said(await stage.imagine(prompt))
    assert not stage.messages()
    assert await stage.kiln.queue.job(1) is None


@pytest.mark.parametrize("options", [{"prompt": ""}, {"prompt": "x" * 1001}])
async def test_discord_itself_refuses_prompts_of_a_wrong_length(stage: Stage, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        await stage.imagine(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": SEED_MAX + 1},
        {"seed": 2**54},
        {"seed": "x"},
        {"steps": 0},
        {"steps": 51},
        {"guidance": -1.0},
        {"guidance": 0.9},
        {"guidance": 10.1},
        {"guidance": float("nan")},
        {"size": ""},
    ],
)
async def test_discord_itself_refuses_options_outside_their_limits(stage: Stage, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        await stage.imagine(**options)


@pytest.mark.parametrize(
    ("size", "word"),
    [
        ("200x200", "multiple of 16"),
        ("64x64", "128 to 512"),
        ("4096x4096", "128 to 512"),
        ("1024x1024", "128 to 512"),
        ("large", "width x height"),
        ("-256x256", "width x height"),
        ("256", "width x height"),
        ("99999999x16", "width x height"),
    ],
)
async def test_a_wrong_size_is_refused_with_its_limit(stage: Stage, size: str, word: str) -> None:
    assert word in said(await stage.imagine(size=size))
    assert await stage.kiln.queue.job(1) is None


async def test_a_size_that_is_not_in_the_list_is_accepted_as_text(stage: Stage) -> None:
    await stage.imagine(size=" 144 X 160 ")
    assert "144x160" in stage.pictures()[0].content


async def test_sizes_are_offered_with_words(stage: Stage) -> None:
    offered = await stage.alice.autocomplete(stage.channel, "imagine", "size", "", prompt="a fox")
    assert {"name": "256x256 · square", "value": "256x256"} in offered
    wide = await stage.alice.autocomplete(stage.channel, "imagine", "size", "wide", prompt="a fox")
    assert wide
    assert all(choice["name"].endswith("wide") for choice in wide)


@pytest.mark.parametrize("typed", ["144x160", " 144 X 160 "])
async def test_a_size_that_was_typed_is_offered_first(stage: Stage, typed: str) -> None:
    offered = await stage.alice.autocomplete(stage.channel, "imagine", "size", typed, prompt="a fox")
    assert offered[0] == {"name": "144x160 · tall", "value": "144x160"}
    listed = await stage.alice.autocomplete(stage.channel, "imagine", "size", "256x256", prompt="a fox")
    assert [choice["value"] for choice in listed].count("256x256") == 1
    wrong = await stage.alice.autocomplete(stage.channel, "imagine", "size", "145x160", prompt="a fox")
    assert "145x160" not in [choice["value"] for choice in wrong]


@pytest.mark.parametrize(
    "prompt",
    [
        "@everyone a fox",
        "@here a fox",
        "<@123456789012345678> a fox",
        "<@&123456789012345678> a fox",
        "`a` ```fox```",
        "**a** ||fox|| __x__ ~~y~~",
        "# a fox",
        "[a fox](https://example.com)",
        "a fox https://example.com/x.png discord.gg/abcdef",
        "<:name:123456789012345678> a fox",
    ],
)
async def test_an_echoed_prompt_pings_nobody_and_formats_nothing(stage: Stage, prompt: str) -> None:
    await stage.imagine(prompt)
    card, picture = stage.messages()
    assert not stage.notified(card)
    assert stage.notified(picture) == {stage.alice.id}
    for words in (text_of(card).splitlines()[0], picture.content.splitlines()[0]):
        echoed = words.partition("**")[2].rpartition("**")[0]
        for trick in ("@everyone", "@here", "<@1", "<@&", "```", " https://", "[a", "discord.gg/"):
            assert trick not in echoed.replace("\\`", "").replace("\\[", "")
    job = await stage.kiln.queue.job(1)
    assert job is not None
    assert job.request.prompt == prompt


@pytest.mark.parametrize(
    ("denied", "name"),
    [("attach_files", "Attach Files"), ("send_messages", "Send Messages"), ("view_channel", "View Channel")],
)
async def test_a_channel_the_bot_cannot_use_is_named_with_what_is_missing(stage: Stage, denied: str, name: str) -> None:
    assert stage.bot.user is not None
    forbidden = discord.PermissionOverwrite(**{denied: False})
    channel = stage.guild.create_text_channel("quiet", overwrites={stage.bot.user: forbidden})
    words = said(await stage.alice.slash(channel, "imagine", prompt="a fox"))
    assert name in words
    assert await stage.kiln.queue.job(1) is None


async def test_a_direct_message_gets_a_clear_word(stage: Stage) -> None:
    user = stage.alice.user
    command = {"id": "1", "name": "imagine", "type": 1, "options": [{"name": "prompt", "type": 3, "value": "a fox"}]}
    result = await _dispatch_actor_interaction(user, InteractionType.APPLICATION_COMMAND, user.dm_channel, command)
    assert "in servers only" in said(result)


async def test_a_command_of_an_older_kiln_gets_a_clear_word(stage: Stage) -> None:
    command = {"id": "1", "name": "paint", "type": 1, "options": []}
    result = await _dispatch_actor_interaction(stage.alice, InteractionType.APPLICATION_COMMAND, stage.channel, command)
    assert "reload Discord" in said(result)


async def test_over_the_cap_nothing_is_stored(tmp_path: Path) -> None:
    async with open_stage(tmp_path, max_waiting_per_user=1) as stage:
        stage.detach()
        await stage.imagine("endless rain")
        await eventually(lambda: stage.generator.begun)
        await stage.imagine("one waits")
        words = said(await stage.imagine("one too many"))
        assert "1 of your jobs wait" in words
        waiting = await stage.kiln.queue.place(2)
        assert waiting is not None
        said_at = int(words.partition("ready <t:")[2].partition(":R>")[0])
        assert abs(said_at - waiting.ready_at.timestamp()) < 5, "it does not say when to come back"
        assert await stage.kiln.queue.job(3) is None


async def test_over_the_rate_the_answer_says_when_to_come_back(tmp_path: Path) -> None:
    async with open_stage(tmp_path, burst=1, pictures_per_hour=2) as stage:
        await stage.imagine("the first")
        words = said(await stage.imagine("the second"))
    assert "<t:" in words
    assert ":R>" in words


async def test_a_bug_in_the_command_is_one_sentence_and_a_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise LookupError("no dice")

    async with open_stage(tmp_path, choose_seed=broken) as stage:
        words = said(await stage.imagine())
    incident = words.split("`")[1]
    assert "no dice" not in words
    assert incident in caplog.text
    assert "LookupError: no dice" in caplog.text


async def test_an_interaction_that_is_already_answered_still_brings_the_picture(stage: Stage) -> None:
    stage.env.inject_error("POST", "/interactions/*/*/callback", status=400, code=40060)
    await stage.imagine()
    assert stage.messages() == stage.pictures(), "a second card was sent"
    assert len(stage.pictures()) == 1


async def test_an_expired_interaction_gets_its_card_by_channel(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.env.inject_error("POST", "/interactions/*/*/callback", status=404, code=10062)
    with caplog.at_level(logging.WARNING):
        await stage.imagine()
    card, picture = stage.messages()
    assert "Done in" in text_of(card)
    assert picture.attachments
    assert "takes no answer" in caplog.text


async def test_a_refusal_to_an_expired_interaction_is_logged_once_and_not_repeated(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.env.inject_error("POST", "/interactions/*/*/callback", status=404, code=10062)
    await stage.imagine(" ")
    assert caplog.text.count("expired before the answer") == 1


async def test_a_refusal_that_discord_does_not_take_ends_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.env.inject_error("POST", "/interactions/*/*/callback", status=500)
    await stage.imagine(" ")
    assert "did not take the answer" in caplog.text


@pytest.mark.parametrize("verb", ["place", "record_card"])
async def test_a_database_that_fails_after_the_job_was_stored_does_not_unsay_it(
    stage: Stage, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any, **kwargs: Any) -> None:
        raise QueueUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(stage.kiln.queue, verb, fail)
        result = await stage.imagine()
    assert result.response is not None
    assert not result.followups
    assert len(stage.pictures()) == 1


@pytest.mark.parametrize(("verb", "command"), [("submit_all", "imagine"), ("cancel", "cancel")])
async def test_a_refusal_behind_a_deferred_answer_is_for_the_person_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, verb: str, command: str
) -> None:
    async def refuse_late(*_: object, **__: object) -> None:
        await eventually(lambda: any(one.path.endswith("/callback") for one in stage.env.http_requests))
        raise QueueUnavailable

    monkeypatch.setattr(in_time, "__kwdefaults__", {"seconds": 0.0})
    monkeypatch.setattr(stage.kiln.queue, verb, refuse_late)
    options = {"prompt": "a red house"} if command == "imagine" else {"job": 1}
    result = await stage.alice.slash(stage.channel, command, **options)
    shown = [message for message in (result.response, *result.followups) if message is not None]
    assert ["cannot reach its queue" in text_of(message) and message.ephemeral for message in shown] == [True]
    assert stage.messages() == []


async def test_the_same_interaction_again_is_one_job(stage: Stage) -> None:
    """A resumed gateway may send an interaction twice."""
    await stage.imagine()
    job = await stage.kiln.queue.job(1)
    sent = [entry for entry in stage.env.backend.transcript if entry[1] == "INTERACTION_CREATE"]
    assert job is not None
    stage.env.backend.emit("INTERACTION_CREATE", sent[0][2])
    await stage.env.settle()
    assert await stage.kiln.queue.job(2) is None
    assert len(stage.pictures()) == 1


@pytest.fixture
async def slow_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A bot whose pictures take a while."""
    async with open_stage(tmp_path / "slow", generator=FakeGenerator(seconds_per_step=0.05)) as opened:
        yield opened


async def test_the_card_moves_while_the_picture_is_drawn(slow_stage: Stage) -> None:
    slow_stage.detach()  # simcord's clock stands still while it waits for the GPU
    await slow_stage.imagine(steps=8)

    def shown() -> list[str]:
        return [str(entry.json) for entry in slow_stage.env.http_requests if entry.method == "PATCH"]

    await eventually(lambda: "Done in" in shown()[-1] if shown() else False)
    assert any("step" in words and "of 8" in words for words in shown())
