"""Slots on the CPU: what is visited is what was stored, whatever was guessed, and a slot is overwritten after use."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gen.streaming.arena import Arena, Entry, host_buffer, lay_out
from gen.streaming.slots import Slots

CPU = torch.device("cpu")
NAMES = [f"b{number}" for number in range(6)]


def _arena() -> Arena:
    layouts = [
        lay_out([("w", torch.float32, (8 + 4 * (number % 2),)), ("b", torch.bfloat16, (3,))]) for number in range(6)
    ]
    entries = [
        Entry(name=name, layout=layout, host=host_buffer(layout.size))
        for name, layout in zip(NAMES, layouts, strict=True)
    ]
    for number, entry in enumerate(entries):
        for tensor in entry.layout.views(entry.host).values():
            tensor.fill_(number)
    return Arena(entries)


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots(_arena(), device=CPU, poison=True)
    yield made
    made.close()


def _settled(slots: Slots, resident: set[str], count: int) -> None:
    slots.settle(resident=resident, slots=count, size=1024)
    slots.route(NAMES)


def _holds(tensors: dict[str, Tensor], name: str) -> bool:
    return all(bool((tensor == int(name[1:])).all()) for tensor in tensors.values())


@given(
    visits=st.lists(st.sampled_from(NAMES), max_size=30),
    resident=st.sets(st.sampled_from(NAMES)),
    count=st.integers(1, 4),
)
def test_whatever_the_order_each_visit_sees_its_own_weights(visits: list[str], resident: set[str], count: int) -> None:
    slots = Slots(_arena(), device=CPU, poison=True)
    _settled(slots, resident, count)
    for name in visits:
        with slots.visit(name) as tensors:
            assert _holds(dict(tensors), name)


def test_weights_kept_after_a_visit_are_poison(slots: Slots) -> None:
    _settled(slots, set(), 1)
    with slots.visit("b1") as tensors:
        kept = tensors["w"]
    slots.drop_ahead()
    with slots.visit("b3"):
        pass
    assert not _holds({"w": kept}, "b1")
    slots.drop_ahead()
    slots._next.clear()
    with slots.visit("b1") as tensors:
        kept = tensors["w"]
    assert bool(kept.isnan().all())


def test_every_free_slot_is_filled_ahead_and_around_the_end(slots: Slots) -> None:
    _settled(slots, {"b1"}, 3)
    with slots.visit("b4"):
        during = slots.ahead
    assert (during, slots.ahead) == (("b5", "b0"), ("b5", "b0", "b2"))


def test_a_turn_sends_for_what_comes_after_the_last(slots: Slots) -> None:
    _settled(slots, set(), 2)
    slots.turn(NAMES[3:], to=NAMES[1:])
    with slots.visit("b5"):
        assert slots.ahead == ("b1",)


def test_an_error_within_a_visit_frees_its_slot(slots: Slots) -> None:
    _settled(slots, set(), 2)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="broken"), slots.visit("b2"):
            raise RuntimeError("broken")
    with slots.visit("b3") as tensors:
        assert _holds(dict(tensors), "b3")


def test_settling_again_keeps_what_stays_and_drops_what_goes(slots: Slots) -> None:
    _settled(slots, {"b0", "b1"}, 2)
    with slots.visit("b1") as tensors:
        stays = tensors["w"].data_ptr()
    _settled(slots, {"b1", "b2"}, 3)
    assert slots.resident == {"b1", "b2"}
    with slots.visit("b1") as tensors:
        assert tensors["w"].data_ptr() == stays


def test_memory_that_ends_between_an_entry_and_what_lies_beside_it_leaves_neither(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = lay_out([("down", torch.float32, (4,))])
    beside = Arena([Entry(name=name, layout=layout, host=host_buffer(layout.size)) for name in NAMES])
    slots.lay_beside(beside)
    place = slots._place

    def end(arena: Arena, name: str) -> dict[str, Tensor]:
        if arena is beside and name == "b2":
            raise torch.OutOfMemoryError("full")
        return place(arena, name)

    monkeypatch.setattr(slots, "_place", end)
    with pytest.raises(torch.OutOfMemoryError):
        slots.settle(resident={"b1", "b2"}, slots=2, size=2048)
    monkeypatch.undo()
    slots.settle(resident={"b1", "b2"}, slots=2, size=2048)  # others have let memory go
    slots.route(NAMES)
    for name in NAMES:
        with slots.visit(name) as tensors:
            assert "down" in tensors


def test_closing_lets_everything_go(slots: Slots) -> None:
    _settled(slots, {"b0"}, 2)
    with slots.visit("b4"):
        pass
    slots.close()
    assert slots.resident == frozenset()
    assert slots.ahead == ()
