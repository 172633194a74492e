"""The process behind `tests.subprocess_executor`: draws with the fake generator in two threads, told over a socket.

One JSON object a line. In: run, cancel, fetched, end. Out: first the tokens under way, then what happens to each.
What nobody listens to is kept until somebody connects again. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gen.errors import GenerationCancelled
from gen.request import ImageRequest, StepReport
from tests.fakes import FakeGenerator

SLOTS = 2


class Drawings:
    """What is under way, and all that was told of it."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(SLOTS)
        self.stops: dict[str, threading.Event] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.listener: asyncio.StreamWriter | None = None
        self.asked: set[str] = set()  # what the listener has asked for
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one executor until it goes."""
        self.listener, self.asked = writer, set()
        self._send({"under_way": list(self.told)})
        while line := await reader.readline():
            match json.loads(line):
                case {"run": token, "request": request}:
                    self._run(token, request)
                case {"cancel": token} if token in self.stops:
                    self.stops[token].set()
                case {"fetched": token}:
                    self.told.pop(token, None)
                    self.stops.pop(token, None)
                case {"end": True}:
                    self.ended.set()
        if self.listener is writer:
            self.listener = None
        writer.close()

    def _run(self, token: str, request: dict[str, Any]) -> None:
        self.asked.add(token)
        if token in self.told:  # adopted
            for event in self.told[token]:
                self._send(event)
            return
        self.told[token], self.stops[token] = [], threading.Event()
        loop = asyncio.get_running_loop()

        def tell(event: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(self._tell, token, {"token": token, **event})

        loop.run_in_executor(self.threads, _draw, request, self.stops[token], tell)

    def _tell(self, token: str, event: dict[str, Any]) -> None:
        if token in self.told:
            self.told[token].append(event)
            if token in self.asked:
                self._send(event)

    def _send(self, event: dict[str, Any]) -> None:
        if self.listener is not None:
            self.listener.write(json.dumps(event).encode() + b"\n")


def _draw(values: dict[str, Any], stop: threading.Event, tell: Callable[[dict[str, Any]], None]) -> None:
    generator = FakeGenerator()

    def step(report: StepReport) -> None:
        if stop.is_set():
            raise GenerationCancelled("The drawing was stopped.")
        tell({"step": asdict(report)})

    try:
        request = _unchecked(values)
        generator.profile.check(request)
        ImageRequest(**values)
        result = generator.draw(request, on_step=step)
        tell({"painted": result.seconds})
        tell({"image": {**asdict(result), "png": base64.b64encode(result.png).decode()}})
    except BaseException as error:  # noqa: BLE001 - it goes to whoever asked
        tell({"error": [type(error).__name__, str(error)]})


def _unchecked(values: dict[str, Any]) -> ImageRequest:
    request = object.__new__(ImageRequest)
    for name, value in values.items():
        object.__setattr__(request, name, value)
    return request


async def main(path: Path) -> None:
    """Serve until told to end, or until the process that started this one is gone."""
    drawings = Drawings()
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(drawings.ended.set)), daemon=True
    ).start()
    server = await asyncio.start_unix_server(drawings.serve, path)
    print("ready", flush=True)  # noqa: T201 - the other process waits for it
    await drawings.ended.wait()
    for stop in drawings.stops.values():
        stop.set()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
