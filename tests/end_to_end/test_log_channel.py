"""A log channel that fails over the real transport: what the moderators are to hear is neither lost nor hammered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from bot.servers.policy import Action, Rule
from bot.servers.servers import Servers
from bot.storage.database import open_database
from tests.end_to_end.kiln_process import KilnProcess
from tests.loopback import faults
from tests.loopback.faults import Fault
from tests.loopback.record import Request
from tests.loopback.world import Channel, Message, Person
from tests.loopback_discord import LoopbackDiscord


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A member, where they ask, and where the moderators listen."""

    ana: Person
    room: Channel
    log: Channel


@pytest.fixture
async def scene(loopback: LoopbackDiscord, kiln: KilnProcess) -> Scene:
    """What a keeper settled before: foxes are held, and the log channel is chosen."""
    world = loopback.world
    scene = Scene(ana=world.add_person("Ana"), room=world.add_channel("pictures"), log=world.add_channel("log"))
    kiln.data.mkdir()
    async with open_database(kiln.data / "kiln.sqlite3") as database:
        servers = Servers(database, now=lambda: datetime.now(UTC))
        await servers.add_rule(world.guild_id, Rule(words="fox", action=Action.HOLD), actor_id=1)
        await servers.change(world.guild_id, actor_id=1, log_channel_id=scene.log.id)
    return scene


def to_log(log: Channel) -> Callable[[Request], bool]:
    return lambda request: f"/channels/{log.id}/" in request.path


def reviews(loopback: LoopbackDiscord, log: Channel) -> list[Message]:
    return [m for m in loopback.world.messages.values() if m.channel is log and "waits for your decision" in m.content]


async def test_without_permission_it_is_asked_once_and_the_next_start_brings_everything(
    loopback: LoopbackDiscord,
    kiln: KilnProcess,
    scene: Scene,
) -> None:
    log = scene.log
    loopback.faults.plan(faults.POST_MESSAGE, faults.missing_permissions(), times=100, when=to_log(log))
    await kiln.start()
    interaction = await loopback.slash(scene.ana, scene.room, "imagine", prompt="a fox")
    await loopback.slash(scene.ana, scene.room, "imagine", prompt="another fox")
    assert interaction.message is not None
    assert "Held: A moderator looks at your words first" in interaction.message.text
    await loopback.world.until(lambda world: any(map(to_log(log), loopback.asked(faults.POST_MESSAGE))))
    assert kiln.statuses() == ["held", "held"]
    await kiln.stop()
    assert sum(map(to_log(log), loopback.asked(faults.POST_MESSAGE))) == 1
    loopback.faults.clear()
    await kiln.start()
    await loopback.world.until(lambda world: len(reviews(loopback, log)) == 2)
    first, second = reviews(loopback, log)
    assert [button["label"] for button in first.body["components"][0]["components"]] == ["Approve", "Deny"]
    assert first.body["components"][0]["components"][0]["custom_id"] == "review:1:approve"
    assert "another fox" in second.content
    assert first.body["allowed_mentions"]["parse"] == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.rate_limited(0.5), id="429"),
        pytest.param(faults.server_error(after_effect=True), id="500 after the message was created"),
        pytest.param(faults.connection_reset(after_effect=False), id="reset before"),
        pytest.param(faults.connection_reset(after_effect=True), id="reset after the message was created"),
    ],
)
async def test_what_fails_in_passing_is_posted_once(
    loopback: LoopbackDiscord,
    kiln: KilnProcess,
    scene: Scene,
    fault: Fault,
) -> None:
    log = scene.log
    await kiln.start()
    await loopback.world.until(lambda world: sum(m.channel is log for m in world.messages.values()) == 2)
    loopback.faults.plan(faults.POST_MESSAGE, fault, when=to_log(log))
    await loopback.slash(scene.ana, scene.room, "imagine", prompt="a fox")
    await loopback.slash(scene.ana, scene.room, "imagine", prompt="the last fox")
    await loopback.world.until(lambda world: any("the last fox" in one.content for one in reviews(loopback, log)))
    assert len(reviews(loopback, log)) == 2


async def test_killed_before_the_post_the_next_start_posts(
    loopback: LoopbackDiscord,
    kiln: KilnProcess,
    scene: Scene,
) -> None:
    log = scene.log
    loopback.faults.plan(faults.POST_MESSAGE, Fault(delay_seconds=60), times=100, when=to_log(log))
    await kiln.start()
    await loopback.slash(scene.ana, scene.room, "imagine", prompt="a fox")
    await kiln.kill()
    loopback.faults.clear()
    await kiln.start()
    await loopback.world.until(lambda world: len(reviews(loopback, log)) == 1)
