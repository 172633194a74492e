"""Discord's HTTP side: one handler a route, every request recorded, planned faults applied.

A route that is not here answers 404 and is recorded as unknown, so a test can say that none was used.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.loopback import payloads
from tests.loopback.faults import FaultScript
from tests.loopback.record import RESET, UNKNOWN_ROUTE, Request, read_request
from tests.loopback.world import EPHEMERAL, LOADING, ApiError, Interaction, Json, Message, Upload, World

Answer = object  # JSON; None answers 204
Handler = Callable[[Request], Awaitable[Answer]]

DEFERRED, MESSAGE, AUTOCOMPLETE, DEFERRED_UPDATE = 5, 4, 8, 6
PUBLIC_ROUTES = ("/interactions/", "/webhooks/", "/attachments/")  # their path is their key: no bot token


class Rest:
    """The application of the HTTP side; `address` is set once the server listens."""

    def __init__(self, world: World, *, token: str) -> None:
        self._world, self._token = world, token
        self.faults = FaultScript()
        self.requests: list[Request] = []
        self.address = ""  # http://127.0.0.1:port

    def add_routes(self, app: web.Application) -> None:
        message = "/channels/{channel_id}/messages/{message_id}"
        original = "/webhooks/{application_id}/{token}/messages/@original"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/users/@me", self._me),
            ("GET", "/users/@me/guilds", self._servers),
            ("GET", "/oauth2/applications/@me", self._application),
            ("GET", "/applications/@me", self._application),
            ("GET", "/gateway/bot", self._gateway_address),
            ("GET", "/applications/{application_id}/commands", self._list_commands),
            ("PUT", "/applications/{application_id}/commands", self._sync_commands),
            ("POST", "/interactions/{interaction_id}/{token}/callback", self._callback),
            ("POST", "/webhooks/{application_id}/{token}", self._follow_up),
            ("GET", original, self._get_original),
            ("PATCH", original, self._edit_original),
            ("DELETE", original, self._delete_original),
            ("GET", "/channels/{channel_id}", self._get_channel),
            ("GET", "/channels/{channel_id}/messages", self._list_messages),
            ("POST", "/channels/{channel_id}/messages", self._post_message),
            ("GET", message, self._get_message),
            ("PATCH", message, self._edit_message),
            ("DELETE", message, self._delete_message),
            ("POST", "/users/@me/channels", self._open_direct),
        ]
        for method, path, handler in table:
            app.router.add_route(method, path, self._http(handler))
        app.router.add_get("/attachments/{channel_id}/{upload_id}/{filename}", self._download)
        app.router.add_route("*", "/{anything:.*}", self._http(self._unknown))

    def _http(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(http: web.Request) -> web.StreamResponse:
            request = await read_request(http)
            self.requests.append(request)
            try:
                return await self._answer(http, request, handler)
            finally:
                await self._world.tell_change()

        return answer

    async def _answer(self, http: web.Request, request: Request, handler: Handler) -> web.StreamResponse:
        fault = self.faults.take(request)
        if fault is None:
            response = await self._effect(request, handler)
            request.status = response.status
            return response
        done = await self._effect(request, handler) if fault.after_effect else None
        await self._world.tell_change()
        await asyncio.sleep(fault.delay_seconds)
        if fault.reset:
            request.status = RESET
            return _reset(http)
        if done is not None and not fault.status:
            request.status = done.status
            return done
        request.status = fault.status
        return _json(fault.body(), status=fault.status, headers=fault.headers())

    async def _effect(self, request: Request, handler: Handler) -> web.Response:
        try:
            if not request.path.startswith(PUBLIC_ROUTES) and request.token != self._token:
                raise ApiError(401, 0, "401: Unauthorized")
            answer = await handler(request)
        except ApiError as refused:
            return _json({"message": refused.text, "code": refused.code}, status=refused.status)
        return web.Response(status=204) if answer is None else _json(answer, status=200)

    async def _unknown(self, request: Request) -> Answer:
        assert request.route == UNKNOWN_ROUTE
        raise ApiError(404, 0, f"404: Not Found (the loopback Discord has no {request.method} {request.path})")

    async def _me(self, request: Request) -> Answer:
        return payloads.user(self._world.bot)

    async def _application(self, request: Request) -> Answer:
        return payloads.application(self._world)

    async def _servers(self, request: Request) -> Answer:
        return [payloads.server(server) for server in self._world.servers]

    async def _gateway_address(self, request: Request) -> Answer:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        return {"url": self.gateway_address, "shards": 1, "session_start_limit": limit}

    @property
    def gateway_address(self) -> str:
        return self.address.replace("http", "ws", 1) + "/gateway"

    async def _list_commands(self, request: Request) -> Answer:
        return self._world.commands

    async def _sync_commands(self, request: Request) -> Answer:
        assert isinstance(request.body, list)
        extra = {
            "application_id": str(self._world.bot.id),
            "version": "1",
            "default_member_permissions": None,
            "description": "",
        }
        self._world.commands = [{**extra, **one, "id": str(self._world.snowflake())} for one in request.body]
        return self._world.commands

    async def _callback(self, request: Request) -> Answer:
        interaction = self._world.answer(request.number("interaction_id"), request.parameters["token"])
        data = request.payload.get("data") or {}
        uploads = self._uploads(request, data)
        kind = int(request.payload["type"])
        if kind == DEFERRED:
            data = {**data, "flags": int(data.get("flags", 0)) | LOADING}
        if kind in (MESSAGE, DEFERRED):
            interaction.message = self._world.store(interaction.channel, data, uploads)
        if kind == DEFERRED_UPDATE:
            interaction.message = interaction.pressed
        interaction.answer = request.payload
        interaction.answered.set()
        return self._callback_response(interaction, kind)

    def _callback_response(self, interaction: Interaction, kind: int) -> Json:
        about: Json = {"id": str(interaction.id), "type": 2}
        resource: Json = {"type": kind}
        message = interaction.message
        if message is not None:
            ephemeral = bool(message.body.get("flags", 0) & EPHEMERAL)
            about |= {"response_message_id": str(message.id), "response_message_ephemeral": ephemeral}
            about |= {"response_message_loading": kind == DEFERRED}
            resource["message"] = self._shown(message)
        return {"interaction": about, "resource": resource}

    async def _follow_up(self, request: Request) -> Answer:
        interaction = self._world.interaction(request.parameters["token"])
        uploads = self._uploads(request, request.payload)
        first = interaction.message
        if first is not None and first.body.get("flags", 0) & LOADING:  # it takes the place of "thinking…"
            seen_by = int(first.body["flags"]) & EPHEMERAL
            return self._shown(self._world.edit(first, {**request.payload, "flags": seen_by}, uploads))
        return self._shown(self._world.store(interaction.channel, request.payload, uploads))

    async def _get_original(self, request: Request) -> Answer:
        return self._shown(self._original(request))

    async def _edit_original(self, request: Request) -> Answer:
        uploads = self._uploads(request, request.payload)
        return self._shown(self._world.edit(self._original(request), request.payload, uploads))

    async def _delete_original(self, request: Request) -> Answer:
        message = self._original(request)
        del self._world.messages[message.id]
        self._world.interaction(request.parameters["token"]).message = None
        return None

    def _original(self, request: Request) -> Message:
        message = self._world.interaction(request.parameters["token"]).message
        if message is None:
            raise ApiError(404, 10008, "Unknown Message")
        return message

    async def _get_channel(self, request: Request) -> Answer:
        return payloads.channel(self._world.channel(request.number("channel_id")), self._world)

    async def _list_messages(self, request: Request) -> Answer:
        channel = self._world.channel(request.number("channel_id"))
        limit, after = int(request.query.get("limit", 50)), int(request.query.get("after", 0))
        found = [m for m in self._world.messages.values() if m.channel is channel and m.id > after]
        ordered = sorted(found, key=lambda message: message.id, reverse=True)
        return [self._shown(message) for message in (ordered[-limit:] if after else ordered[:limit])]

    async def _post_message(self, request: Request) -> Answer:
        channel = self._world.channel(request.number("channel_id"))
        message = self._world.post(channel, request.payload, self._uploads(request, request.payload))
        return payloads.message(message, self._world, self.address, nonce=True)

    async def _get_message(self, request: Request) -> Answer:
        return self._shown(self._message(request))

    async def _edit_message(self, request: Request) -> Answer:
        uploads, message = self._uploads(request, request.payload), self._message(request)
        self._world.check_open(message.channel)
        return self._shown(self._world.edit(message, request.payload, uploads))

    async def _delete_message(self, request: Request) -> Answer:
        self._world.delete(self._message(request))
        return None

    def _message(self, request: Request) -> Message:
        return self._world.message(request.number("channel_id"), request.number("message_id"))

    async def _open_direct(self, request: Request) -> Answer:
        return payloads.channel(self._world.direct_channel(int(request.payload["recipient_id"])), self._world)

    async def _download(self, http: web.Request) -> web.Response:
        wanted = int(http.match_info["upload_id"])
        for message in self._world.messages.values():
            for upload in message.uploads:
                if upload.id == wanted:
                    return web.Response(body=upload.content, content_type=upload.content_type)
        return web.Response(status=404)

    def _uploads(self, request: Request, data: Json) -> list[Upload]:
        described = {str(item["id"]): item.get("description") for item in data.get("attachments", [])}
        return [
            Upload(
                id=self._world.snowflake(),
                filename=sent.filename,
                content=sent.content,
                description=described.get(str(number)),
                content_type="image/png" if sent.filename.endswith(".png") else "application/octet-stream",
            )
            for number, sent in sorted(request.files.items())
        ]

    def _shown(self, message: Message) -> Json:
        return payloads.message(message, self._world, self.address)


def _json(body: object, *, status: int, headers: dict[str, str] | None = None) -> web.Response:
    # discord.py parses a body only when its type is exactly this, without a charset.
    response = web.Response(status=status, body=json.dumps(body).encode(), headers=headers)
    response.headers["Content-Type"] = "application/json"
    return response


def _reset(http: web.Request) -> web.Response:
    transport = http.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with RST, not FIN
        transport.abort()
    return web.Response(status=500)
