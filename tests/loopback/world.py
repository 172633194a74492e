"""What exists on the loopback Discord: people, one guild, channels, messages, interactions, and the time there.

Verbs check what Discord checks (permissions, upload limit, nonce, age of a token) and raise ApiError with Discord's
own status and code. Knows no HTTP, no WebSocket and nothing of Kiln.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

Json = dict[str, Any]

DISCORD_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
TOKEN_AGE = timedelta(minutes=15)  # then an interaction's token is dead
NONCE_WINDOW = timedelta(minutes=5)  # "the past few minutes"
UPLOAD_LIMIT_BYTES = 10 * 1024 * 1024
VIEW_CHANNEL, SEND_MESSAGES, EMBED_LINKS, ATTACH_FILES = 1 << 10, 1 << 11, 1 << 14, 1 << 15
ALL_PERMISSIONS = (1 << 50) - 1
EPHEMERAL, LOADING, COMPONENTS_V2 = 1 << 6, 1 << 7, 1 << 15
CONTENT_CHARACTERS = 2000


class ApiError(Exception):
    """Discord refuses: an HTTP status and Discord's JSON error code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    id: int
    name: str
    bot: bool = False
    locale: str = "en-US"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A guild as the list of the bot's own shows it."""

    id: int
    name: str
    permissions: int = ALL_PERMISSIONS  # of the bot's role


@dataclass(slots=True, kw_only=True)
class Channel:
    id: int
    name: str
    recipient: Person | None = None  # of a direct message; None in the guild
    app_permissions: int = ALL_PERMISSIONS  # what the bot may do here
    gone: bool = False
    parent: Channel | None = None  # of a thread
    locked: bool = False  # a thread that is archived as well: nothing in it can be sent or edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    id: int
    filename: str
    content: bytes
    description: str | None
    content_type: str


@dataclass(slots=True, kw_only=True)
class Message:
    id: int
    channel: Channel
    body: Json  # as the bot sent it last: content, embeds, components, allowed_mentions, flags, …
    uploads: list[Upload]
    nonce: str | None
    created_at: datetime
    edits: int = 0

    @property
    def content(self) -> str:
        return str(self.body.get("content") or "")

    @property
    def text(self) -> str:
        """Everything a reader sees: content, and the texts of embeds and components."""
        return "\n".join(_texts(self.body))


@dataclass(slots=True, kw_only=True)
class Interaction:
    id: int
    token: str
    person: Person
    channel: Channel
    created_at: datetime
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Json | None = None  # the callback's payload
    message: Message | None = None  # the original response, which an update of the pressed message is too
    pressed: Message | None = None  # whose button it was


