"""A second executor, as unlike the GPU thread as can be: another process, two slots, a socket, and a life of its own.

It stands for the distributed engine to come: its process can be killed under it, and goes on drawing when whoever
asked is gone, so that the next one adopts what is under way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import gen.errors
from gen.attempt import Attempt, Event, Painted
from gen.request import ImageResult, StepReport
from tests.drawing_process import SLOTS

ROOT = Path(__file__).parents[1]
LINE_BYTES = 16 * 2**20


class ProcessDied(Exception):
    """The process that drew it is gone."""


class DrawingProcess:
    """The process; it outlives the executors that talk to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "draw.sock"
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.returncode is None:
            return
        self.path.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.drawing_process", str(self.path)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=PIPE,
            stdout=PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        """As the kernel does when memory runs out."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.communicate()


class SubprocessExecutor:
    """Speaks `gen.attempt.Executor` over a socket."""

    def __init__(self, process: DrawingProcess) -> None:
        self._process = process
        self._heard: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._under_way: frozenset[str] = frozenset()

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def slots(self) -> int:
        """Two threads draw."""
        return SLOTS

    async def adopt(self) -> frozenset[str]:
        """What was under way when this executor connected."""
        return self._under_way

    def cancel(self, token: str) -> None:
        """Stop this attempt within one step."""
        self._send({"cancel": token})

    async def aclose(self) -> None:
        """Stop all, and the process too."""
        self._send({"end": True})
        await self.abandon()

    async def abandon(self) -> None:
        """Let go as a dispatcher does that is killed: what is under way goes on."""
        if self._writer is not None:
            self._writer.close()
        if self._listening is not None:
            await self._listening

    async def run(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
        """Draw one attempt; see `gen.attempt.Executor`."""
        heard = self._heard[attempt.token] = asyncio.Queue()
        over = False
        if self._listening is None or self._listening.done():
            await self._connect()
        self._send({"run": attempt.token, "request": asdict(attempt.request)})
        try:
            while not over:
                message = await heard.get()
                over = _is_last(message)
                yield _event(message)
        finally:
            if not over:
                await self._stop(attempt.token, heard)
            self._send({"fetched": attempt.token})
            del self._heard[attempt.token]

    async def _stop(self, token: str, heard: asyncio.Queue[dict[str, Any]]) -> None:
        """Wait until its slot is free, however often the caller is cancelled."""
        self.cancel(token)
        cancelled = False
        while True:
            try:
                if _is_last(await heard.get()):
                    break
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _connect(self) -> None:
        await self._process.start()
        reader, self._writer = await asyncio.open_unix_connection(self._process.path, limit=LINE_BYTES)
        self._under_way = frozenset(json.loads(await reader.readline())["under_way"])
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if message["token"] in self._heard:
                    self._heard[message["token"]].put_nowait(message)
        except ConnectionError:
            pass
        for heard in self._heard.values():
            heard.put_nowait({"error": ["ProcessDied", "the drawing process is gone"]})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")


def _is_last(message: dict[str, Any]) -> bool:
    return "image" in message or "error" in message


def _event(message: dict[str, Any]) -> Event:
    """What a message says; raises what it says was raised."""
    match message:
        case {"step": values}:
            return StepReport(**values)
        case {"painted": seconds}:
            return Painted(seconds=seconds)
        case {"image": values}:
            return ImageResult(**{**values, "png": base64.b64decode(values["png"])})
        case {"error": [name, text]}:
            known = getattr(gen.errors, name, ProcessDied if name == "ProcessDied" else RuntimeError)
            raise known(text)
    raise AssertionError(f"not understood: {message}")
