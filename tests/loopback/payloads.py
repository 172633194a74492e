"""Discord's JSON for the things of `world`: pure functions, no state.

Only what discord.py 2.7.1 reads, with the names and types of Discord's API version 10.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.loopback.world import ALL_PERMISSIONS, Channel, Interaction, Json, Message, Person, Server, Upload, World

OPTION_TYPES: tuple[tuple[type, int], ...] = ((bool, 5), (int, 4), (float, 10), (str, 3))


def user(person: Person) -> Json:
    return {
        "id": str(person.id),
        "username": person.name,
        "global_name": None,
        "discriminator": "0",
        "avatar": None,
        "bot": person.bot,
    }


def member(person: Person, *, permissions: int = ALL_PERMISSIONS) -> Json:
    return {
        "user": user(person),
        "nick": None,
        "roles": [],
        "joined_at": "2024-01-01T00:00:00+00:00",
        "deaf": False,
        "mute": False,
        "flags": 0,
        "permissions": str(permissions),
    }


def channel(channel: Channel, world: World) -> Json:
    if channel.recipient is not None:
        return {"id": str(channel.id), "type": 1, "recipients": [user(channel.recipient)], "last_message_id": None}
    if channel.parent is not None:
        return _thread(channel, channel.parent, world)
    denied = ALL_PERMISSIONS & ~channel.app_permissions
    return {
        "id": str(channel.id),
        "type": 0,
        "guild_id": str(world.guild_id),
        "name": channel.name,
        "position": 0,
        "nsfw": False,
        "permission_overwrites": [{"id": str(world.bot.id), "type": 1, "allow": "0", "deny": str(denied)}],
    }


def _thread(thread: Channel, parent: Channel, world: World) -> Json:
    return {
        "id": str(thread.id),
        "type": 11,
        "guild_id": str(world.guild_id),
        "parent_id": str(parent.id),
        "owner_id": "1",
        "name": thread.name,
        "message_count": 0,
        "member_count": 1,
        "thread_metadata": {
            "archived": thread.locked,
            "locked": thread.locked,
            "auto_archive_duration": 1440,
            "archive_timestamp": "2024-01-01T00:00:00+00:00",
        },
    }


def guild(world: World) -> Json:
    in_guild = [one for one in world.channels.values() if one.recipient is None and not one.gone]
    everyone = {
        "id": str(world.guild_id),
        "name": "@everyone",
        "permissions": str(ALL_PERMISSIONS & ~8),  # not administrator, which would lift every overwrite
        "position": 0,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": False,
    }
    return {
        "id": str(world.guild_id),
        "name": "The loopback guild",
        "owner_id": "1",
        "member_count": 2,
        "roles": [everyone],
        "members": [member(world.bot)],
        "channels": [channel(one, world) for one in in_guild if one.parent is None],
        "threads": [channel(one, world) for one in in_guild if one.parent is not None and not one.locked],
        "emojis": [],
        "stickers": [],
        "features": [],
        "premium_tier": 0,
        "preferred_locale": "en-US",
        "unavailable": False,
    }


def application(world: World) -> Json:
    return {
        "id": str(world.bot.id),
        "name": world.bot.name,
        "description": "",
        "icon": None,
        "bot_public": True,
        "bot_require_code_grant": world.requires_code_grant,
        "verify_key": "0" * 64,
        "owner": user(Person(id=1, name="owner")),
        "team": None,
        "flags": world.application_flags,
    }


def server(server: Server) -> Json:
    return {"id": str(server.id), "name": server.name, "owner": False, "permissions": str(server.permissions)}


def attachment(upload: Upload, message: Message, cdn: str) -> Json:
    url = f"{cdn}/attachments/{message.channel.id}/{upload.id}/{upload.filename}"
    return {
        "id": str(upload.id),
        "filename": upload.filename,
        "size": len(upload.content),
        "url": url,
        "proxy_url": url,
        "content_type": upload.content_type,
        "description": upload.description,
    }


def message(message: Message, world: World, cdn: str, *, nonce: bool = False) -> Json:
    """`nonce`: only the answer to the post itself carries it, a message that is read later does not."""
    attachments = [attachment(upload, message, cdn) for upload in message.uploads]
    files = {f"attachment://{item['filename']}": item for item in attachments}
    return {
        "id": str(message.id),
        "channel_id": str(message.channel.id),
        "author": user(world.bot),
        "content": message.content,
        "timestamp": message.created_at.isoformat(),
        "edited_timestamp": world.now().isoformat() if message.edits else None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [],
        "mention_roles": [],
        "pinned": False,
        "type": 0,
        "flags": message.body.get("flags", 0),
        **({"nonce": message.nonce} if nonce else {}),
        "embeds": _with_urls(message.body.get("embeds") or [], files),
        "components": _with_urls(message.body.get("components") or [], files),
        "attachments": attachments,
    }


def command_interaction(
    interaction: Interaction, name: str, options: dict[str, object], *, world: World, focused: str | None = None
) -> Json:
    """An INTERACTION_CREATE of a slash command, or of its autocompletion when an option is focused."""
    listed = [
        {"name": key, "type": option_type(value), "value": value} | ({"focused": True} if key == focused else {})
        for key, value in options.items()
    ]
    command = next((one for one in world.commands if one["name"] == name), {"id": "1"})
    data = {"id": command["id"], "name": name, "type": 1, "options": listed}
    return _interaction(interaction, 2 if focused is None else 4, data, world=world)


def component_interaction(interaction: Interaction, pressed: Message, custom_id: str, world: World, cdn: str) -> Json:
    """An INTERACTION_CREATE of a button under a message."""
    body = _interaction(interaction, 3, {"custom_id": custom_id, "component_type": 2}, world=world)
    return body | {"message": message(pressed, world, cdn)}


def modal_interaction(interaction: Interaction, custom_id: str, values: dict[str, str], world: World) -> Json:
    """An INTERACTION_CREATE of a dialog that was sent; a value is of a text field, or of a choice if it is a size."""
    fields = [
        {"type": 3, "custom_id": name, "values": [value]}
        if name == "size"
        else {"type": 4, "custom_id": name, "value": value}
        for name, value in values.items()
    ]
    labels = [{"type": 18, "id": number, "component": field} for number, field in enumerate(fields, start=1)]
    return _interaction(interaction, 5, {"custom_id": custom_id, "components": labels}, world=world)


def option_type(value: object) -> int:
    return next(number for kind, number in OPTION_TYPES if isinstance(value, kind))


def _interaction(interaction: Interaction, kind: int, data: Json, *, world: World) -> Json:
    where: Json
    if interaction.channel.recipient is None:
        where = {"guild_id": str(world.guild_id), "member": member(interaction.person), "context": 0}
    else:
        where = {"user": user(interaction.person), "context": 1}
    return where | {
        "id": str(interaction.id),
        "application_id": str(world.bot.id),
        "type": kind,
        "data": data,
        "token": interaction.token,
        "version": 1,
        "channel": channel(interaction.channel, world),
        "channel_id": str(interaction.channel.id),
        "app_permissions": str(interaction.channel.app_permissions),
        "locale": interaction.person.locale,
        "guild_locale": "en-US",
        "entitlements": [],
        "authorizing_integration_owners": {"0": str(world.guild_id)},
        "attachment_size_limit": world.upload_limit_bytes,
    }


def _with_urls(value: Any, files: dict[str, Json]) -> Any:
    """A copy in which `attachment://name` has become the file's address, as Discord answers."""
    if isinstance(value, list):
        return [_with_urls(item, files) for item in value]
    if not isinstance(value, dict):
        return copy.copy(value)
    resolved = {key: _with_urls(item, files) for key, item in value.items()}
    found = files.get(str(value.get("url")))
    return resolved if found is None else resolved | {"url": found["url"], "proxy_url": found["proxy_url"]}
