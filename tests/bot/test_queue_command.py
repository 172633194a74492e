"""/queue: my places and everyone's number, and nobody else's words."""

from __future__ import annotations

from pathlib import Path

from tests.bot.conftest import Stage, eventually, open_stage, said


async def test_an_empty_queue_says_so(stage: Stage) -> None:
    words = said(await stage.alice.slash(stage.channel, "queue"))
    assert "no picture waiting" in words


async def test_it_shows_my_jobs_with_place_and_time(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    await stage.imagine("a **second** picture")
    words = said(await stage.alice.slash(stage.channel, "queue"))
    assert "`1` being drawn now, ready <t:" in words
    assert "`2` place 1 of 1, ready <t:" in words
    assert "1 picture waits, from 1 person" in words
    assert "\\*\\*second\\*\\*" in words


async def test_it_shows_the_number_of_others_but_not_their_prompts(stage: Stage) -> None:
    stage.detach()
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    await stage.imagine("a secret garden")
    await stage.imagine("a second garden", by=bob)
    words = said(await bob.slash(stage.channel, "queue"))
    assert "2 pictures wait, from 2 people" in words
    assert "place 1 of 2" in words  # alice is being drawn already
    assert "secret" not in words
    assert "endless" not in words


async def test_it_says_why_a_picture_is_not_next(stage: Stage) -> None:
    stage.detach()
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    for prompt in ("endless rain", "a first garden", "a second garden"):
        await stage.imagine(prompt)
    await stage.imagine("a third garden", by=bob)
    await eventually(lambda: stage.generator.begun)
    words = said(await stage.alice.slash(stage.channel, "queue"))
    assert "Place 2, because 1 picture of 1 other person comes first" in words
    assert words.count("because") == 1


async def test_many_jobs_fit_into_one_answer(stage: Stage) -> None:
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    for number in range(5):
        await stage.imagine(f"{number} " + "@" * 990)
    words = said(await stage.alice.slash(stage.channel, "queue"))
    assert "place 5 of 5" in words
    assert len(words) < 2000


async def test_jobs_whose_words_grow_by_escaping_are_cut_to_one_message(tmp_path: Path) -> None:
    async with open_stage(tmp_path, max_waiting_per_user=20, burst=30) as stage:
        stage.detach()
        await stage.imagine("endless rain")
        await eventually(lambda: stage.generator.begun)
        for _ in range(16):
            await stage.imagine("a " + "*" * 58)
        words = said(await stage.alice.slash(stage.channel, "queue"))
    assert len(words) <= 2000
    listed = sum(line.startswith("`") for line in words.splitlines())
    assert f"… and {17 - listed} more" in words
    assert "16 pictures wait, from 1 person" in words
