"""Which attention is used where; that FlashAttention 4 computes the same is shown on a card, in tests/gpu."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType

import pytest
import torch
from torch import Tensor

from gen import attention
from gen.attention import attend, flash, pick_flash
from gen.sums import ExactSums, FusedSums, pick_sums

Function = Callable[[Tensor, Tensor, Tensor], object]
HERE, CARD = torch.device("cpu"), torch.device("cuda")


def _plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, N, heads, d) each → the same, from the formula: softmax(q kᵀ / √d) v."""
    weights = torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) / math.sqrt(q.shape[-1])
    return torch.einsum("bhnm,bmhd->bnhd", weights.softmax(-1), v.float()).to(q.dtype)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Function], None]:
    """Put a stand-in for FlashAttention 4 on a stand-in for a Hopper card, which is the CPU."""
    try_flash = attention._try_flash
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(attention, "_try_flash", lambda _: try_flash(HERE))

    def put(function: Function) -> None:
        module = ModuleType("flash_attn.cute")
        module.flash_attn_func = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
        monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
        monkeypatch.setattr(metadata, "version", lambda name: {"flash-attn-4": "4.0.0"}[name])

    return put


def test_torchs_attention_is_the_formula_with_keys_of_another_length() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 5, 3, 8), torch.randn(2, 4, 3, 8), torch.randn(2, 4, 3, 8)
    assert torch.allclose(attend(q, k, v), _plainly(q, k, v).flatten(2), atol=1e-6)


def test_flash_attention_is_used_once_it_has_shown_that_it_works(
    install: Callable[[Function], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    install(lambda q, k, v: (_plainly(q, k, v), None))  # releases differ in whether more is returned
    assert pick_flash(CARD, size=128) is flash
    assert "attention is by flash-attn-4 4.0.0" in caplog.text
    q, k, v = torch.randn(3, 1, 6, 2, 128)
    assert torch.allclose(flash(q, k, v), attend(q, k, v), atol=1e-6)


@pytest.mark.parametrize("capability", [(8, 9), (10, 0)])
def test_cards_on_which_it_was_not_measured_keep_torchs(
    install: Callable[[Function], None], monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    install(_plainly)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_flash(CARD, size=128) is None


def test_a_card_or_a_machine_without_it_and_other_heads_keep_torchs(
    install: Callable[[Function], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(_plainly)
    assert pick_flash(HERE, size=128) is None
    assert pick_flash(CARD, size=32) is None  # the demo model's

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert pick_flash(CARD, size=128) is None


@pytest.mark.parametrize("is_narrow", [True, False])
def test_only_sums_that_are_not_compiled_have_it(
    install: Callable[[Function], None], monkeypatch: pytest.MonkeyPatch, is_narrow: bool
) -> None:
    install(_plainly)
    picked = pick_sums(CARD, is_narrow=is_narrow, size=128)
    assert isinstance(picked, FusedSums)
    assert picked.packages == (("flash-attn-4",) if is_narrow else ())


def _unbuilt(*_: Tensor) -> Tensor:
    raise RuntimeError("the driver is too old")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_unbuilt, "the driver is too old"),
        (lambda q, k, v: q * 2, "the mean of ones is said to be between 2.0 and 2.0"),
    ],
)
def test_one_that_does_not_work_is_told_and_left(
    install: Callable[[Function], None], caplog: pytest.LogCaptureFixture, broken: Function, said: str
) -> None:
    install(broken)
    assert pick_flash(CARD, size=128) is None
    assert f"flash-attn-4 4.0.0 cannot be used, so torch's attention is: {said}" in caplog.text


def test_memory_that_runs_out_while_it_is_tried_is_memory_that_runs_out(install: Callable[[Function], None]) -> None:
    def full(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    install(full)
    with pytest.raises(torch.OutOfMemoryError):
        pick_flash(CARD, size=128)


def test_masks_other_numbers_and_other_heads_are_attended_to_by_torch() -> None:
    used: list[tuple[int, ...]] = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        used.append(tuple(q.shape))
        return attend(q, k, v)

    sums = FusedSums(counted)
    assert (sums.packages, FusedSums().packages) == (("flash-attn-4",), ())
    heads = torch.randn(3, 1, 6, 2, 128, dtype=torch.bfloat16)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bfloat16)
    for given, masked in ((heads, mask), (heads.float(), None), (heads[..., :64], None)):
        q, k, v = given.unbind(0)
        assert torch.equal(sums.attend(q, k, v, masked), ExactSums().attend(q, k, v, masked))
    assert not used
    q, k, v = heads.unbind(0)
    assert torch.equal(sums.attend(q, k, v, None), attend(q, k, v))
    assert used == [(1, 6, 2, 128)]
