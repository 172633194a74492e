"""/imagine: words and options in, one durable job and its card out.

The edge: here a seed is chosen, a trailing `seed:N` is understood, and the channel is checked. Limits are
`gen.request`'s; caps and rates are the queue's. Knows nothing of drawing.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands

from bot.answers import ALREADY_ANSWERED, CHOICES_MAX, in_time, is_deferred, say_to
from bot.cards import card
from bot.errors import QueueUnavailable, Refusal
from bot.job import Job, NewJob, Place
from bot.language import Message, Say, msg, say_to_owner
from bot.posting import UNREACHABLE
from gen.errors import InvalidRequest
from gen.request import (
    GUIDANCE_MAX,
    GUIDANCE_MIN,
    PROMPT_MAX_CHARACTERS,
    SEED_MAX,
    STEPS_MAX,
    STEPS_MIN,
    ImageRequest,
    ModelProfile,
    check_prompt,
    parse_size,
)

if TYPE_CHECKING:
    from bot.client import KilnBot

SIZE_MAX_CHARACTERS = 20

_TRAILING_SEED = re.compile(r"(?:^|\s)seed\s*[:：](?P<gap>\s*)(?P<value>\S+)\s*$", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_log = logging.getLogger(__name__)


class Imagine(commands.Cog):
    """The command that draws."""

    def __init__(self, bot: KilnBot) -> None:
        self._bot = bot

    @app_commands.command(description=msg("Draw a picture from your words"))
    @app_commands.describe(
        prompt=msg("What to draw. You may end it with seed:42"),
        seed=msg("The same seed and settings draw the same picture. Left out: chosen for you, and shown"),
        size=msg("Width x height in pixels, like 768x512"),
        steps=msg("Denoising steps: more is slower, and finer"),
        guidance=msg("How closely to follow your words"),
    )
    async def imagine(
        self,
        interaction: discord.Interaction[KilnBot],
        prompt: app_commands.Range[str, 1, PROMPT_MAX_CHARACTERS],
        seed: app_commands.Range[int, 0, SEED_MAX] | None = None,
        size: app_commands.Range[str, 1, SIZE_MAX_CHARACTERS] | None = None,
        steps: app_commands.Range[int, STEPS_MIN, STEPS_MAX] | None = None,
        guidance: app_commands.Range[float, GUIDANCE_MIN, GUIDANCE_MAX] | None = None,
    ) -> None:
        """Accept one picture: check, store, answer, wake; in this order."""
        check_channel(interaction)
        kiln = self._bot.kiln
        words, typed = split_seed(prompt)
        if typed is not None and seed is not None:
            raise InvalidRequest(
                msg(
                    "The seed is there twice: {typed} in the prompt and {seed} as the option. Please keep one of them."
                ),
                typed=typed,
                seed=seed,
            )
        chosen = seed if seed is not None else typed
        request = kiln.profile.request(
            words,
            seed=kiln.choose_seed() if chosen is None else chosen,
            size=size,
            steps=steps,
            guidance=guidance,
        )
        new = _new_job(interaction, request)
        job, place = await in_time(interaction, self._accept(new), alone=False)
        try:
            await self._show_card(interaction, job, place)
        finally:
            kiln.dispatcher.wake()

    @imagine.autocomplete("size")
    async def sizes(self, interaction: discord.Interaction[KilnBot], current: str) -> list[app_commands.Choice[str]]:
        """Offer this model's sizes, and what was typed when it is a size."""
        profile, say = self._bot.kiln.profile, say_to(interaction)
        sizes = profile.sizes()
        typed = current.strip().lower()
        found = [size for size in sizes if typed in size_label(say, size)] or list(sizes)
        own = _own_size(profile, typed)
        if own is not None:
            found = [own, *(size for size in found if size != own)]
        return [app_commands.Choice(name=size_label(say, size), value=size) for size in found[:CHOICES_MAX]]

    async def _accept(self, new: NewJob) -> tuple[Job, Place | None]:
        """Store the job, and look where it stands; once it is stored, nothing here fails."""
        queue = self._bot.kiln.queue
        job = await queue.submit(new)
        try:
            return job, await queue.place_of_new(job.id)
        except QueueUnavailable:
            return job, None  # the card does without

    async def _show_card(self, interaction: discord.Interaction[KilnBot], job: Job, place: Place | None) -> None:
        """Answer with the card and remember its message.

        The job is stored: whatever fails here must neither lose it nor tell the person that it was not accepted.
        """
        kiln = self._bot.kiln
        try:
            message_id = await self._answer(interaction, job, view=card(say_to_owner(job), job, place=place))
            if message_id is None:
                return
            try:
                await kiln.queue.record_card(job.id, message_id=message_id)
            finally:
                kiln.delivery.card_shown(job.id, message_id=message_id)
        except (*UNREACHABLE, QueueUnavailable) as error:
            _log.warning("job %d: its card is not shown or not recorded: %s", job.id, error)

    async def _answer(
        self, interaction: discord.Interaction[KilnBot], job: Job, *, view: discord.ui.LayoutView
    ) -> int | None:
        """Send the card as the answer, or by channel when Discord no longer takes an answer; return its message.

        A connection that breaks may have brought the answer or not: it is sent once more, and then Discord either
        takes it or says that it has it. What a crash between here and `record_card` leaves is not looked for: that
        card goes on saying "waiting", and the picture comes all the same.
        """
        try:
            try:
                return await _send(interaction, view)
            except (aiohttp.ClientError, OSError) as error:
                _log.info("job %d: its card is sent once more (%s)", job.id, error)
                return await _send(interaction, view)
        except discord.InteractionResponded:
            return None
        except discord.HTTPException as error:
            if error.code == ALREADY_ANSWERED:  # a repeat, ours or the library's, hit the first one's success
                return await _original(interaction, view)
            _log.warning("job %d: the interaction takes no answer (%s); its card goes by channel", job.id, error)
            channel = self._bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
            return (await channel.send(view=view)).id


