"""/cancel: my own jobs, at once or within a step."""

from __future__ import annotations

import pytest
from simcord import OptionError

from bot.queue.job import JobStatus
from tests.bot.conftest import Stage, eventually, said, text_of


async def status_of(stage: Stage, job_id: int) -> JobStatus:
    job = await stage.kiln.queue.job(job_id)
    assert job is not None
    return job.status


async def two_jobs(stage: Stage) -> None:
    """One that draws for ever, one that waits."""
    stage.detach()
    await stage.imagine("endless rain")
    await eventually(lambda: stage.generator.begun)
    await stage.imagine("a second picture")


async def test_a_waiting_job_is_cancelled_at_once(stage: Stage) -> None:
    await two_jobs(stage)
    words = said(await stage.alice.slash(stage.channel, "cancel", job=2))
    assert "Cancelled job 2" in words
    assert await status_of(stage, 2) is JobStatus.CANCELLED
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[1]))


async def test_a_running_job_stops_within_a_step_and_the_next_is_drawn(stage: Stage) -> None:
    await two_jobs(stage)
    words = said(await stage.alice.slash(stage.channel, "cancel", job=1))
    assert "Stopping job 1" in words
    await eventually(lambda: stage.pictures())
    assert await status_of(stage, 1) is JobStatus.CANCELLED
    assert "a second picture" in stage.pictures()[0].content
    await eventually(lambda: "Cancelled" in text_of(stage.messages()[0]))


async def test_nobody_cancels_for_another(stage: Stage) -> None:
    await two_jobs(stage)
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    assert "You have no job 2" in said(await bob.slash(stage.channel, "cancel", job=2))
    assert await status_of(stage, 2) is JobStatus.QUEUED


@pytest.mark.parametrize("job", [3, 2**53 - 1])
async def test_an_unknown_job_gets_a_clear_word(stage: Stage, job: int) -> None:
    assert f"You have no job {job}" in said(await stage.alice.slash(stage.channel, "cancel", job=job))


async def test_a_finished_job_cannot_be_cancelled(stage: Stage) -> None:
    await stage.imagine()
    assert "over already" in said(await stage.alice.slash(stage.channel, "cancel", job=1))


@pytest.mark.parametrize("job", [0, -1, "one"])
async def test_discord_itself_refuses_what_is_no_job(stage: Stage, job: object) -> None:
    with pytest.raises(OptionError):
        await stage.alice.slash(stage.channel, "cancel", job=job)


async def test_my_active_jobs_are_offered_with_place_and_prompt(stage: Stage) -> None:
    await two_jobs(stage)
    offered = await stage.alice.autocomplete(stage.channel, "cancel", "job", "")
    assert offered == [
        {"name": "1 · drawing now · endless rain", "value": 1},
        {"name": "2 · place 1 · a second picture", "value": 2},
    ]
    second = await stage.alice.autocomplete(stage.channel, "cancel", "job", "second")
    assert [choice["value"] for choice in second] == [2]


async def test_others_are_offered_nothing_of_mine(stage: Stage) -> None:
    await two_jobs(stage)
    bob = stage.guild.add_member(stage.env.create_user("bob"))
    assert await bob.autocomplete(stage.channel, "cancel", "job", "") == []


async def test_a_long_prompt_fits_into_a_choice(stage: Stage) -> None:
    await two_jobs(stage)
    await stage.imagine("x" * 1000)
    offered = await stage.alice.autocomplete(stage.channel, "cancel", "job", "xxx")
    assert len(offered[0]["name"]) <= 100
