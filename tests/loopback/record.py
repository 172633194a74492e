"""What the bot asked for: every request with its time, body, files and outcome."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, web

from tests.loopback.world import Json

UNKNOWN_ROUTE = "(unknown route)"
RESET = 0  # the status of a request that ended in a TCP reset


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile:
    filename: str
    content: bytes
    content_type: str


@dataclass(slots=True, kw_only=True)
class Request:
    at: float  # the event loop's clock, seconds
    method: str
    route: str  # the path's template, or UNKNOWN_ROUTE
    path: str
    parameters: dict[str, str]
    query: dict[str, str]
    token: str | None  # of the Authorization header
    body: object  # JSON, or None
    files: dict[int, SentFile] = field(default_factory=dict)  # by the n of `files[n]`
    status: int | None = None  # None while it is being answered

    @property
    def payload(self) -> Json:
        """The body as an object."""
        return self.body if isinstance(self.body, dict) else {}

    def number_of(self, name: str) -> int | None:
        """The path parameter `name` as an integer, if there is one."""
        return int(self.parameters[name]) if name in self.parameters else None

    def number(self, name: str) -> int:
        """The path parameter `name` as an integer."""
        return int(self.parameters[name])


async def read_request(request: web.Request) -> Request:
    """Read a request whole: JSON, or Discord's multipart of `payload_json` and `files[n]`."""
    resource = request.match_info.route.resource
    known = resource is not None and not resource.canonical.startswith("/{")
    parts: dict[str, SentFile] = {}
    if request.content_type == "multipart/form-data":
        parts = await _read_parts(request)
        text = parts.pop("payload_json").content.decode()
    else:
        text = await request.text()
    header = request.headers.get("Authorization")
    return Request(
        at=asyncio.get_running_loop().time(),
        method=request.method,
        route=resource.canonical if known and resource is not None else UNKNOWN_ROUTE,
        path=request.path,
        parameters=dict(request.match_info),
        query=dict(request.query),
        token=header.removeprefix("Bot ") if header else None,
        body=json.loads(text) if text else None,
        files={int(name.removeprefix("files[").removesuffix("]")): part for name, part in parts.items()},
    )


async def _read_parts(request: web.Request) -> dict[str, SentFile]:
    parts: dict[str, SentFile] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        parts[str(part.name)] = SentFile(
            filename=part.filename or "",
            content=bytes(await part.read(decode=False)),
            content_type=part.headers.get("Content-Type", "application/octet-stream"),
        )
    return parts