async def _send(interaction: discord.Interaction[KilnBot], view: discord.ui.LayoutView) -> int | None:
    if is_deferred(interaction):
        return (await interaction.edit_original_response(view=view)).id
    return (await interaction.response.send_message(view=view)).message_id


async def _original(interaction: discord.Interaction[KilnBot], view: discord.ui.LayoutView) -> int:
    """The message of an answer that Discord has already; the card replaces a "thinking…" whose deferral broke off."""
    shown = await interaction.original_response()
    if shown.flags.loading:
        await interaction.edit_original_response(view=view)
    return shown.id


def check_channel(interaction: discord.Interaction[KilnBot]) -> None:
    """Raise Refusal, naming what is missing, unless the bot may post a picture in this channel later."""
    allowed = interaction.app_permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    needed = {
        msg("View Channel"): allowed.view_channel,
        msg("Send Messages in Threads"): allowed.send_messages_in_threads or not in_thread,
        msg("Send Messages"): allowed.send_messages or in_thread,
        msg("Attach Files"): allowed.attach_files,
    }
    missing = [Message(name) for name, given in needed.items() if not given]
    if missing and not allowed.administrator:
        raise Refusal(
            msg(
                "I may not post pictures here: in this channel I lack {permissions}. "
                "Please ask a moderator, or try another channel."
            ),
            permissions=tuple(missing),
        )


def split_seed(prompt: str) -> tuple[str, int | None]:
    """Take a trailing `seed:N` off a prompt; raise InvalidRequest, naming the limit, when N is no seed."""
    found = _TRAILING_SEED.search(prompt)
    if found is None:
        return prompt, None
    value = found["value"]
    if found["gap"] and not any(character.isdigit() for character in value):
        return prompt, None  # `a bird eating seed: millet`
    if not _WHOLE_NUMBER.fullmatch(value) or not 0 <= int(value) <= SEED_MAX:
        shown = value if len(value) <= 40 else value[:40] + "…"
        raise InvalidRequest(
            msg("The seed must be a whole number from 0 to {most:,}; it is {value!r}."), most=SEED_MAX, value=shown
        )
    words = prompt[: found.start()].rstrip()
    another = _TRAILING_SEED.search(words)
    if another is not None and _WHOLE_NUMBER.fullmatch(another["value"]):
        text = msg("The prompt ends with two seeds, {first} and {second}. Please keep one.")
        raise InvalidRequest(text, first=another["value"][:40], second=value)
    check_prompt(words)
    return words, int(value)


def _new_job(interaction: discord.Interaction[KilnBot], request: ImageRequest) -> NewJob:
    assert interaction.guild_id is not None
    assert interaction.channel_id is not None
    person, channel = interaction.user, interaction.channel
    return NewJob(
        interaction_id=interaction.id,
        user_id=person.id,
        guild_id=interaction.guild_id,
        channel_id=interaction.channel_id,
        parent_channel_id=channel.parent_id if isinstance(channel, discord.Thread) else None,
        age_restricted=is_age_restricted(channel),
        role_ids=tuple(role.id for role in person.roles) if isinstance(person, discord.Member) else (),
        request=request,
    )


def is_age_restricted(channel: object) -> bool:
    """Whether Discord shows a channel to adults only; a thread is what its parent is. Not known: no."""
    return isinstance(channel, _WITH_AGES) and channel.is_nsfw()


_WITH_AGES = (discord.TextChannel, discord.VoiceChannel, discord.StageChannel, discord.ForumChannel, discord.Thread)


def _own_size(profile: ModelProfile, typed: str) -> str | None:
    """What was typed, if it is a size that this model draws."""
    try:
        return profile.request("a size", seed=0, size=typed).size
    except InvalidRequest:
        return None


def size_label(say: Say, size: str) -> str:
    """Name a size for the list: `768x512 · wide`."""
    width, height = parse_size(size)
    if width == height:
        return f"{size} · " + say("square")
    return f"{size} · " + (say("wide") if width > height else say("tall"))