class World:
    """The state; every id is a snowflake of the simulated time, which runs with the real clock plus `advance`."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._numbers = itertools.count(1)
        self.bot = Person(id=self.snowflake(), name="Kiln", bot=True)
        self.guild_id = self.snowflake()
        self.servers = [Server(id=self.guild_id, name="The loopback guild")]
        self.application_flags = 0
        self.requires_code_grant = False
        self.channels: dict[int, Channel] = {}
        self.interactions: dict[int, Interaction] = {}
        self.messages: dict[int, Message] = {}
        self.upload_limit_bytes = UPLOAD_LIMIT_BYTES
        self.answer_within_seconds = 3.0
        self.commands: list[Json] = []
        self.changed = asyncio.Condition()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, by: timedelta) -> None:
        """Let time pass on this Discord: tokens age, nonces are forgotten."""
        self._offset += by

    def snowflake(self) -> int:
        milliseconds = (self.now() - DISCORD_EPOCH) // timedelta(milliseconds=1)
        return (milliseconds << 22) | (next(self._numbers) & 0x3FFFFF)

    def add_person(self, name: str, *, locale: str = "en-US") -> Person:
        return Person(id=self.snowflake(), name=name, locale=locale)

    def add_channel(self, name: str, *, app_permissions: int = ALL_PERMISSIONS) -> Channel:
        channel = Channel(id=self.snowflake(), name=name, app_permissions=app_permissions)
        self.channels[channel.id] = channel
        return channel

    def add_thread(self, name: str, parent: Channel) -> Channel:
        thread = Channel(id=self.snowflake(), name=name, app_permissions=parent.app_permissions, parent=parent)
        self.channels[thread.id] = thread
        return thread

    def direct_channel(self, recipient_id: int) -> Channel:
        """The one direct channel with a person, made when first asked for."""
        for channel in self.channels.values():
            if channel.recipient is not None and channel.recipient.id == recipient_id:
                return channel
        channel = Channel(id=self.snowflake(), name="", recipient=Person(id=recipient_id, name=f"user{recipient_id}"))
        self.channels[channel.id] = channel
        return channel

    def channel(self, channel_id: int) -> Channel:
        channel = self.channels.get(channel_id)
        if channel is None or channel.gone:
            raise ApiError(404, 10003, "Unknown Channel")
        if not channel.app_permissions & VIEW_CHANNEL:
            raise ApiError(403, 50001, "Missing Access")
        return channel

    def message(self, channel_id: int, message_id: int) -> Message:
        found = self.messages.get(message_id)
        if found is None or found.channel is not self.channel(channel_id):
            raise ApiError(404, 10008, "Unknown Message")
        return found

    def post(self, channel: Channel, body: Json, uploads: list[Upload]) -> Message:
        """Create a message, or return the first one of the same enforced nonce."""
        self._check_post(channel, uploads)
        nonce = None if body.get("nonce") is None else str(body["nonce"])
        if nonce is not None and len(nonce) > 25:
            raise ApiError(400, 50035, "Invalid Form Body: nonce has more than 25 characters")
        first = self._first_of(nonce) if body.get("enforce_nonce") else None
        if first is not None:
            return first
        return self.store(channel, body, uploads, nonce=nonce)

    def store(self, channel: Channel, body: Json, uploads: list[Upload], *, nonce: str | None = None) -> Message:
        check_content(body)
        message = Message(
            id=self.snowflake(), channel=channel, body=body, uploads=uploads, nonce=nonce, created_at=self.now()
        )
        self.messages[message.id] = message
        return message

    def edit(self, message: Message, body: Json, uploads: list[Upload]) -> Message:
        self._check_size(uploads)
        flags = int(message.body.get("flags", 0))
        if flags & COMPONENTS_V2 and (body.get("content") or body.get("embeds")):
            raise ApiError(400, 50035, "Invalid Form Body: content and embeds are off with components V2")
        kept = {int(item["id"]) for item in body.get("attachments", [])} if "attachments" in body else None
        old = [upload for upload in message.uploads if kept is None or upload.id in kept]
        message.uploads = old + uploads
        check_content(body)
        message.body = {**message.body, **{key: value for key, value in body.items() if key != "attachments"}}
        kept_flags = int(body.get("flags") or flags) | flags & EPHEMERAL
        message.body["flags"] = kept_flags & ~LOADING
        message.edits += 1
        return message

    def delete(self, message: Message) -> None:
        """A message of the bot's own may always go."""
        del self.messages[message.id]

    def interaction(self, token: str) -> Interaction:
        """The interaction of a token that is still alive."""
        for found in self.interactions.values():
            if found.token == token:
                if self.now() - found.created_at >= TOKEN_AGE:
                    raise ApiError(401, 50027, "Invalid Webhook Token")
                return found
        raise ApiError(404, 10015, "Unknown Webhook")

    def answer(self, interaction_id: int, token: str) -> Interaction:
        """The interaction whose first answer arrives now; late and second answers are refused."""
        found = self.interactions.get(interaction_id)
        late = timedelta(seconds=self.answer_within_seconds)
        if found is None or found.token != token or self.now() - found.created_at > late:
            raise ApiError(404, 10062, "Unknown interaction")
        if found.answer is not None:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        return found

    async def until(self, condition: Callable[[Self], bool], *, seconds: float = 20.0) -> None:
        """Wait for `condition`, looked at after each request; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: condition(self))

    async def tell_change(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _first_of(self, nonce: str | None) -> Message | None:
        if nonce is None:
            return None
        youngest = self.now() - NONCE_WINDOW
        same = (m for m in self.messages.values() if m.nonce == nonce and m.created_at > youngest)
        return next(same, None)

    def check_open(self, channel: Channel) -> None:
        """Refuse what would change an archived, locked thread."""
        if channel.locked:
            raise ApiError(400, 50083, "Thread is archived")

    def _check_post(self, channel: Channel, uploads: list[Upload]) -> None:
        self.check_open(channel)
        needed = SEND_MESSAGES | (ATTACH_FILES if uploads else 0)
        if channel.app_permissions & needed != needed:
            raise ApiError(403, 50007 if channel.recipient else 50013, "Missing Permissions")
        self._check_size(uploads)

    def _check_size(self, uploads: list[Upload]) -> None:
        if any(len(upload.content) > self.upload_limit_bytes for upload in uploads):
            raise ApiError(413, 40005, "Request entity too large")


def check_content(body: Json) -> None:
    """Refuse a text that is longer than Discord takes."""
    if len(str(body.get("content") or "")) > CONTENT_CHARACTERS:
        raise ApiError(400, 50035, f"Invalid Form Body: content has more than {CONTENT_CHARACTERS} characters")


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        keys = ("content", "title", "description", "name", "value", "label", "text")
        own = [str(value[key]) for key in keys if isinstance(value.get(key), str)]
        return own + [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []
