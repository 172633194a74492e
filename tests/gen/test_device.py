"""What an operator's budget means on a device, as far as that shows without a card."""

from __future__ import annotations

import pytest
import torch

from gen import device
from gen.errors import OutOfMemory
from gen.streaming.cards import GIB
from gen.tuning import Tuning

CPU = torch.device("cpu")


@pytest.mark.parametrize("budget", ["", "all", "ALL", " All "])
def test_all_of_no_card_is_no_budget(budget: str) -> None:
    assert device.options_for(Tuning(budget=budget), CPU, torch.float32).budget_bytes is None


def test_a_budget_holds_without_a_card_too() -> None:
    assert device.options_for(Tuning(budget="2GiB"), CPU, torch.float32).budget_bytes == 2 * GIB


def test_a_card_that_others_have_filled_is_told_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (300 * 2**20, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    with pytest.raises(OutOfMemory, match=r"24\.00 GiB only 0\.29 GiB are free, and 0\.50 GiB"):
        device.options_for(Tuning(), torch.device("cuda", 0), torch.bfloat16)
