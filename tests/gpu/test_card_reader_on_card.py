"""What NVML says of a real card, held against what torch says of the same."""

from __future__ import annotations

import pytest
import torch

from bot.host.card_reader import CardReader

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")]


def test_the_reading_is_of_the_card_that_torch_uses() -> None:
    pytest.importorskip("pynvml")
    reading = CardReader("cuda").read()
    assert reading is not None
    assert reading.name == torch.cuda.get_device_name(0)
    _, total = torch.cuda.mem_get_info(0)
    assert reading.memory_total is not None
    assert abs(reading.memory_total - total) < 2**30  # the driver keeps some for itself
    assert reading.memory_used is not None
    assert 0 < reading.memory_used <= reading.memory_total
    assert reading.temperature is not None
    assert 5 < reading.temperature < 110
