"""torch.compile as the engine uses it: a graph for each kind of function and each size, kept from start to start.

Knows no model, and of the cache that it is one more folder.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

import torch
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit

SIZES = 64  # graphs of one function before all of them are let go
ROOM = 2**28  # bytes on the disk that takes them

log = logging.getLogger(__name__)
P = ParamSpec("P")
Made = TypeVar("Made")


class Compiled(Generic[P, Made]):
    """A function that is compiled for each size it meets; once the compiler has failed, it runs as it is."""

    def __init__(self, function: Callable[P, Made]) -> None:
        torch._dynamo.config.recompile_limit = SIZES
        self._function = function
        self._compiled: Callable[P, Made] = torch.compile(function, fullgraph=True, dynamic=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Made:
        """What the function returns."""
        try:
            return self._compiled(*args, **kwargs)
        except FailOnRecompileLimitHit:  # people choose among thousands of sizes; a graph is made again in seconds
            torch._dynamo.reset()
            return self(*args, **kwargs)
        except BackendCompilerFailed as error:
            if isinstance(error.inner_exception, torch.OutOfMemoryError):  # of the card: there is a smaller plan
                raise error.inner_exception from None
            log.warning("What could not be compiled runs as it is from now on, slower: %s", str(error))
            self._compiled = self._function
            return self._function(*args, **kwargs)


def keep_graphs(folder: Path) -> None:
    """Let torch, Triton and FlashAttention keep what they compile in `folder`, unless the environment names another.

    Where it cannot be written, or has no room, they keep it in theirs, which may end with the process.
    """
    torchs = os.path.join(tempfile.gettempdir(), "torchinductor_")  # which it writes there when it is imported
    if not os.environ.get("TORCHINDUCTOR_CACHE_DIR", torchs).startswith(torchs):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
        if free < ROOM:  # a kernel that cannot be written cannot be run
            raise OSError(errno.ENOSPC, f"{free:,} bytes are free there, {ROOM:,} are wanted")
    except OSError as error:
        log.warning("Compiled graphs are not kept for the next start, because %s cannot be used: %s", folder, error)
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(folder / "flash"))
