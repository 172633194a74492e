"""`KilnProcess`, forked from a nursery instead of started anew: everything else is the same, the real command too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

from tests.end_to_end.kiln_process import REPOSITORY, KilnProcess
from tests.loopback_discord import LoopbackDiscord


class Child:
    """As much of asyncio's Process as KilnProcess uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.over = asyncio.Event()

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        await self.over.wait()
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """The process that forks; one for many lives."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._started: asyncio.Queue[Child] = asyncio.Queue()
        self._children: dict[int, Child] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "faulthandler", "-m", "tests.torture.nursery"),
            cwd=REPOSITORY,
            stdin=PIPE,
            stdout=PIPE,
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._listening is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening

    async def start(self, environment: dict[str, str], *, folder: Path, log: Path) -> Child:
        assert self._process is not None
        assert self._process.stdin is not None
        asked = {"environment": environment, "folder": str(folder), "log": str(log)}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return await self._started.get()

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told: dict[str, Any] = json.loads(line)
            if "started" in told:
                child = self._children[told["started"]] = Child(told["started"])
                self._started.put_nowait(child)
            else:
                child = self._children.pop(told["ended"])
                child.returncode = told["code"]
                child.over.set()


class ForkedKiln(KilnProcess):
    """One data folder and, at a time, one forked process on it."""

    def __init__(self, nursery: Nursery, discord: LoopbackDiscord, folder: Path) -> None:
        super().__init__(discord, folder)
        self._nursery = nursery

    async def _spawn(self, crash_at: str | None) -> Child:
        return await self._nursery.start(self._environment(crash_at), folder=self._folder, log=self._log)
