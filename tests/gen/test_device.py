"""What an operator's budget means on a device, as far as that shows without a card."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gen import device
from gen.errors import OutOfMemory
from gen.streaming import ceilings
from gen.streaming.cards import GIB
from gen.tuning import Tuning

CPU = torch.device("cpu")


@pytest.mark.parametrize("budget", ["", "all", "ALL", " All "])
def test_all_of_no_card_is_no_budget(budget: str) -> None:
    assert device.options_for(Tuning(budget=budget), CPU, torch.float32).budget_bytes is None


def test_a_budget_holds_without_a_card_too() -> None:
    assert device.options_for(Tuning(budget="2GiB"), CPU, torch.float32).budget_bytes == 2 * GIB


def test_with_pinned_memory_a_cards_link_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA GeForce RTX 4090", total_memory=24 * GIB, major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(ceilings, "measure_link", lambda _, source: 1e6 * source.nbytes)
    card, usual = (
        ceilings.card_of(torch.device("cuda", 0), host_memory_bytes=0, pinned=pinned)
        for pinned in (torch.zeros(6500, dtype=torch.uint8), None)
    )
    assert (card.link_bytes_s, card.is_link_measured) == (6.5e9, True)
    assert (usual.link_bytes_s, usual.is_link_measured) == (25e9, False)


def test_a_card_that_others_have_filled_is_told_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (300 * 2**20, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    with pytest.raises(OutOfMemory, match=r"24\.00 GiB only 0\.29 GiB are free, and 0\.50 GiB"):
        device.options_for(Tuning(), torch.device("cuda", 0), torch.bfloat16)
