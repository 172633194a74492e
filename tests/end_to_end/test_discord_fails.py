"""What Discord does to a bot: refusals, errors after the effect, broken connections, dropped gateways, dead tokens."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback import faults, payloads
from tests.loopback.faults import Fault
from tests.loopback.world import Channel, Person
from tests.loopback_discord import LoopbackDiscord


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.rate_limited(1.0), id="429"),
        pytest.param(faults.server_error(after_effect=True), id="500 after the message was created"),
        pytest.param(faults.server_error(after_effect=False), id="500 before"),
        pytest.param(faults.server_error(after_effect=True, status=503), id="503 after the message was created"),
        pytest.param(faults.connection_reset(after_effect=True), id="reset after the message was created"),
        pytest.param(faults.connection_reset(after_effect=False), id="reset before"),
    ],
)
async def test_a_post_that_fails_in_passing_is_repeated_until_the_picture_is_there_once(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, fault: Fault
) -> None:
    loopback.faults.plan(faults.POST_MESSAGE, fault)
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    [job] = await kiln.until_all("delivered")
    first, second = loopback.asked(faults.POST_MESSAGE)
    assert [picture.id for picture in loopback.pictures()] == [job.result_message_id]
    assert second.at - first.at >= 0.9
    assert second.payload["nonce"] == first.payload["nonce"] == f"{job.id}-{job.interaction_id % 10**12}"


async def test_a_channel_that_closes_behind_a_500_that_took_effect_is_searched_before_anybody_is_written_to(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    """discord.py repeats the 500 by itself, so Kiln sees the 403 alone."""
    loopback.faults.plan(faults.POST_MESSAGE, faults.server_error(after_effect=True))
    loopback.faults.plan(faults.POST_MESSAGE, faults.missing_permissions())
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    [job] = await kiln.until_all("delivered")
    assert [picture.id for picture in loopback.pictures(room)] == [job.result_message_id]
    assert loopback.asked(faults.OPEN_DIRECT) == []


async def test_a_file_that_is_refused_as_too_large_is_sent_smaller_and_kept_whole(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    loopback.world.upload_limit_bytes = 300  # less than any PNG of the fake; the guild says 10 MiB
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    [job] = await kiln.until_all("delivered")
    statuses = [one.status for one in loopback.asked(faults.POST_MESSAGE)]
    [picture] = loopback.pictures()
    assert job.picture is not None
    assert statuses[0] == 413
    assert statuses[-1] == 200
    assert len(picture.uploads[0].content) <= 300 < (kiln.data / job.picture).stat().st_size


async def test_a_channel_that_refuses_is_not_asked_again_and_the_picture_comes_directly(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.POST_MESSAGE, faults.missing_permissions())
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house")
    [job] = await kiln.until_all("delivered")
    [picture] = loopback.pictures()
    assert picture.channel.recipient is not None
    assert (picture.channel.recipient.id, picture.id) == (ana.id, job.result_message_id)
    assert loopback.refused_again() == []


@pytest.mark.parametrize("end", ["locked", "gone"])
async def test_a_picture_from_a_thread_that_ended_meanwhile_goes_to_the_channel_above_it(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, end: str
) -> None:
    thread = loopback.world.add_thread("a thread", room)
    kiln.step_seconds = 0.1
    await kiln.start()
    await loopback.slash(ana, thread, "imagine", prompt="a red house", steps=10)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    setattr(thread, end, True)
    [job] = await kiln.until_all("delivered")
    [picture] = loopback.pictures()
    assert (picture.channel, picture.id) == (room, job.result_message_id)
    assert f"may not post in <#{thread.id}>" in picture.content
    await kiln.until(kiln.all_shown)
    refused = [one for one in loopback.requests if one.number_of("channel_id") == thread.id and one.status != 200]
    assert [one.method for one in refused] in (["PATCH", "POST"], ["POST", "PATCH"])  # card and picture, once each


async def test_a_picture_that_nobody_takes_is_kept_and_never_hammers(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.POST_MESSAGE, faults.missing_access(), times=100)
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house")
    await loopback.world.until(lambda world: interaction.message is not None and "neither" in interaction.message.text)
    [job] = kiln.jobs()
    assert job.status == "kept"
    assert job.picture is not None
    assert (kiln.data / job.picture).exists()
    await kiln.kill()
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="another, after a restart")
    await kiln.until_all("kept")
    assert loopback.refused_again() == []
    assert len(loopback.asked(faults.POST_MESSAGE)) == 2  # the channel and the direct one, once each


@pytest.mark.parametrize("fault", [faults.missing_access(), faults.unauthorized()], ids=["403", "401"])
async def test_a_card_that_may_not_be_edited_any_more_is_left_alone(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, fault: Fault
) -> None:
    kiln.step_seconds = 0.15
    loopback.faults.plan(faults.EDIT_MESSAGE, fault, times=100)
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=25)
    await kiln.until_all("delivered")
    assert len(loopback.asked(faults.EDIT_MESSAGE)) == 1


async def test_a_401_is_not_repeated_and_the_picture_comes_at_the_next_start(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.POST_MESSAGE, faults.unauthorized(), times=100)
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house")
    await loopback.world.until(lambda world: interaction.message is not None and "401" in interaction.message.text)
    assert len(loopback.asked(faults.POST_MESSAGE)) == 1
    assert kiln.statuses() == ["drawn"]
    await kiln.stop()
    loopback.faults.clear()
    await kiln.start()
    await kiln.until_all("delivered")
    assert len(loopback.pictures(room)) == 1


async def test_a_gateway_that_drops_in_mid_drawing_resumes_and_nothing_is_missed(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = 0.1
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=10)
    await kiln.until(lambda: kiln.statuses() == ["running"])
    await loopback.gateway.drop()
    missed = await loopback.send_slash(ana, room, "imagine", prompt="asked while the bot was away", steps=1)
    loopback.gateway.reopen()
    await loopback.world.until(lambda world: missed.answer is not None)
    await kiln.until(lambda: kiln.statuses() == ["delivered", "delivered"])
    assert (loopback.gateway.identified, loopback.gateway.resumed) == (1, 1)
    assert len(loopback.pictures(room)) == 2


async def test_an_invalid_session_in_mid_drawing_costs_no_job(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = 0.1
    await kiln.start()
    await loopback.slash(ana, room, "imagine", prompt="a red house", steps=10)
    await loopback.gateway.invalidate()
    await loopback.gateway.until_connected(identified=2)
    await loopback.slash(ana, room, "imagine", prompt="another", steps=1)
    await kiln.until(lambda: kiln.statuses() == ["delivered", "delivered"])
    assert len(loopback.pictures(room)) == 2


async def test_a_command_that_arrives_too_late_for_an_answer_gets_its_card_by_channel(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    await kiln.start()
    await loopback.gateway.drop()
    interaction = await loopback.send_slash(ana, room, "imagine", prompt="a red house")
    loopback.world.advance(timedelta(seconds=loopback.world.answer_within_seconds + 1))
    loopback.gateway.reopen()
    await kiln.until_accepted(jobs=1)
    await kiln.until_all("delivered")
    cards = [one for one in loopback.world.messages.values() if not one.uploads]
    assert interaction.answer is None
    assert [card.channel for card in cards] == [room]
    assert len(loopback.pictures(room)) == 1
    await loopback.world.until(lambda world: "Done" in cards[0].text)


async def test_an_answer_that_took_effect_but_came_back_as_an_error_is_an_answer(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    loopback.faults.plan(faults.CALLBACK, faults.server_error(after_effect=True))
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house")
    await kiln.until_all("delivered")
    card = interaction.message
    assert card is not None
    await loopback.world.until(lambda world: "Done" in card.text)
    assert [one.id for one in loopback.world.messages.values() if not one.uploads] == [card.id]


@pytest.mark.parametrize("after_effect", [True, False])
async def test_an_answer_that_breaks_off_costs_no_job(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel, after_effect: bool
) -> None:
    loopback.faults.plan(faults.CALLBACK, faults.connection_reset(after_effect=after_effect))
    await kiln.start()
    await loopback.send_slash(ana, room, "imagine", prompt="a red house")
    await kiln.until_accepted(jobs=1)
    [job] = await kiln.until_all("delivered")
    assert [picture.id for picture in loopback.pictures(room)] == [job.result_message_id]
    [card] = [one for one in loopback.world.messages.values() if not one.uploads]
    await loopback.world.until(lambda world: "Done" in card.text)


async def test_a_token_that_died_after_15_minutes_changes_nothing(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = 0.1
    await kiln.start()
    interaction = await loopback.slash(ana, room, "imagine", prompt="a red house", steps=10)
    loopback.world.advance(timedelta(minutes=16))
    await kiln.until_all("delivered")
    card = interaction.message
    assert card is not None
    await loopback.world.until(lambda world: "Done" in card.text)
    assert len(loopback.pictures(room)) == 1
    assert all(request.status != 401 for request in loopback.requests)


async def test_a_bot_that_is_kicked_while_it_draws_keeps_the_pictures_and_serves_again_when_it_is_back(
    loopback: LoopbackDiscord, kiln: KilnProcess, ana: Person, room: Channel
) -> None:
    kiln.step_seconds = 0.2
    await kiln.start()
    for prompt in ("a red house", "a boat"):
        await loopback.slash(ana, room, "imagine", prompt=prompt)
    await kiln.until(lambda: kiln.statuses() == ["running", "queued"])
    permissions, room.app_permissions = room.app_permissions, 0
    loopback.faults.plan(faults.OPEN_DIRECT, faults.missing_permissions(), times=2)  # no server in common any more
    await loopback.gateway.dispatch("GUILD_DELETE", {"id": str(loopback.world.guild_id)})
    jobs = await kiln.until_all("kept")
    assert all(job.picture is not None for job in jobs)
    room.app_permissions = permissions
    await loopback.gateway.dispatch("GUILD_CREATE", payloads.guild(loopback.world))
    await loopback.slash(ana, room, "imagine", prompt="a tree")
    await kiln.until(lambda: kiln.statuses() == ["kept", "kept", "delivered"])
    assert await kiln.stop() == 0
    for bug in ("stopped by an error", "never retrieved", "incident"):
        assert bug not in kiln.log(), kiln.log()
