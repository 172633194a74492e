"""What a card says of itself, through nvidia-ml-py; here mostly that there is none, and what then happens."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from bot.host.card_reader import CardReader, _is_own, _which

READABLE = {
    "nvmlInit": lambda: None,
    "nvmlShutdown": lambda: None,
    "nvmlDeviceGetHandleByIndex": lambda index: f"card {index}",
    "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
    "nvmlDeviceGetName": lambda card: f"GPU of {card}",
    "nvmlDeviceGetTemperature": lambda card, sensor: 61,
    "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=2**30, total=2**34),
    "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=97, memory=40),
    "nvmlDeviceGetPowerUsage": lambda card: 212_500,
}


def library(**changes: Any) -> Any:
    """nvidia-ml-py, its errors and constants real, its calls of the driver answered here."""
    return SimpleNamespace(**{**vars(pynvml), **READABLE, **changes})


def fails(error: type[Exception]) -> Any:
    def call(*_: Any) -> Any:
        raise error()

    return call


def reader(device: str = "auto", visible: str | None = None, **changes: Any) -> CardReader:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return CardReader(device, environment=environment, load=lambda: library(**changes))


def test_a_card_says_temperature_memory_load_and_power() -> None:
    reading = reader().read()
    assert reading is not None
    assert (reading.name, reading.temperature, reading.load, reading.power) == ("GPU of card 0", 61, 97, 212.5)
    assert (reading.memory_used, reading.memory_total) == (2**30, 2**34)


def test_what_a_card_does_not_say_is_none_and_the_rest_is_there() -> None:
    reading = reader(nvmlDeviceGetPowerUsage=fails(pynvml.NVMLError_NotSupported)).read()
    assert reading is not None
    assert (reading.power, reading.temperature) == (None, 61)


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName"])
def test_no_driver_or_a_card_that_is_lost_is_none_and_is_asked_again(call: str) -> None:
    changing = library(**{call: fails(pynvml.NVMLError_GpuIsLost)})
    reading = CardReader(environment={}, load=lambda: changing)
    assert reading.read() is None
    setattr(changing, call, READABLE[call])
    assert reading.read() is not None


def test_without_the_library_there_is_no_reading() -> None:
    assert CardReader(environment={}, load=fails(ImportError)).read() is None


def test_on_a_machine_without_a_card_the_real_library_says_so() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert CardReader().read() is None
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has a driver")


@pytest.mark.parametrize(
    ("device", "visible", "which"),
    [
        ("auto", None, 0),
        ("cuda", None, 0),
        ("cuda:2", None, 2),
        ("cpu", None, None),
        ("mps", None, None),
        ("cuda:1", "3,5", 5),
        ("auto", "GPU-4f0c", "GPU-4f0c"),
        ("auto", "", None),
        ("auto", "-1", None),
        ("cuda:1", "3", None),
    ],
)
def test_the_card_is_the_one_that_cuda_shows(device: str, visible: str | None, which: int | str | None) -> None:
    assert _which(device, visible) == which


def test_our_own_processes_are_this_one_and_its_group() -> None:
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger,
        subprocess.Popen(["sleep", "60"]) as own,
    ):
        assert [_is_own(pid) for pid in (os.getpid(), own.pid, stranger.pid, 2**22 + 1)] == [True, True, False, False]
        stranger.kill()
        own.kill()
