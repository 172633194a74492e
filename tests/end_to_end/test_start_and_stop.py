"""How the process of `kiln run` begins and ends: signals, a second process, tokens that are wrong or missing."""

from __future__ import annotations

import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback import faults
from tests.loopback_discord import LoopbackDiscord


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_mid_drawing_puts_the_job_back_uncounted_and_ends_in_five_seconds(
    loopback: LoopbackDiscord, kiln: KilnProcess, number: signal.Signals
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.2
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=50)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    assert await kiln.stop(number, seconds=5) == 0
    [job] = kiln.jobs()
    assert (job.status, job.attempts) == ("queued", 0)
    kiln.step_seconds = 0.001
    await kiln.start()
    [job] = await kiln.until_all("delivered")
    assert job.attempts == 1
    assert "Traceback" not in kiln.log()


@pytest.mark.slow
async def test_the_real_model_in_mid_drawing_stops_within_three_seconds(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    """Taking torch and DiffSynth apart took up to five; nothing waits for that any more."""
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = None
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house", steps=50)
    card = interaction.message
    assert card is not None
    await loopback.world.until(lambda world: "Drawing" in card.text)
    assert await kiln.stop(seconds=3) == 0
    [job] = kiln.jobs()
    assert (job.status, job.attempts) == ("queued", 0)


async def test_a_start_and_an_end_are_told_in_a_few_lines_without_a_warning(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    await kiln.start()
    await kiln.stop()
    told = kiln.log()
    assert not re.search(r"WARNING|ERROR|PyNaCl|davey|alembic", told), told
    assert len(told.splitlines()) < 12, told


async def test_a_job_that_went_back_to_the_queue_at_the_end_says_so_on_its_card(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.2
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house", steps=50)
    card = interaction.message
    assert card is not None
    await loopback.world.until(lambda world: "Drawing" in card.text)
    await kiln.stop()
    assert "Waiting" in card.text


async def test_a_signal_while_discord_hangs_ends_in_five_seconds_and_the_picture_comes_once(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    loopback.faults.plan(faults.POST_MESSAGE, faults.slow(30))
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    await loopback.world.until(lambda world: bool(loopback.pictures()))
    assert await kiln.stop(seconds=5) == 0
    await kiln.start()
    await kiln.until_all("delivered")
    assert len(loopback.pictures()) == 1


async def test_a_signal_while_it_still_logs_in_ends_in_five_seconds(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    loopback.faults.plan(faults.LOGIN, faults.slow(30))
    await kiln.start(connect=False)
    await loopback.world.until(lambda world: bool(loopback.asked(faults.LOGIN)))
    assert await kiln.stop(seconds=5) == 0
    assert "Traceback" not in kiln.log()


async def test_a_discord_that_cannot_be_reached_is_one_readable_line(
    loopback: LoopbackDiscord, kiln: KilnProcess
) -> None:
    loopback.faults.plan(faults.LOGIN, faults.connection_reset(after_effect=False), times=100)
    await kiln.start(connect=False)
    assert await kiln.ended() == 1
    assert "Discord cannot be reached" in kiln.log()
    assert "Traceback" not in kiln.log()


async def test_a_second_process_on_the_same_database_stops_and_names_the_first(
    loopback: LoopbackDiscord, kiln: KilnProcess, tmp_path: Path
) -> None:
    await kiln.start()
    second = KilnProcess(loopback, tmp_path, log="second.log")
    await second.start(connect=False)
    assert await second.ended() not in (0, None)
    assert str(kiln.pid) in second.log()
    assert "Traceback" not in second.log()
    assert kiln.alive
    assert loopback.gateway.identified == 1


async def test_a_process_that_stood_still_for_long_keeps_its_database_and_goes_on(
    loopback: LoopbackDiscord, kiln: KilnProcess, tmp_path: Path
) -> None:
    """SIGSTOP, as a suspended machine or a debugger does it: there is no lease that another process could take over."""
    ana, room = loopback.world.add_person("Ana"), loopback.world.add_channel("pictures")
    kiln.step_seconds = 0.2
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=8)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    kiln.freeze()
    loopback.world.advance(timedelta(hours=1))
    second = KilnProcess(loopback, tmp_path, log="second.log")
    await second.start(connect=False)
    assert await second.ended() not in (0, None)
    assert str(kiln.pid) in second.log()
    kiln.go_on()
    [job] = await kiln.until_all("delivered")
    assert job.attempts == 1
    assert len(loopback.pictures(room)) == 1


@pytest.mark.parametrize("token", ["wrong", None])
async def test_a_wrong_or_missing_token_is_one_readable_answer_with_the_way_to_a_right_one(
    loopback: LoopbackDiscord, kiln: KilnProcess, token: str | None
) -> None:
    kiln.token = token
    await kiln.start(connect=False)
    assert await kiln.ended() != 0
    said = kiln.log()
    assert "DISCORD_TOKEN" in said
    assert "discord.com/developers/applications" in said
    assert "applications.commands" in said
    assert "Traceback" not in said
    assert loopback.refused_again() == []
