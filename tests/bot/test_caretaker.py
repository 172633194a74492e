"""The owner's wishes, acted on: real queue, dispatcher and GPU thread; the card's answers are a script over pynvml."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from bot.host import caretaker as module
from bot.host.card_reader import CardReader
from bot.host.caretaker import Caretaker, Pause, Senses
from bot.host.courteous import CourteousExecutor
from bot.host.courtesy import GIB, Manners, Why
from bot.language import Message
from bot.queue.dispatcher import Dispatcher
from bot.queue.job import JobStatus
from bot.queue.job_queue import JobQueue
from bot.storage.database import Database
from gen.attempt import Attempt
from gen.errors import GenerationCancelled
from gen.executor import GpuExecutor
from tests.bot.conftest import PLENTY, eventually
from tests.bot.test_dispatcher import Outcomes
from tests.fakes import Clock, FakeGenerator, image_request, new_job

GAME = 4242  # a process that is not Kiln's


class ScriptedCard:
    """Answers as the driver does; a test changes what it says, or lets it fail."""

    def __init__(self) -> None:
        self.celsius, self.milliwatts, self.percent = 50, 100_000, 20
        self.programs = {os.getpid(): 6 * GIB}
        self.load_of: dict[int, int] = {}
        self.error: type[Exception] | None = None
        self.hold: threading.Event | None = None
        self.samples = 0

    def library(self) -> Any:
        calls: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": self._name,
            "nvmlDeviceGetTemperature": lambda card, sensor: self.celsius,
            "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=8 * GIB, total=16 * GIB),
            "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=self.percent, memory=10),
            "nvmlDeviceGetPowerUsage": lambda card: self.milliwatts,
            "nvmlDeviceGetComputeRunningProcesses": lambda card: self._programs(),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda card: [],
            "nvmlDeviceGetProcessUtilization": self._utilization,
        }
        return SimpleNamespace(**{**vars(pynvml), **calls})

    def _name(self, card: int) -> str:
        if self.hold is not None:
            self.hold.wait(20)
        if self.error is not None:
            raise self.error()
        return "scripted"

    def _programs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in self.programs.items()]

    def _utilization(self, card: int, since: int) -> list[SimpleNamespace]:
        if not self.load_of:
            raise pynvml.NVMLError_NotFound()
        self.samples += 1
        return [SimpleNamespace(pid=pid, smUtil=load, timeStamp=self.samples) for pid, load in self.load_of.items()]


@dataclass(slots=True, kw_only=True)
class House:
    """A Kiln with its owner."""

    queue: JobQueue
    dispatcher: Dispatcher
    executor: CourteousExecutor
    outcomes: Outcomes
    pause: Pause
    card: ScriptedCard
    generators: list[FakeGenerator]
    loads: list[Exception] = field(default_factory=list)  # what loading raises, one after the other
    told: list[str | None] = field(default_factory=list)
    now: float = 0.0
    local: datetime = datetime(2026, 1, 5, 12, tzinfo=UTC)
    caretaker: Caretaker | None = None

    def keep(self, **manners: Any) -> Caretaker:
        """With these manners from now on."""
        reader = CardReader("cuda", environment={}, load=self.card.library)
        senses = Senses(
            read=reader.read, is_asked=self.pause.is_asked, clock=lambda: self.now, local=lambda: self.local
        )
        self.caretaker = Caretaker(
            manners=Manners(**manners), senses=senses, executor=self.executor, queue=self.queue, tell=self._tell
        )
        return self.caretaker

    async def look(self, *, after: float = 2.0) -> Why | None:
        assert self.caretaker is not None
        self.now += after
        await self.caretaker.look()
        return self.caretaker.why

    async def ask(self, prompt: str, number: int = 1) -> None:
        await self.queue.submit(new_job(number, request=image_request(prompt)))
        self.dispatcher.wake()

    async def status(self, job_id: int = 1) -> tuple[JobStatus, int]:
        job = await self.queue.job(job_id)
        assert job is not None
        return job.status, job.attempts

    def _tell(self, words: Message | None) -> None:
        self.told.append(None if words is None else str(words))
        if words is None:
            self.dispatcher.wake()


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    generators: list[FakeGenerator] = []
    loads: list[Exception] = []

    def load() -> FakeGenerator:
        if generators and loads:
            raise loads.pop(0)
        generators.append(FakeGenerator())
        return generators[-1]

    outcomes = Outcomes()
    async with GpuExecutor(load) as gpu:
        executor = CourteousExecutor(gpu)
        queue = JobQueue(database, limits=PLENTY, now=Clock())
        async with Dispatcher(
            queue=queue,
            executor=executor,
            outcomes=outcomes,
            pictures=tmp_path,
        ) as dispatcher:
            yield House(
                queue=queue,
                dispatcher=dispatcher,
                executor=executor,
                outcomes=outcomes,
                pause=Pause(tmp_path),
                card=ScriptedCard(),
                generators=generators,
                loads=loads,
            )


async def test_a_game_stops_the_picture_after_its_step_frees_the_card_and_the_picture_comes_when_it_has_ended(
    house: House,
) -> None:
    house.keep()
    assert await house.look() is None
    await house.ask("endless")
    await house.outcomes.until("progress")
    house.card.programs[GAME] = 5 * GIB
    assert await house.look() is Why.OWNER
    await house.outcomes.until("requeued")
    assert await house.status() == (JobStatus.QUEUED, 0)
    await eventually(lambda: not house.executor.is_drawing)
    await house.look()
    assert (house.executor.is_loaded, house.generators[0].closed) == (False, True)
    house.dispatcher.wake()
    del house.card.programs[GAME]
    await house.look(after=10)
    assert await house.look(after=31) is None
    await eventually(lambda: len(house.generators) == 2 and house.generators[1].begun)
    house.dispatcher.cancel(1)
    await house.outcomes.until("cancelled")
    assert house.told == ["The owner is using the card; drawing goes on when it is free.", None]


async def test_load_of_a_game_counts_and_kilns_own_does_not(house: House) -> None:
    house.keep()
    house.card.load_of = {os.getpid(): 99}
    assert [await house.look(after=5) for _ in range(4)] == [None] * 4
    house.card.load_of[GAME] = 60
    assert [await house.look(after=5) for _ in range(2)] == [None, Why.OWNER]


async def test_where_kilns_own_process_is_not_listed_nobody_elses_is_believed(house: House) -> None:
    """In a container the driver's numbers are of another space: its own would look like a game."""
    house.keep()
    house.card.programs = {GAME: 2 * GIB}
    await house.look()
    house.card.programs = {GAME: 9 * GIB}
    house.card.load_of = {GAME: 99}
    assert [await house.look(after=10) for _ in range(3)] == [None] * 3


