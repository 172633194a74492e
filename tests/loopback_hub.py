"""A small ModelScope on 127.0.0.1 for its real client: lists of files, and files with ranges, by aiohttp.

    async with LoopbackHub() as hub:
        hub.repositories["owner/name"] = {"model.safetensors": path_or_bytes}
        hub.faults["model.safetensors"] = [Cut(1000), Status(500)]  # one for each answer, the first first
        ...run the client with MODELSCOPE_ENDPOINT=hub.address...
        hub.served["model.safetensors"]  # the ranges that went out, (first, past the last)

It answers what modelscope 1.40.2 asks to pull a model: `repo/files` with sizes and sha256, and `repo?FilePath=`, which
sends large files to another address as the real one does; answers from there carry the file's sum in X-Linked-ETag.
Any other route is 404 and listed in `unknown`. Knows nothing of Kiln.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

LARGE_BYTES = 1_000_000  # from here on a file lies at the other address
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends after so many bytes of this answer."""

    after: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more comes after so many bytes of this answer, until the asker is gone."""

    after: int


@dataclass(frozen=True, slots=True)
class Slow:
    """A pause before each piece."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """This HTTP status instead of the file."""

    code: int


@dataclass(frozen=True, slots=True)
class Flip:
    """One byte at this place of the file is another."""

    at: int


Fault = Cut | Hold | Slow | Status | Flip


@dataclass(slots=True)
class Served:
    """A range of a file that went out."""

    first: int
    past: int


@dataclass(slots=True)
class LoopbackHub:
    """One hub; it ends with the `async with`."""

    repositories: dict[str, dict[str, Path | bytes]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # by a file's path, or "files" for the lists
    unstated: set[str] = field(default_factory=set)  # paths whose sum the hub does not know
    listed_bytes: dict[str, int] = field(default_factory=dict)  # sizes that the lists say instead of the true ones
    asked: list[str] = field(default_factory=list)  # every request's path
    unknown: list[str] = field(default_factory=list)
    served: dict[str, list[Served]] = field(default_factory=lambda: defaultdict(list))
    held: asyncio.Event = field(default_factory=asyncio.Event)  # set while an answer is on hold
    _runner: web.AppRunner | None = None
    _port: int = 0

    @property
    def address(self) -> str:
        """For MODELSCOPE_ENDPOINT."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._record])
        app.router.add_get("/api/v1/models/{owner}/{name}/repo/files", self._files)
        app.router.add_get("/api/v1/models/{owner}/{name}/repo", self._file)
        app.router.add_get("/large/{owner}/{name}/{path:.+}", self._large)
        app.router.add_get("/api/v1/repos/internalAccelerationInfo", self._no_acceleration)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def times_served(self, path: str) -> int:
        """How often the byte that went out most often did."""
        edges = [(served.first, 1) for served in self.served[path]] + [
            (served.past, -1) for served in self.served[path]
        ]
        most = now = 0
        for _, step in sorted(edges):
            now += step
            most = max(most, now)
        return most

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            self.unknown.append(request.path_qs)
            raise
        return answer

    async def _no_acceleration(self, _: web.Request) -> web.Response:
        return web.json_response({"Code": 200, "Data": {}, "Success": True})

    async def _files(self, request: web.Request) -> web.Response:
        fault = self._next_fault("files")
        if isinstance(fault, Status):
            return _refusal(fault.code)
        files = self._repository(request)
        if files is None:
            return _refusal(404)
        root = request.query.get("Root", "")
        listed = [self._entry(path, content) for path, content in files.items() if not root or path.startswith(root)]
        folders = {path.rpartition("/")[0] for path in files} - {""}
        listed += [{"Path": path, "Name": path, "Type": "tree", "Size": 0, "Sha256": ""} for path in sorted(folders)]
        return web.json_response({"Code": 200, "Data": {"Files": listed}, "Success": True})

    def _entry(self, path: str, content: Path | bytes) -> dict[str, Any]:
        whole = _bytes(content)
        stated = "" if path in self.unstated else hashlib.sha256(whole).hexdigest()
        size = self.listed_bytes.get(path, len(whole))
        return {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": size, "Sha256": stated}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path, files = request.query["FilePath"], self._repository(request)
        if files is None or path not in files:
            return _refusal(404)
        content = _bytes(files[path])
        if len(content) >= LARGE_BYTES:
            owner, name = request.match_info["owner"], request.match_info["name"]
            raise web.HTTPFound(f"{self.address}/large/{owner}/{name}/{path}")
        return await self._send(request, path, content)

    async def _large(self, request: web.Request) -> web.StreamResponse:
        path, files = request.match_info["path"], self._repository(request)
        assert files is not None
        return await self._send(request, path, _bytes(files[path]))

    async def _send(self, request: web.Request, path: str, content: bytes) -> web.StreamResponse:
        fault = self._next_fault(path)
        if isinstance(fault, Status):
            return _refusal(fault.code)
        first = request.http_range.start or 0
        last = (request.http_range.stop or len(content)) - 1
        answer = web.StreamResponse(status=206 if "Range" in request.headers else 200)
        answer.content_length = last + 1 - first
        if path not in self.unstated:
            answer.headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if answer.status == 206:
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        if isinstance(fault, Flip):
            content = content[: fault.at] + bytes([content[fault.at] ^ 1]) + content[fault.at + 1 :]
        await answer.prepare(request)
        served = Served(first, first)
        self.served[path].append(served)
        await self._write(request, answer, content[first : last + 1], served, fault)
        return answer

    async def _write(
        self, request: web.Request, answer: web.StreamResponse, content: bytes, served: Served, fault: Fault | None
    ) -> None:
        """Send piece by piece, counting what goes out."""
        until = fault.after if isinstance(fault, Cut | Hold) else len(content)
        for start in range(0, min(until, len(content)), PIECE_BYTES):
            piece = content[start : min(start + PIECE_BYTES, until)]
            if isinstance(fault, Slow):
                await asyncio.sleep(fault.seconds)
            await answer.write(piece)
            served.past += len(piece)
        if isinstance(fault, Cut) and request.transport is not None:
            request.transport.close()  # what was written goes out before it closes
        if isinstance(fault, Hold):
            self.held.set()
            await asyncio.Event().wait()  # cancelled when the asker is gone

    def _repository(self, request: web.Request) -> dict[str, Path | bytes] | None:
        return self.repositories.get(f"{request.match_info['owner']}/{request.match_info['name']}")

    def _next_fault(self, path: str) -> Fault | None:
        faults = self.faults.get(path)
        return faults.pop(0) if faults else None


def _refusal(code: int) -> web.Response:
    return web.json_response({"Code": code, "Message": "scripted", "Success": False}, status=code)


def _bytes(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
