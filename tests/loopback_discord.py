"""A small Discord on 127.0.0.1 for the real discord.py transport: HTTP and gateway, both of aiohttp.

    async with LoopbackDiscord() as discord:
        ...start a bot with Route.BASE = discord.address (tests/end_to_end/launch_kiln.py does it)...
        person, channel = discord.world.add_person("Ana"), discord.world.add_channel("pictures")
        interaction = await discord.slash(person, channel, "imagine", prompt="a red house")
        await discord.world.until(lambda world: discord.pictures())

`discord.faults.plan(...)` scripts what goes wrong, `discord.gateway` drops and invalidates sessions, `discord.requests`
is everything the bot asked for. It models what Kiln's tests need; the rest answers 404 and is listed by
`unknown_routes()`. Knows nothing of Kiln: not its tables, not its words.
"""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.loopback import payloads
from tests.loopback.gateway import Gateway
from tests.loopback.record import UNKNOWN_ROUTE, Request
from tests.loopback.rest import Rest
from tests.loopback.world import COMPONENTS_V2, Channel, Interaction, Json, Message, Person, World

TOKEN = "bG9vcGJhY2s.loopback.bG9vcGJhY2stZGlzY29yZA"


class LoopbackDiscord:
    """One Discord with one guild and one bot; it ends with the `async with`."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.world = World()
        self.gateway = Gateway(self.world, token=self.token)
        self._rest = Rest(self.world, token=self.token)
        self.faults = self._rest.faults
        self.requests = self._rest.requests
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/gateway/", self.gateway.handle)
        app.router.add_get("/gateway", self.gateway.handle)
        self._rest.add_routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self._rest.address = f"http://127.0.0.1:{port}"
        self.gateway.address = self._rest.gateway_address
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.gateway.aclose()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        """What `discord.http.Route.BASE` shall be."""
        return self._rest.address

    async def slash(
        self, person: Person, channel: Channel, command: str, /, *, seconds: float = 10.0, **options: object
    ) -> Interaction:
        """Use a slash command and wait for its first answer; TimeoutError when none comes in `seconds`."""
        interaction = await self.send_slash(person, channel, command, **options)
        async with asyncio.timeout(seconds):
            await interaction.answered.wait()
        return interaction

    async def send_slash(self, person: Person, channel: Channel, command: str, /, **options: object) -> Interaction:
        """Use a slash command without waiting for the answer."""
        interaction = self._new_interaction(person, channel)
        body = payloads.command_interaction(interaction, command, options, world=self.world)
        await self.gateway.dispatch("INTERACTION_CREATE", body)
        return interaction

    async def press(self, person: Person, message: Message, custom_id: str) -> Interaction:
        """Press a button under a message and wait for the first answer."""
        interaction = self._new_interaction(person, message.channel)
        interaction.pressed = message
        body = payloads.component_interaction(interaction, message, custom_id, self.world, self.address)
        return await self._answered(interaction, body)

    async def submit(self, person: Person, channel: Channel, custom_id: str, **values: str) -> Interaction:
        """Send a dialog and wait for the first answer."""
        interaction = self._new_interaction(person, channel)
        return await self._answered(interaction, payloads.modal_interaction(interaction, custom_id, values, self.world))

    async def _answered(self, interaction: Interaction, body: Json) -> Interaction:
        await self.gateway.dispatch("INTERACTION_CREATE", body)
        async with asyncio.timeout(10):
            await interaction.answered.wait()
        return interaction

    async def autocomplete(
        self, person: Person, channel: Channel, command: str, /, **options: object
    ) -> list[tuple[str, object]]:
        """Type into the last of `options` and return the choices offered: (name, value)."""
        interaction = self._new_interaction(person, channel)
        focused = list(options)[-1]
        body = payloads.command_interaction(interaction, command, options, world=self.world, focused=focused)
        await self.gateway.dispatch("INTERACTION_CREATE", body)
        async with asyncio.timeout(10):
            await interaction.answered.wait()
        answer = interaction.answer or {}
        return [(choice["name"], choice["value"]) for choice in answer["data"]["choices"]]

    def pictures(self, channel: Channel | None = None) -> list[Message]:
        """Plain messages that carry a file, the oldest first; what a layout shows, such as a preview, is none."""
        plain = (m for m in self.world.messages.values() if not m.body.get("flags", 0) & COMPONENTS_V2)
        messages = (m for m in plain if m.uploads)
        return [m for m in messages if channel is None or m.channel is channel]

    def asked(self, route: tuple[str, str]) -> list[Request]:
        """The requests of one route, such as `faults.POST_MESSAGE`, in their order."""
        return [request for request in self.requests if (request.method, request.route) == route]

    def unknown_routes(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.requests if one.route == UNKNOWN_ROUTE]

    def refused_again(self) -> list[str]:
        """Requests that repeat a method and path which had answered 401 or 403 before: there should be none."""
        refused: set[tuple[str, str]] = set()
        again: list[str] = []
        for request in self.requests:
            key = (request.method, request.path)
            if key in refused:
                again.append(f"{request.method} {request.path}")
            if request.status in (401, 403):
                refused.add(key)
        return again

    def _new_interaction(self, person: Person, channel: Channel) -> Interaction:
        interaction = Interaction(
            id=self.world.snowflake(),
            token=secrets.token_urlsafe(32),
            person=person,
            channel=channel,
            created_at=self.world.now(),
        )
        self.world.interactions[interaction.id] = interaction
        return interaction
