"""The host's store of weights: each entry one contiguous uint8 buffer, laid out so that one copy moves it to the card.

An entry is what visits the card as a whole: a block, a modulation linear, a text encoder's layer, a small model. Its
layout says where in the buffer each tensor lies. Host memory is taken from the system directly, because torch's
pinned allocator rounds a block of 227 MB up to 256. Knows no model, no files (`arena_file` does) and no slots.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gen.errors import OutOfMemory, WeightsMissing
from gen.float8 import quantize_rows
from gen.streaming.cards import GIB

ALIGN = 256  # bytes; tensor cores and vector loads want their operands aligned
FLOAT8 = torch.float8_e4m3fn
Read = Callable[[str], Tensor]  # a tensor of the checkpoint by its name in the module


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One tensor in a buffer."""

    name: str  # `attn.a_to_qkv.weight`; its row scales are `attn.a_to_qkv.scale`
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes

    @property
    def size(self) -> int:
        """Bytes without padding."""
        return math.prod(self.shape) * self.dtype.itemsize

    def view(self, buffer: Tensor) -> Tensor:
        """This tensor in a buffer (bytes,) uint8."""
        return buffer[self.offset : self.offset + self.size].view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each tensor of an entry lies."""

    parts: tuple[Part, ...]
    size: int  # bytes, a multiple of ALIGN

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The tensors in a buffer of at least `size` bytes; no copy is made."""
        return {part.name: part.view(buffer) for part in self.parts}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """What visits the card as a whole."""

    name: str  # `blocks.3`
    layout: Layout
    host: Tensor  # (layout.size,) uint8, the master: the card's copy may be dropped at any time


Shapes = Iterable[tuple[str, torch.dtype, tuple[int, ...]]]


def lay_out(shapes: Shapes) -> Layout:
    """Lay tensors one after another, each on a boundary of ALIGN bytes."""
    parts, end = [], 0
    for name, dtype, shape in shapes:
        part = Part(name=name, dtype=dtype, shape=tuple(shape), offset=end)
        parts.append(part)
        end += -(-part.size // ALIGN) * ALIGN
    return Layout(parts=tuple(parts), size=end)


def layout_of(
    module: nn.Module, *, stored: torch.dtype, wide: torch.dtype, skip: Callable[[str], bool] = lambda name: False
) -> Layout:
    """Lay out a module's parameters: weights of linear layers as `stored`, everything else as `wide`.

    A float8 weight is followed by the float32 scales of its rows. Parameters for which `skip` is true stay out.
    """
    linears = {name for name, child in module.named_modules() if isinstance(child, nn.Linear)}

    def shapes() -> Iterator[tuple[str, torch.dtype, tuple[int, ...]]]:
        for name, parameter in module.named_parameters():
            owner, _, kind = name.rpartition(".")
            if skip(name):
                continue
            if kind == "weight" and owner in linears:
                yield name, stored, tuple(parameter.shape)
                if stored == FLOAT8:
                    yield f"{name.removesuffix('weight')}scale", torch.float32, (parameter.shape[0],)
            else:
                yield name, wide, tuple(parameter.shape)

    return lay_out(shapes())


def pack(layout: Layout, read: Read, out: Tensor, *, device: torch.device) -> None:
    """Fill the buffer `out` with the tensors that `read` gives by their names; quantize on `device`.

    A tensor that is float8 already is taken as it is, with the scales that `read` knows for it, or 1.
    """
    views = layout.views(out)
    scales = {
        part.name for part in layout.parts if part.name.rpartition(".")[2] == "scale" and part.dtype == torch.float32
    }
    for part in layout.parts:
        if part.name in scales:
            continue
        tensor = read(part.name)
        if [side for side in tensor.shape if side > 1] != [side for side in part.shape if side > 1]:
            raise WeightsMissing(f"{part.name} has the shape {tuple(tensor.shape)}; the model's is {part.shape}.")
        scale = part.name.removesuffix("weight") + "scale"
        if part.dtype == FLOAT8 and scale in scales:
            weight, rows = _float8(tensor, scale, read, device=device)
            views[part.name].copy_(weight)
            views[scale].copy_(rows)
        else:
            views[part.name].copy_(_widened(tensor, part.name, scale, read).reshape(part.shape))


def _float8(tensor: Tensor, scale: str, read: Read, *, device: torch.device) -> tuple[Tensor, Tensor]:
    if tensor.dtype == FLOAT8:
        return tensor, _scale_of(scale, read, rows=len(tensor)).expand(len(tensor))
    if tensor.dtype == torch.float8_e5m2:
        tensor = tensor.float() * _scale_of(scale, read, rows=len(tensor))[:, None]
    return quantize_rows(tensor.to(device))


def _widened(tensor: Tensor, name: str, scale: str, read: Read) -> Tensor:
    """A float8 weight of the checkpoint as numbers, for a layout that stores it in a wide dtype."""
    if tensor.dtype.itemsize > 1 or not name.endswith("weight"):
        return tensor
    return tensor.float() * _scale_of(scale, read, rows=len(tensor)).reshape(-1, *[1] * (tensor.dim() - 1))


def _scale_of(scale: str, read: Read, *, rows: int) -> Tensor:
    """A float8 checkpoint's own scale as float32, (1,) for a whole weight or (rows,); 1 where it has none."""
    try:
        found = read(scale)
    except KeyError:
        return torch.ones(1)
    if found.numel() != 1 and not found.numel() == rows == len(found):
        raise WeightsMissing(
            f"{scale} has the shape {tuple(found.shape)}; Kiln takes one scale for a weight, or one for each of its "
            f"{rows} rows, none for blocks or columns."
        )
    return found.float().reshape(-1)


def host_buffer(size: int) -> Tensor:
    """Memory of exactly `size` bytes, (size,) uint8, not yet touched; raise OutOfMemory if the system has no more."""
    try:
        memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise OutOfMemory(f"The system gives no {size / GIB:.2f} GiB more for weights: {error.strerror}.") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: fewer faults, and quicker to pin
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:size]


