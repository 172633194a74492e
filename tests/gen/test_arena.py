"""The store of packed weights and its file: whole or absent, verified, and never in the way of a start."""

import errno
import fcntl
import gc
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen.checkpoint import Checkpoint
from gen.errors import OutOfMemory, WeightsMissing
from gen.streaming import arena as arena_module
from gen.streaming import arena_file, packing
from gen.streaming.arena import ALIGN, FLOAT8, Arena, Entry, host_buffer, lay_out, layout_of, pack
from gen.streaming.arena_file import DATA, StaleArena
from gen.streaming.packing import Packing, Source, open_arena

CPU = torch.device("cpu")


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(48, 80), nn.LayerNorm(80), nn.Linear(80, 16, bias=False)


class _Setup:
    """A checkpoint, what is packed from it, and a cache folder."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.module, self.path, self.cache = _Model(), folder / "model.safetensors", folder / "cache"
        self.state = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        save_file(self.state, self.path)

    def open(self, *, stored: torch.dtype = FLOAT8, cache: Path | None = None) -> Arena:
        checkpoint = Checkpoint([self.path], dict)
        layout = layout_of(self.module, stored=stored, wide=torch.bfloat16)
        sources = [Source(name=name, layout=layout, read=checkpoint.reader()) for name in ("a", "b")]
        made = Packing(title="m", sources=sources, files=[self.path], about={"precision": str(stored)})
        return open_arena(made, cache=cache or self.cache, device=CPU)

    @property
    def file(self) -> Path:
        return next(self.cache.glob("*.arena"))


@pytest.fixture
def setup(tmp_path: Path) -> _Setup:
    return _Setup(tmp_path)


def _bytes(arena: Arena) -> list[bytes]:
    return [bytes(entry.host.numpy()) for entry in arena.entries.values()]


def test_parts_lie_on_boundaries_and_do_not_overlap(setup: _Setup) -> None:
    layout = layout_of(setup.module, stored=FLOAT8, wide=torch.bfloat16)
    assert [part.name for part in layout.parts][:3] == ["first.weight", "first.scale", "first.bias"]
    ends = [0] + [part.offset + part.size for part in layout.parts]
    assert all(part.offset % ALIGN == 0 and part.offset >= end for part, end in zip(layout.parts, ends, strict=False))
    assert layout.size % ALIGN == 0
    assert layout.size >= ends[-1]


def test_linears_are_stored_narrow_and_all_else_wide(setup: _Setup) -> None:
    arena = setup.open()
    entry = arena["a"]
    views = entry.layout.views(entry.host)
    assert {name: view.dtype for name, view in views.items() if view.dtype != torch.bfloat16} == {
        "first.weight": FLOAT8,
        "first.scale": torch.float32,
        "last.weight": FLOAT8,
        "last.scale": torch.float32,
    }
    exact = setup.state["first.weight"]
    assert torch.allclose(
        views["first.weight"].float() * views["first.scale"][:, None], exact, atol=0.07 * exact.abs().max()
    )
    assert torch.equal(views["norm.weight"], setup.state["norm.weight"].bfloat16())


def test_the_second_start_reads_the_file_and_nothing_else(setup: _Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    first = setup.open()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr(packing, "pack", forbidden)
    second = setup.open()
    assert _bytes(second) == _bytes(first)
    assert second.sha256 == first.sha256


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 16]))


def _version(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(4, "little"))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "shorter than its header says"),
    "empty": (lambda path: os.truncate(path, 0), "not a file of packed weights"),
    "another file": (lambda path: path.write_bytes(b"hello" * 10_000), "not a file of packed weights"),
    "version": (_version, "layout version 99"),
    "header": (lambda path: _flip(path, 60), "header is damaged"),
    "first byte": (lambda path: _flip(path, DATA), "entry a is damaged"),
    "a late byte": (lambda path: _flip(path, path.stat().st_size - ALIGN - 3), "entry b is damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_said_in_a_line_and_packed_again(
    setup: _Setup, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    whole = _bytes(setup.open())
    spoil, words = FAULTS[fault]
    spoil(setup.file)
    with caplog.at_level(logging.WARNING):
        assert _bytes(setup.open()) == whole
    assert words in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()
    assert _bytes(setup.open()) == whole
    assert not caplog.records


def test_every_flipped_byte_of_an_entry_changes_its_checksum() -> None:
    buffer = torch.randint(0, 256, (ALIGN,), dtype=torch.uint8)
    before = arena_file.checksum(buffer)
    for place in range(ALIGN):
        buffer[place] ^= 1
        assert arena_file.checksum(buffer) != before
        buffer[place] ^= 1


def test_another_checkpoint_of_the_same_size_is_packed_again(setup: _Setup, caplog: pytest.LogCaptureFixture) -> None:
    before = _bytes(setup.open())
    save_file({name: tensor + 1 for name, tensor in setup.state.items()}, setup.path)
    assert _bytes(setup.open()) != before
    assert "packed from other files" in caplog.text


def test_precisions_have_files_of_their_own(setup: _Setup) -> None:
    setup.open()
    setup.open(stored=torch.bfloat16)
    assert len(list(setup.cache.glob("*.arena"))) == 2


def test_a_full_disk_is_said_and_the_weights_are_packed_in_memory(
    setup: _Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole = _bytes(setup.open(cache=setup.cache / "other"))
    monkeypatch.setattr(arena_file, "_write_header", full)
    assert _bytes(setup.open()) == whole
    assert "No space left on device" in caplog.text
    assert not [path for path in setup.cache.iterdir() if path.is_file()]


def test_a_disk_too_small_is_said_before_writing(
    setup: _Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(setup.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert setup.open().entries
    assert "has 0.0 GiB free" in caplog.text
    assert not list(setup.cache.iterdir())


def test_a_stale_file_makes_room_for_the_new_one_where_there_is_none_for_both(
    setup: _Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, usage = _bytes(setup.open()), shutil.disk_usage(setup.cache)
    room = setup.file.stat().st_size * 3 // 2

    def disk_usage(folder: Path) -> Any:
        return usage._replace(free=room - sum(path.stat().st_size for path in folder.iterdir()))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    os.utime(setup.path, (0, 0))
    assert _bytes(setup.open()) == whole
    assert [record.message for record in caplog.records if "packed again" not in record.message] == []
    caplog.clear()
    assert _bytes(setup.open()) == whole
    assert not caplog.records
    os.utime(setup.path, (1, 1))
    room //= 2
    setup.open()
    assert setup.file.exists(), "one that would not fit in its place either has not to go"
    assert "stay in memory" in caplog.text


def test_a_cache_folder_that_cannot_be_made_is_said(setup: _Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.cache.write_text("a file where the folder should be")
    assert setup.open().entries
    assert "stay in memory" in caplog.text


def _refusing(usual: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    def refuse(path: Path, *given: Any, **named: Any) -> Any:
        if folder in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path, *given, **named)

    return refuse


def test_a_cache_folder_that_cannot_be_looked_into_is_said_in_a_line(
    setup: _Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stat", "open"):  # root may look into every folder, and tests run as root too
        monkeypatch.setattr(Path, name, _refusing(getattr(Path, name), setup.cache))
    assert len(setup.open().entries) == 2
    assert "stay in memory" in caplog.text
    assert "Permission denied" in caplog.text
    assert len(caplog.records) == 1


def test_memory_that_the_system_refuses_is_told_and_no_part_of_a_model_is_left(
    setup: _Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutOfMemory, match=r"no 1073741824\.00 GiB more for weights: Cannot allocate memory"):
        host_buffer(2**60)
    sizes = iter([2**20, 2**60])
    monkeypatch.setattr(packing, "host_buffer", lambda _: host_buffer(next(sizes)))
    with pytest.raises(OutOfMemory):
        setup.open()
    assert not caplog.records
    assert not list(setup.cache.iterdir())


@pytest.mark.parametrize("place", ["host_buffer", "pack"])
def test_an_error_of_packing_is_none_of_writing(setup: _Setup, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    usual, calls = getattr(packing, place), []

    def broken(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:  # the second entry's
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return usual(*given, **named)

    monkeypatch.setattr(packing, place, broken)
    with pytest.raises(OSError, match="Input/output error"):
        setup.open()


def test_a_packing_that_fails_leaves_no_file(setup: _Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(packing, "pack", broken)
    with pytest.raises(RuntimeError, match="broken"):
        setup.open()
    assert not list(setup.cache.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(setup: _Setup) -> None:
    setup.cache.mkdir()
    name = "model-torch.float8_e4m3fn.arena"
    left, other, strange = (
        setup.cache / part for part in (f"{name}.1.partial", f"{name}.2.partial", "x.arena.3.partial")
    )
    for path in (left, other, strange):
        path.write_bytes(b"half")
    with other.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        setup.open()
    assert sorted(setup.cache.iterdir()) == sorted([setup.cache / name, other, strange])


def test_what_a_killed_process_left_beside_a_whole_file_is_removed_too(setup: _Setup) -> None:
    setup.open()
    setup.file.with_name(f"{setup.file.name}.1.partial").write_bytes(b"half")
    setup.open()
    assert list(setup.cache.iterdir()) == [setup.file]


def test_two_that_pack_at_once_do_not_take_each_others_file(setup: _Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(*given: Any, **named: Any) -> None:
        arena_file.sweep(setup.cache / "model-torch.float8_e4m3fn.arena")
        pack(*given, **named)

    monkeypatch.setattr(packing, "pack", sweep)
    setup.open()
    assert setup.file.exists()


def test_a_reader_never_sees_a_file_that_is_being_written(setup: _Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def look(*given: Any, **named: Any) -> None:
        seen.append([path.suffix for path in setup.cache.iterdir()])
        pack(*given, **named)

    monkeypatch.setattr(packing, "pack", look)
    setup.open()
    assert seen == [[".partial"], [".partial"]]


@pytest.mark.parametrize("scale", [None, torch.tensor(0.25), torch.rand(80) + 0.5])
def test_a_float8_checkpoint_is_taken_as_it_is(setup: _Setup, scale: Tensor | None) -> None:
    narrow = {name: tensor.to(FLOAT8) if tensor.dim() > 1 else tensor for name, tensor in setup.state.items()}
    if scale is not None:
        narrow |= {"first.scale_weight": scale, "scaled_fp8": torch.zeros(2).to(FLOAT8)}
    save_file(narrow, setup.path)
    entry = setup.open()["a"]
    views = entry.layout.views(entry.host)
    assert torch.equal(views["first.weight"].float(), narrow["first.weight"].float())
    assert torch.equal(views["first.scale"], (torch.ones(80) if scale is None else scale.expand(80)))
    wide = setup.open(stored=torch.bfloat16)["a"]
    exact = narrow["first.weight"].float() * (1 if scale is None else scale.reshape(-1, 1))
    assert torch.equal(wide.layout.views(wide.host)["first.weight"], exact.bfloat16())


@pytest.mark.parametrize("scale", [torch.ones(5, 3), torch.ones(3), torch.ones(1, 80), torch.ones(0)])
@pytest.mark.parametrize("kind", [FLOAT8, torch.float8_e5m2])
@pytest.mark.parametrize("stored", [FLOAT8, torch.bfloat16])
def test_a_scale_for_each_block_is_named(setup: _Setup, scale: Tensor, kind: torch.dtype, stored: torch.dtype) -> None:
    narrow = {name: tensor.to(kind) if tensor.dim() > 1 else tensor for name, tensor in setup.state.items()}
    save_file(narrow | {"first.scale_weight": scale}, setup.path)
    with pytest.raises(WeightsMissing, match=rf"first.scale has the shape \({scale.shape[0]},.*each of its 80 rows"):
        setup.open(stored=stored)


def test_the_other_float8s_scales_are_of_rows(setup: _Setup) -> None:
    scale = torch.rand(80) + 0.5
    narrow = setup.state["first.weight"].to(torch.float8_e5m2)
    save_file(setup.state | {"first.weight": narrow, "first.scale_weight": scale}, setup.path)
    entry, exact = setup.open()["a"], narrow.float() * scale[:, None]
    views = entry.layout.views(entry.host)
    found = views["first.weight"].float() * views["first.scale"][:, None]
    assert torch.allclose(found, exact, atol=0.07 * exact.abs().max())


def test_a_tensor_of_another_shape_is_named(setup: _Setup) -> None:
    save_file(setup.state | {"first.weight": setup.state["first.weight"].T.contiguous()}, setup.path)
    with pytest.raises(WeightsMissing, match=r"first.weight.*\(48, 80\).*\(80, 48\)"):
        setup.open()


def test_a_tensor_too_few_or_too_many_is_named(setup: _Setup) -> None:
    for change, words in (({"spare": torch.ones(2)}, "spare"), ({"norm.bias": None}, "norm.bias")):
        state: dict[str, Any] = setup.state | change
        save_file({name: tensor for name, tensor in state.items() if tensor is not None}, setup.path)
        with pytest.raises(WeightsMissing, match=words):
            Checkpoint([setup.path], dict).check(setup.module)


def test_names_pass_through_a_converter(setup: _Setup) -> None:
    save_file({f"x.{name}": tensor for name, tensor in setup.state.items()}, setup.path)
    checkpoint = Checkpoint([setup.path], lambda state: {key[2:]: value for key, value in state.items()})
    checkpoint.check(setup.module)
    assert torch.equal(checkpoint.reader("first.")("bias"), load_file(setup.path)["x.first.bias"])


def test_a_header_that_is_no_longer_known_is_stale(setup: _Setup) -> None:
    setup.open()
    with pytest.raises(StaleArena, match="other entries"):
        arena_file.read(setup.file, about={}, layouts={}, told=lambda _: None)


def test_an_arena_that_nobody_closed_unlocks_its_memory_before_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = lay_out([("x", torch.uint8, (5,))])
    entries = [Entry(name=name, layout=layout, host=host_buffer(layout.size)) for name in "abc"]
    for entry in entries:
        entry.host.fill_(7)
    locked: set[int] = set()

    def pin(buffer: Tensor) -> bool:
        locked.add(buffer.data_ptr())
        return True

    def unpin(buffer: Tensor) -> None:
        assert int(buffer.sum()) == 7 * layout.size  # it is still there
        locked.remove(buffer.data_ptr())

    monkeypatch.setattr(arena_module, "pin", pin)
    monkeypatch.setattr(arena_module, "unpin", unpin)
    arena = Arena(entries)
    arena.pin("ab", limit=2**20)
    assert len(locked) == 2
    del entries, entry
    del arena
    gc.collect()
    assert locked == set()
    closed = Arena([Entry(name="a", layout=layout, host=host_buffer(layout.size).fill_(7))])
    closed.pin("a", limit=2**20)
    closed.close()
    closed.close()
    assert locked == set()


def test_room_is_made_by_unlocking_what_was_locked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "pin", lambda _: True)
    monkeypatch.setattr(arena_module, "unpin", lambda _: None)
    layout = lay_out([("x", torch.uint8, (5,))])
    arena = Arena(Entry(name=name, layout=layout, host=host_buffer(layout.size)) for name in "abc")
    arena.pin("abc", limit=0)
    assert arena.pinned == 0
    arena.pin("cab", limit=2 * layout.size)
    assert [name for name in "abc" if arena.is_pinned(name)] == ["a", "c"]
    arena.make_room(layout.size, limit=3 * layout.size)
    assert arena.pinned == 2 * layout.size
    arena.make_room(layout.size, limit=2 * layout.size)
    assert [name for name in "abc" if arena.is_pinned(name)] == ["c"]
    arena.make_room(layout.size, limit=0)
    assert arena.pinned == 0
