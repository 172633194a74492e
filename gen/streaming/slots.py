"""Slots: static buffers on the card that entries pass through while others rest there.

`visit(name)` gives an entry's tensors on the card for the length of a `with`. A streamed entry is copied by a stream
of its own; an event tells when it is there, another when its slot may be overwritten. What comes next is known from
routes, so every free slot is filled ahead, over the ends of steps and pictures. On a CPU the same code makes plain
copies. Knows no model. Used by one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gen.streaming.arena import Arena
from gen.streaming.ring import PinnedRing

POISON = 0xFF  # NaN as float8_e4m3fn, bfloat16 and float32


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    buffer: Tensor  # (bytes,) uint8 on the card
    ready: torch.cuda.Event | None  # the entry has arrived
    free: torch.cuda.Event | None  # the last visit's work has been done
    views: dict[tuple[int, int], dict[str, Tensor]] = field(default_factory=dict)  # by layouts: made once


class Slots:
    """Entries of one arena on one device: some resident, the others streamed through slots."""

    def __init__(self, arena: Arena, *, device: torch.device, poison: bool = False) -> None:
        self._arena, self._device, self._poison = arena, device, poison
        self._resident: dict[str, dict[str, Tensor]] = {}
        self._beside = Arena(())
        self._beside_resident: dict[str, dict[str, Tensor]] = {}
        self._idle: deque[_Slot] = deque()
        self._coming: deque[tuple[str, _Slot]] = deque()  # in the order of their copies
        self._next: dict[str, str] = {}
        self._asked = ""  # the entry whose copy was begun last
        on_card = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if on_card else None  # type: ignore[no-untyped-call]
        self._ring = PinnedRing(device, self._copies) if self._copies is not None else None

    def settle(self, *, resident: Iterable[str], slots: int, size: int) -> None:
        """Take a plan: which entries rest on the card, and how many slots of `size` bytes the others share.

        What is resident already stays where it is. Raise torch.OutOfMemoryError with nothing half placed.
        """
        self.drop_ahead()
        self._next.clear()
        wanted = set(resident)
        for name in set(self._resident) - wanted:
            del self._resident[name]
            self._beside_resident.pop(name, None)
        if len(self._idle) != slots or any(slot.buffer.nbytes != size for slot in self._idle):
            self._wait_for_copies()  # memory that is still written to must not find another owner
            self._idle.clear()
            self._idle.extend(self._slot(size) for _ in range(slots))
        for name in sorted(wanted - set(self._resident)):
            placed = self._place(self._arena, name)
            self._place_beside(name, placed)  # first: where memory ends here, the entry does not rest without it
            self._resident[name] = placed

    def lay_beside(self, beside: Arena) -> None:
        """Give entries more tensors, under the same names: they travel behind them, or rest with them.

        Slots must have been settled large enough for both. An empty arena takes them away again.
        """
        self.drop_ahead()
        self._wait_for_copies()
        self._beside = beside
        self._beside_resident.clear()
        for slot in self._idle:
            slot.views.clear()  # layouts are told apart by identity, and the old ones may go
        for name, placed in self._resident.items():
            self._place_beside(name, placed)

    def route(self, *stretches: Sequence[str]) -> None:
        """What follows what: each stretch in its order, the last entry by the first of the next stretch, and around.

        Resident entries are left out: nothing has to be copied for them.
        """
        way = [name for stretch in stretches for name in stretch if name not in self._resident]
        self._next.update(zip(way, way[1:] + way[:1], strict=True))

    def turn(self, last: Sequence[str], *, to: Sequence[str]) -> None:
        """After the last streamed entry of one stretch comes the first streamed one of another."""
        ends = [name for name in last if name not in self._resident]
        begins = [name for name in to if name not in self._resident]
        if ends and begins:
            self._next[ends[-1]] = begins[0]

    @contextmanager
    def visit(self, name: str) -> Iterator[Mapping[str, Tensor]]:
        """An entry's tensors on the card. They are overwritten some time after the `with`, so hold none of them."""
        if name in self._resident:
            yield self._beside_resident.get(name, self._resident[name])
            return
        slot = self._arrived(name)
        self._fill_ahead()
        try:
            yield self._views(slot, name)
        finally:
            self._release(slot)
            self._fill_ahead()

    @contextmanager
    def host(self, name: str) -> Iterator[Mapping[str, Tensor]]:
        """An entry's tensors on the card, outside the slots: memory of its own, for the length of the `with`."""
        if name in self._resident:
            yield self._resident[name]
            return
        yield self._place(self._arena, name)

    def drop_ahead(self) -> None:
        """Forget what is on its way; its slots are idle again, and their copies come before any later one."""
        while self._coming:
            self._idle.append(self._take()[1])
        self._asked = ""

    def close(self) -> None:
        """Wait for the copies and give all memory on the card back."""
        self.drop_ahead()
        if self._ring is not None:
            self._ring.close()
        self._wait_for_copies()
        self._idle.clear()
        self._resident.clear()
        self._beside_resident.clear()
        self._next.clear()

    @property
    def resident(self) -> frozenset[str]:
        """Names of the entries that rest on the card."""
        return frozenset(self._resident)

    @property
    def ahead(self) -> tuple[str, ...]:
        """Names of the entries that have been sent for, in order."""
        return tuple(name for name, _ in self._coming)

    def _slot(self, size: int) -> _Slot:
        buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
        if self._poison:
            buffer.fill_(POISON)
        if self._copies is None:
            return _Slot(buffer=buffer, ready=None, free=None)
        ready, free = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        free.record()  # the memory may have had another owner on the current stream
        return _Slot(buffer=buffer, ready=ready, free=free)

    def _place(self, arena: Arena, name: str) -> dict[str, Tensor]:
        entry = arena[name]
        buffer = torch.empty(entry.layout.size, dtype=torch.uint8, device=self._device)
        buffer.copy_(entry.host, non_blocking=arena.is_pinned(name))
        return entry.layout.views(buffer)

    def _place_beside(self, name: str, placed: dict[str, Tensor]) -> None:
        if name in self._beside.entries:
            self._beside_resident[name] = placed | self._place(self._beside, name)

    def _arrived(self, name: str) -> _Slot:
        """The slot that holds `name`; whatever was sent for before it was a wrong guess."""
        if all(coming != name for coming, _ in self._coming):
            self.drop_ahead()
            self._send_for(name)
        while (taken := self._take())[0] != name:
            self._idle.append(taken[1])
        slot = taken[1]
        if slot.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.ready)
        return slot

    def _take(self) -> tuple[str, _Slot]:
        """The first of what is on its way, its copy handed to the card."""
        name, slot = self._coming.popleft()
        if self._ring is not None:
            self._ring.wait(name)
        return name, slot

    def _wait_for_copies(self) -> None:
        if self._copies is not None:
            torch.cuda.current_stream(self._device).synchronize()
            self._copies.synchronize()

    def _fill_ahead(self) -> None:
        while self._idle and self._asked in self._next:
            self._send_for(self._next[self._asked])

    def _send_for(self, name: str) -> None:
        slot = self._idle.popleft()
        pieces, pinned = self._pieces(name, slot)
        if self._copies is None or self._ring is None or slot.ready is None or slot.free is None:
            for host, target in pieces:
                target.copy_(host)
        elif pinned:
            with torch.cuda.stream(self._copies):
                self._copies.wait_event(slot.free)
                for host, target in pieces:
                    target.copy_(host, non_blocking=True)
                slot.ready.record(self._copies)
        else:
            self._ring.send(name, pieces, after=slot.free, ready=slot.ready)
        self._coming.append((name, slot))
        self._asked = name

    def _pieces(self, name: str, slot: _Slot) -> tuple[list[tuple[Tensor, Tensor]], bool]:
        """What is copied where for a visit, and whether all of it is pinned."""
        entry = self._arena[name]
        size = entry.layout.size
        pieces, pinned = [(entry.host, slot.buffer[:size])], self._arena.is_pinned(name)
        if beside := self._beside.entries.get(name):
            pieces.append((beside.host, slot.buffer[size : size + beside.layout.size]))
            pinned = pinned and self._beside.is_pinned(name)
        return pieces, pinned

    def _views(self, slot: _Slot, name: str) -> dict[str, Tensor]:
        entry, beside = self._arena[name], self._beside.entries.get(name)
        key = id(entry.layout), id(beside and beside.layout)
        if key not in slot.views:
            slot.views[key] = entry.layout.views(slot.buffer)
            if beside:
                slot.views[key] |= beside.layout.views(slot.buffer[entry.layout.size :])
        return slot.views[key]

    def _release(self, slot: _Slot) -> None:
        if self._poison:
            slot.buffer.fill_(POISON)
        if slot.free is not None:
            slot.free.record(torch.cuda.current_stream(self._device))
        self._idle.append(slot)