async def test_a_pause_lets_the_picture_be_finished_and_begins_no_other_also_after_a_restart(house: House) -> None:
    caretaker = house.keep()
    await house.ask("stuck")
    await house.outcomes.until("progress")
    house.pause.begin()
    assert await house.look() is Why.ASKED
    await house.ask("two", number=2)
    house.generators[0].release.set()
    await house.outcomes.until("drawn")
    house.dispatcher.wake()
    await house.look()
    assert await house.status(2) == (JobStatus.QUEUED, 0)
    assert not house.executor.is_loaded
    again = house.keep()
    assert again is not caretaker
    assert await house.look() is Why.ASKED
    house.pause.end()
    assert await house.look() is None
    await house.outcomes.until("drawn")
    assert await house.status(2) == (JobStatus.DRAWN, 1)


async def test_what_was_claimed_just_before_a_hold_is_not_begun_and_loads_no_model(house: House) -> None:
    await house.executor.let_go()
    house.executor.is_held = True
    with pytest.raises(GenerationCancelled):
        await anext(house.executor.run(Attempt(token="x", request=image_request())))
    assert (house.executor.is_loaded, house.executor.is_drawing) == (False, False)


async def test_a_model_is_not_let_go_under_a_drawing(house: House) -> None:
    await house.ask("stuck")
    await house.outcomes.until("progress")
    letting_go = asyncio.create_task(house.executor.let_go())
    assert not await asyncio.wait_for(letting_go, 5)
    house.generators[0].release.set()
    await house.outcomes.until("drawn")


