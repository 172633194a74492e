"""Compiled functions: more sizes than torch keeps graphs for, a compiler that fails, and where graphs are kept."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from gen import compiling
from gen.compiling import Compiled, keep_graphs

FLASH = "FLASH_ATTENTION_CUTE_DSL_CACHE"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # so that what a test writes there is undone
    for name in ("TRITON_CACHE_DIR", f"{FLASH}_DIR", f"{FLASH}_ENABLED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):
        yield


def test_however_many_sizes_people_ask_for_each_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "SIZES", 3)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    function = Compiled(lambda x: 2 * x)  # torch counts what it compiled by a function's own code
    for size in [*range(2, 12), 2]:
        assert function(torch.ones(size)).tolist() == [2.0] * size


def test_a_compiler_that_fails_costs_speed_and_no_picture(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=full))
    function = Compiled(lambda x: 2 * x)
    for _ in range(2):
        assert function(torch.ones(3)).tolist() == [2.0] * 3
    assert caplog.text.count("No space left on device") == 1


def test_memory_that_runs_out_while_compiling_is_that_and_the_next_picture_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def first_full(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        tried.append(1)
        if len(tried) == 1:
            raise torch.OutOfMemoryError
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=first_full))
    function = Compiled(lambda x: 2 * x)
    with pytest.raises(torch.OutOfMemoryError):
        function(torch.ones(3))
    assert function(torch.ones(3)).tolist() == [2.0] * 3
    assert len(tried) == 2


def test_a_compiler_that_fails_after_many_sizes_costs_no_picture_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def full_one_day(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., object]:
        if len(inputs[0]) == 6:
            raise OSError(28, "No space left on device")
        return graph.forward

    monkeypatch.setattr(compiling, "SIZES", 3)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=full_one_day))
    function = Compiled(lambda x: 2 * x)
    for size in range(3, 9):
        assert function(torch.ones(size)).tolist() == [2.0] * size


def test_graphs_are_kept_in_the_folder_although_torch_has_chosen_its_own(tmp_path: Path) -> None:
    assert cache_dir() == default_cache_dir()  # as soon as torch's compiler is imported, which DiffSynth does
    keep_graphs(tmp_path / "compiled")
    assert cache_dir() == str(tmp_path / "compiled")
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "compiled" / "triton")
    assert (os.environ[f"{FLASH}_ENABLED"], os.environ[f"{FLASH}_DIR"]) == ("1", str(tmp_path / "compiled" / "flash"))


def test_an_operators_own_place_for_graphs_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "theirs"))
    keep_graphs(tmp_path / "ours")
    assert cache_dir() == str(tmp_path / "theirs")


def test_a_folder_that_cannot_be_written_is_told_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    keep_graphs(tmp_path / "file" / "compiled")
    assert cache_dir() == default_cache_dir()
    assert f"{tmp_path / 'file' / 'compiled'} cannot be used: [Errno 20] Not a directory" in caplog.text


def test_a_disk_without_room_is_told_with_its_numbers_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    keep_graphs(tmp_path)
    assert cache_dir() == default_cache_dir()
    assert "5,000 bytes are free there, 268,435,456 are wanted" in caplog.text
