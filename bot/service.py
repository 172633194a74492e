"""What a Kiln that serves people for a year has beside the bot: watchdog, the owner's wishes, copies, old pictures.

`kiln run` opens it around the connection to Discord; the demo and most tests do without. Knows the client as far as
its presence. The pages about health are `bot.host.web`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import discord

from bot.background import Tasks
from bot.client import KilnBot
from bot.host.card_reader import Reading
from bot.host.caretaker import Caretaker, Senses
from bot.host.keeper import Keeper
from bot.host.notify import notify, watch
from bot.host.web import Watched
from bot.language import Message
from bot.settings import Settings


@asynccontextmanager
async def open_service(
    settings: Settings,
    bot: KilnBot,
    watched: Watched,
    *,
    on_hung: Callable[[], None],
    read: Callable[[], Reading | None] | None = None,
) -> AsyncIterator[Caretaker]:
    """Begin to look after the open parts of `bot`; `read` asks the card, by default NVML."""
    kiln, tasks = bot.kiln, Tasks()
    caretaker = Caretaker(
        manners=settings.manners,
        senses=Senses(read=read or kiln.card.read, is_asked=kiln.pause.is_asked),
        executor=kiln.executor,
        queue=kiln.queue,
        tell=_Presence(bot, tasks).tell,
    )
    keeper = Keeper(database=kiln.database, path=settings.database, keeping=settings.keeping, now=kiln.now)
    _show(watched, bot, caretaker)
    tasks.spawn(caretaker.run(), name="caretaker")
    tasks.spawn(keeper.run(), name="keeper")
    tasks.spawn(watch(watched.pulse, on_hung=on_hung), name="watchdog")
    try:
        notify("READY=1", f"STATUS=drawing with {kiln.profile.name}")
        yield caretaker
    finally:
        await tasks.aclose()


def _show(watched: Watched, bot: KilnBot, caretaker: Caretaker) -> None:
    """Give the pages about health what they look at."""
    kiln = bot.kiln
    watched.metrics.built(model=kiln.profile.name)
    watched.database, watched.now = kiln.database, kiln.now
    watched.is_loaded = lambda: kiln.executor.is_loaded
    watched.is_connected = lambda: bot.is_connected
    watched.is_resting = lambda: caretaker.is_resting
    watched.card = lambda: caretaker.reading
    watched.why_paused = lambda: caretaker.why


class _Presence:
    """What the bot is seen to do. Told to Discord when it changes, and made good when the connection comes back."""

    def __init__(self, bot: KilnBot, tasks: Tasks) -> None:
        self._bot, self._tasks = bot, tasks
        self._text = ""
        self._shown: str | None = ""  # None: a new connection may show anything
        for event in ("on_ready", "on_resumed"):
            bot.add_listener(self._show_again, event)

    def tell(self, words: Message | None) -> None:
        """Nothing is drawn for now, or drawing goes on: on cards, in the presence, and to systemd."""
        self._text = "" if words is None else str(words)
        self._bot.activity = self._activity()  # for the next connection
        self._tasks.spawn(self._show(), name="presence")
        notify(f"STATUS={words or 'drawing'}")
        self._bot.kiln.delivery.holding_changed()
        if words is None:
            self._bot.kiln.dispatcher.wake()

    async def _show_again(self) -> None:
        self._shown = None
        await self._show()

    async def _show(self) -> None:
        if self._text != self._shown and self._bot.is_connected:
            text = self._text
            await self._bot.change_presence(activity=self._activity())
            self._shown = text

    def _activity(self) -> discord.CustomActivity | None:
        return discord.CustomActivity(self._text) if self._text else None