async def test_a_waiting_place_says_why_nothing_is_drawn(house: House) -> None:
    house.keep()
    house.pause.begin()
    await house.look()
    await house.ask("a house")
    place = await house.queue.place(1)
    assert place is not None
    assert str(place.held) == "Drawing is paused by the operator."
    house.pause.end()
    await house.look()
    assert house.queue.held is None


async def test_heat_stops_the_picture_and_keeps_the_model(house: House) -> None:
    house.keep(celsius_max=80)
    await house.ask("endless")
    await house.outcomes.until("progress")
    house.card.celsius = 90
    await house.look()
    assert await house.look(after=6) is Why.HOT
    await house.outcomes.until("requeued")
    await house.look()
    assert house.executor.is_loaded


async def test_quiet_hours_hold_what_comes_and_free_the_card(house: House) -> None:
    from bot.host.courtesy import parse_hours

    house.keep(quiet=parse_hours("22:00-07:00"))
    house.local = house.local.replace(hour=23)
    assert await house.look() is Why.QUIET
    await house.ask("a house")
    assert not house.executor.is_loaded
    house.local = house.local.replace(hour=7)
    assert await house.look() is None
    await house.outcomes.until("drawn")


async def test_an_idle_model_is_let_go_and_comes_back_with_the_next_job(house: House) -> None:
    caretaker = house.keep(unload_after=timedelta(minutes=10))
    await house.ask("one")
    await house.outcomes.until("drawn")
    await house.look(after=599)
    assert house.executor.is_loaded
    await house.look(after=1200)
    assert (house.executor.is_loaded, caretaker.is_resting, caretaker.why) == (False, True, None)
    await house.ask("two", number=2)
    await house.outcomes.until("drawn")
    await house.look()
    assert (house.executor.is_loaded, caretaker.is_resting) == (True, False)


async def test_a_model_that_does_not_fit_when_it_comes_back_costs_no_job_and_is_tried_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep()
    await house.executor.let_go()
    house.loads.append(MemoryError("the game has it"))
    await house.ask("a house")
    await house.outcomes.until("requeued")
    assert await house.look() is Why.NO_ROOM
    assert await house.status() == (JobStatus.QUEUED, 0)
    assert "the game has it" in caplog.text
    assert await house.look(after=61) is None
    await house.outcomes.until("drawn")


async def test_a_driver_that_fails_lies_or_hangs_never_stops_the_queue(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    house.keep(celsius_max=80, watts_max=200)
    house.card.hold = threading.Event()
    assert [await house.look() for _ in range(3)] == [None] * 3
    house.card.hold.set()
    for error in (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_DriverNotLoaded, ZeroDivisionError):
        house.card.error = error
        assert [await house.look(after=10) for _ in range(2)] == [None] * 2
    house.card.error = None
    house.card.celsius, house.card.milliwatts = -1, 2**60
    house.card.programs[GAME] = 2**62
    assert [await house.look(after=10) for _ in range(3)] == [None] * 3
    assert house.caretaker is not None
    assert house.caretaker.reading is not None
    assert house.caretaker.reading.temperature is None
    await house.ask("a house")
    await house.outcomes.until("drawn")


async def test_what_the_card_does_not_say_is_told_once_where_something_was_asked_of_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(celsius_max=80, watts_max=300)
    await house.look()
    assert caplog.text == ""
    house.card.celsius, house.card.programs = 5000, {GAME: GIB}  # a lie, and another container's numbers
    for _ in range(3):
        await house.look()
    assert caplog.text.count("KILN_TEMPERATURE_MAX holds nothing: the card does not say its temperature") == 1
    assert caplog.text.count("KILN_GIVE_WAY holds nothing") == 1
    assert "KILN_POWER_MAX" not in caplog.text


async def test_an_error_of_ours_in_a_look_is_logged_and_the_next_look_comes(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    caretaker = house.keep()
    looks: list[int] = []

    async def broken() -> None:
        looks.append(1)
        raise KeyError("as asked")

    monkeypatch.setattr(caretaker, "look", broken)
    task = asyncio.create_task(caretaker.run())
    await eventually(lambda: len(looks) > 1)
    task.cancel()
    assert "a look at the card failed; the queue goes on" in caplog.text
