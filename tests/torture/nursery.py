"""Forks processes of `kiln run` that need not import anything: what starts in a second starts in a tenth of one.

It imports all that Kiln imports, opens and closes one, and then, with no thread and no event loop, forks at each line
of its standard input: a JSON object with `environment`, `log` and `folder`. It answers with lines of JSON:
`{"started": pid}`, and `{"ended": pid, "code": ...}` as soon as one has ended. It ends with its standard input, and
kills what is left.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NoReturn

import bot.__main__  # noqa: F401 - what a child would import
from bot.app import open_kiln
from bot.settings import Settings
from tests.end_to_end import launch_kiln
from tests.fakes import FakeGenerator, new_job


def main() -> None:
    """Fork on demand, and report ends."""
    _warm_up()
    gc.freeze()
    awake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    buffered = b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _report_ends(alive)
        if 0 in ready:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, buffered = (buffered + read).split(b"\n")
            for line in lines:
                alive.add(_start(json.loads(line)))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Open a Kiln once and close it: what that imports and compiles, every child then has."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_open(Path(folder)))
    assert threading.active_count() == 1, "a fork would lose the other threads"


async def _open(folder: Path) -> None:
    settings = Settings(_env_file=None, data=folder)  # type: ignore[call-arg]
    async with open_kiln(settings, load=FakeGenerator, remember_sync=False) as bot:
        await bot.kiln.queue.submit(new_job(1))
        bot.kiln.dispatcher.wake()
        while not await bot.kiln.queue.outbox.letters():  # noqa: ASYNC110 - no outcome is told before Discord is there
            await asyncio.sleep(0.01)


def _start(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _live(asked)
    _say({"started": pid})
    return pid


def _live(asked: dict[str, Any]) -> NoReturn:
    """Be `kiln run`, from its very beginning."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = launch_kiln.main()
    finally:
        os._exit(code)


def _report_ends(alive: set[int]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        alive.discard(pid)
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