def pin(buffer: Tensor) -> bool:
    """Lock a host buffer in memory so that the card copies it by itself; False where the system allows no more."""
    cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(cuda.cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)) == 0:
        return True
    with suppress(RuntimeError):  # CUDA tells an error a second time to whoever asks next: let that be this
        torch.zeros(1, device="cuda")
    return False


def unpin(buffer: Tensor) -> None:
    """Undo `pin`; a locked buffer must not be given back to the system."""
    torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())  # type: ignore[no-untyped-call]


class Arena:
    """The entries of one model by name, and which of them are pinned."""

    def __init__(self, entries: Iterable[Entry], *, sha256: str = "") -> None:
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        self.sha256 = sha256  # of the DiT's file, hex
        self._pinned: dict[str, Tensor] = {}
        # Memory that went back to the system while it was locked would be read by the card where other memory lies by
        # then, if that gets the same address: pictures of a later model were black (2026-11).
        weakref.finalize(self, _unpin_all, self._pinned).atexit = False

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.layout.size for entry in self.entries.values())

    @property
    def pinned(self) -> int:
        """Bytes that are pinned now."""
        return sum(buffer.nbytes for buffer in self._pinned.values())

    def pin(self, names: Iterable[str], *, limit: int) -> None:
        """Pin entries in this order while all that are pinned fit into `limit` bytes."""
        for name in names:
            buffer = self.entries[name].host
            if name in self._pinned or self.pinned + buffer.nbytes > limit:
                continue
            if not pin(buffer):
                break
            self._pinned[name] = buffer

    def make_room(self, size: int, *, limit: int) -> None:
        """Unpin what was pinned last until `size` bytes more fit into `limit`; nothing may be on its way to the card.

        For what lies beside each entry: one part that is not pinned sends the whole visit through the ring.
        """
        while self._pinned and self.pinned + size > limit:
            unpin(self._pinned.popitem()[1])

    def is_pinned(self, name: str) -> bool:
        """True if the card copies this entry by itself."""
        return name in self._pinned

    def close(self) -> None:
        """Unpin everything; the buffers go when nobody holds them. An arena that nobody holds does it by itself."""
        _unpin_all(self._pinned)


def _unpin_all(pinned: dict[str, Tensor]) -> None:
    while pinned:
        unpin(pinned.popitem()[1])
