"""Discord's gateway: hello, identify, ready, heartbeats, resume with missed events, invalid sessions.

One session a process of the bot; compression is zlib-stream, as discord.py asks for it. Knows no routes.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.loopback import payloads
from tests.loopback.world import Json, World

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, RESUME, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 0, 1, 2, 3, 6, 9, 10, 11
HEARTBEAT_INTERVAL_MS = 41_250
AUTHENTICATION_FAILED, SESSION_TIMED_OUT = 4004, 4009


class Connection:
    """One WebSocket of the bot, compressed if it asked for it."""

    def __init__(self, socket: web.WebSocketResponse, *, compress: bool) -> None:
        self._socket = socket
        self._zlib = zlib.compressobj() if compress else None

    async def send(self, op: int, data: Any, *, event: str | None = None, number: int | None = None) -> None:
        text = json.dumps({"op": op, "d": data, "t": event, "s": number})
        if self._zlib is None:
            await self._socket.send_str(text)
            return
        packed = self._zlib.compress(text.encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        await self._socket.send_bytes(packed)

    async def close(self, code: int) -> None:
        await self._socket.close(code=code)


@dataclass(slots=True, kw_only=True)
class Session:
    id: str
    events: list[tuple[str, Json]] = field(default_factory=list)  # all of them; an event's number is its place + 1
    connection: Connection | None = None  # None while the bot is away


class Gateway:
    """Sessions and their events; `address` is where a resume shall come back to."""

    def __init__(self, world: World, *, token: str) -> None:
        self._world, self._token = world, token
        self._sessions: dict[str, Session] = {}
        self._current: Session | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._door = asyncio.Event()
        self._door.set()
        self.address = ""
        self.identified = 0  # sessions begun
        self.resumed = 0  # sessions taken up again
        self.intents: int | None = None  # as asked for in the last identify
        self.presence: list[str] = []  # what the bot says it is doing, one after the other; "" for nothing

    async def until_connected(self, *, seconds: float = 30.0, identified: int = 1) -> None:
        """Wait until a session stands, the `identified`-th at least."""

        def stands(world: World) -> bool:
            connected = self._current is not None and self._current.connection is not None
            return connected and self.identified >= identified

        await self._world.until(stands, seconds=seconds)

    async def dispatch(self, event: str, data: Json) -> None:
        """Send an event to the session that stands; while the bot is away it waits for the resume."""
        if self._current is None:
            raise RuntimeError("no bot has identified yet")
        await self._dispatch(self._current, event, data)

    async def repeat_last(self) -> None:
        """Send the last event again, as a resume does when the bot's sequence number was lost."""
        assert self._current is not None
        await self._dispatch(self._current, *self._current.events[-1])

    async def drop(self, *, code: int = 4000) -> None:
        """Close the connection; the session stays and may resume. The door stays shut until `reopen`."""
        self._door.clear()
        session = self._current
        if session is not None and session.connection is not None:
            connection, session.connection = session.connection, None
            await connection.close(code)

    def reopen(self) -> None:
        self._door.set()

    async def invalidate(self) -> None:
        """Forget the session and tell the bot so: it must identify anew."""
        session = self._current
        if session is not None:
            self._sessions.pop(session.id, None)
            if session.connection is not None:
                await session.connection.send(INVALID_SESSION, False)

    async def aclose(self) -> None:
        self._door.set()
        for socket in list(self._sockets):
            await socket.close(code=1001)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one WebSocket from hello to its end."""
        await self._door.wait()
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self._sockets.add(socket)
        connection = Connection(socket, compress=request.query.get("compress") == "zlib-stream")
        await connection.send(HELLO, {"heartbeat_interval": HEARTBEAT_INTERVAL_MS})
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._received(connection, json.loads(message.data))
        except ConnectionResetError:
            pass  # the bot's process died while it was being written to
        finally:
            self._sockets.discard(socket)
            self._left(connection)
        return socket

    async def _received(self, connection: Connection, message: Json) -> None:
        match message["op"]:
            case 1:  # HEARTBEAT
                await connection.send(HEARTBEAT_ACK, None)
            case 2:  # IDENTIFY
                await self._identify(connection, message["d"])
            case 3:  # PRESENCE
                self.presence.append(" ".join(one.get("state") or "" for one in message["d"]["activities"]))
                await self._world.tell_change()
            case 6:  # RESUME
                await self._resume(connection, message["d"])

    async def _identify(self, connection: Connection, data: Json) -> None:
        if data["token"] != self._token:
            await connection.close(AUTHENTICATION_FAILED)
            return
        session = Session(id=f"session{len(self._sessions) + self.identified + 1}", connection=connection)
        self._sessions[session.id] = session
        self._current = session
        self.intents = data["intents"]
        activities = (data.get("presence") or {}).get("activities") or []
        self.presence.append(" ".join((one or {}).get("state") or "" for one in activities))
        await self._dispatch(session, "READY", self._ready(session))
        await self._dispatch(session, "GUILD_CREATE", payloads.guild(self._world))
        self.identified += 1
        await self._world.tell_change()

    def _ready(self, session: Session) -> Json:
        return {
            "v": 10,
            "user": payloads.user(self._world.bot),
            "guilds": [{"id": str(self._world.guild_id), "unavailable": True}],
            "session_id": session.id,
            "resume_gateway_url": self.address,
            "application": {"id": str(self._world.bot.id), "flags": 0},
        }

    async def _resume(self, connection: Connection, data: Json) -> None:
        session = self._sessions.get(data["session_id"])
        if session is None or data["token"] != self._token:
            await connection.send(INVALID_SESSION, False)
            return
        missed = session.events[data["seq"] :]
        for number, (event, body) in enumerate(missed, start=data["seq"] + 1):
            await connection.send(DISPATCH, body, event=event, number=number)
        session.connection = connection
        await self._dispatch(session, "RESUMED", {})
        self.resumed += 1
        await self._world.tell_change()

    async def _dispatch(self, session: Session, event: str, data: Json) -> None:
        session.events.append((event, data))
        if session.connection is not None:
            await session.connection.send(DISPATCH, data, event=event, number=len(session.events))

    def _left(self, connection: Connection) -> None:
        for session in self._sessions.values():
            if session.connection is connection:
                session.connection = None
