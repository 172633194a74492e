"""The composition root: opens every part of Kiln in order, hands out the bot, and closes them in reverse.

database and its lock, the model on the GPU thread, recovery, delivery, dispatcher, client; nothing talks to Discord
before the model is loaded. Brings no model code: the caller passes `load`. Used by `kiln run`, the demo and the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import discord

from bot.asking.lora_list import LoraList
from bot.asking.people import open_people
from bot.asking.server_styles import open_styles
from bot.client import Kiln, KilnBot, create_bot
from bot.console.address import open_console
from bot.console.jobs import ByOrigin, Console
from bot.delivery.delivery import Delivery
from bot.delivery.looking import PictureClassifier
from bot.errors import StartError
from bot.host.card_reader import CardReader
from bot.host.caretaker import Pause
from bot.host.counted_queue import CountedQueue
from bot.host.courteous import CourteousExecutor
from bot.host.notify import notify
from bot.host.web import Watched, open_web
from bot.panel.keepers import open_keepers
from bot.queue import estimates
from bot.queue.dispatcher import Dispatcher
from bot.queue.job_queue import JobQueue
from bot.queue.past import Past
from bot.queue.reposts import Reposts
from bot.service import open_service
from bot.settings import Settings
from bot.storage.database import Database, open_database
from gen.executor import Generator, GpuExecutor
from gen.request import SEED_MAX

STOP_SECONDS = 4.5  # from the first signal to the end of the process, whatever still hangs
CLOSE_SECONDS = 1.0  # for Discord's connection to close

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_kiln(
    settings: Settings,
    *,
    load: Callable[[], Generator],
    choose_seed: Callable[[], int] = lambda: secrets.randbelow(SEED_MAX + 1),
    make_delivery: Callable[..., Delivery] = Delivery,
    remember_sync: bool = True,
    watched: Watched | None = None,
) -> AsyncIterator[KilnBot]:
    """Open Kiln and yield its client, not yet connected. Raise StartError, or what `load` raises.

    Without `remember_sync` the commands are sent at every start; `watched`, which the pages look at, has Kiln's clock.
    """
    settings.make_data_folder()
    watched = watched or Watched()
    async with (
        open_database(settings.database, now=watched.now) as database,
        GpuExecutor(load, pulse=watched.pulse) as gpu,
    ):
        queue = _make_queue(settings, database, watched, prior=estimates.prior_rate(gpu.profile))
        executor = CourteousExecutor(gpu)
        keepers = open_keepers(database, queue, settings=settings)
        delivery = make_delivery(queue=queue, data=settings.data)
        console = Console(queue=queue, profile=gpu.profile, settings=settings, choose_seed=choose_seed)
        outcomes = ByOrigin(console=console, discord=delivery)
        await _recover(queue, outcomes, console=console)
        drawing = Dispatcher(queue=queue, executor=executor, outcomes=outcomes, pictures=settings.data)
        async with (
            contextlib.aclosing(keepers.log_channel),
            contextlib.aclosing(delivery),
            contextlib.aclosing(console),
            drawing as dispatcher,
        ):
            delivery.on_requeue(dispatcher.wake)
            delivery.look_with(keepers.looking)
            console.connect(dispatcher, refused=watched.metrics.refused)
            rest = await _beside_the_queue(settings, database, watched)
            rest |= {"profile": gpu.profile, "choose_seed": choose_seed, "executor": executor, "keepers": keepers}
            kiln = Kiln(queue=queue, dispatcher=dispatcher, delivery=delivery, console=console, **rest)
            yield create_bot(kiln, synced=settings.data / "commands.sha256" if remember_sync else None)


async def _beside_the_queue(settings: Settings, database: Database, watched: Watched) -> dict[str, Any]:
    """What commands work with beside the queue, by its name in Kiln."""
    return {
        "people": await open_people(database),
        "styles": await open_styles(database, now=watched.now),
        "past": Past(database, now=watched.now),
        "reposts": Reposts(database),
        "card": CardReader(settings.device),
        "data": settings.data,
        "loras": LoraList(settings.lora_folder),
        "started_at": watched.now(),
        "now": watched.now,
        "database": database,
        "metrics": watched.metrics,
        "pause": Pause(settings.data),
    }


def _make_queue(settings: Settings, database: Database, watched: Watched, *, prior: float) -> CountedQueue:
    return CountedQueue(
        database,
        metrics=watched.metrics,
        limits=settings.limits,
        now=watched.now,
        prior=prior,
        server_share=settings.server_share,
    )


async def _recover(queue: JobQueue, outcomes: ByOrigin, *, console: Console) -> None:
    """Sort out what the last process left running; people hear of it once Discord is there."""
    recovery = await queue.recover()
    for job in recovery.requeued:
        outcomes.requeued(job)
    for job in recovery.quarantined:
        outcomes.failed(job)
    await console.settle()


async def run_until_stopped(
    settings: Settings,
    *,
    load: Callable[[], Generator],
    token: str,
    classifier: PictureClassifier | None = None,
    on_hung: Callable[[], None] = lambda: None,
) -> None:
    """Serve Discord until SIGTERM or SIGINT. Raise StartError, LoginFailure, or what `load` raises.

    On a signal nothing new is claimed, the running job goes back uncounted, and the process ends in five seconds.
    `on_hung` is called when the GPU thread hangs.
    """
    stop, watched = asyncio.Event(), Watched()
    settings.make_data_folder()
    with _signals(stop, Pause(settings.data)):
        async with (
            _unless(stop),
            open_web(settings.web, watched),
            open_kiln(settings, load=load, watched=watched) as bot,
            open_service(settings, bot, watched, on_hung=on_hung),
            _console_if_wanted(bot, settings),
        ):
            bot.kiln.keepers.looking.use(classifier)
            _log.info("the model is %s; connecting to Discord", bot.kiln.profile.name)
            await _serve(bot, token=token)


async def run_console_until_stopped(
    settings: Settings,
    *,
    load: Callable[[], Generator],
    tell: Callable[[str], None],
    on_hung: Callable[[], None] = lambda: None,
) -> None:
    """Serve the web console without Discord, until SIGTERM or SIGINT; `tell` its address. `on_hung`, errors as above.

    Jobs from Discord that wait in the same database are drawn too, and posted by the next `kiln run`.
    """
    stop, watched = asyncio.Event(), Watched(wants_gateway=False)
    settings.make_data_folder()
    with _signals(stop, Pause(settings.data)):
        async with (
            _unless(stop),
            open_web(settings.web, watched),
            open_kiln(settings, load=load, watched=watched) as bot,
            open_service(settings, bot, watched, on_hung=on_hung),
        ):
            bot.kiln.dispatcher.wake()
            async with open_console(bot.kiln.console, settings) as address:
                tell(address)
                await stop.wait()


@asynccontextmanager
async def _console_if_wanted(bot: KilnBot, settings: Settings) -> AsyncIterator[None]:
    if not settings.console:
        yield
        return
    async with open_console(bot.kiln.console, settings) as address:
        _log.info("the console is at %s", address)
        yield


async def _serve(bot: KilnBot, *, token: str) -> None:
    """Stay connected until cancelled; then let go of the queue first, while cards can still be edited."""
    try:
        await _connect(bot, token=token)
    except Exception:
        _end_process_soon(1)
        raise
    finally:
        await bot.kiln.dispatcher.aclose()
        await bot.kiln.delivery.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await bot.close()


async def _connect(bot: KilnBot, *, token: str) -> None:
    """Log in and stay connected; StartError when Discord cannot be reached, LoginFailure for a wrong token."""
    try:
        await bot.start(token)
    except discord.LoginFailure:
        raise
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        _log.debug("the start failed", exc_info=True)
        raise StartError(f"Discord cannot be reached or refuses the bot: {error}") from error


@asynccontextmanager
async def _unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Cancel the body when `stop` is set; that cancellation ends here, any other passes through."""
    body = asyncio.current_task()
    assert body is not None

    async def watch() -> None:
        await stop.wait()
        body.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not stop.is_set() or body.uncancel() > 0:
            raise
    finally:
        watcher.cancel()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, pause: Pause) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT, and make sure that the process really ends; SIGUSR1 pauses, SIGUSR2 goes on."""
    loop = asyncio.get_running_loop()

    def begin_to_stop() -> None:
        if not stop.is_set():
            _log.info("stopping: the running job goes back to the queue")
            notify("STOPPING=1")
            _end_process_soon(0)
        stop.set()

    actions = {
        signal.SIGTERM: begin_to_stop,
        signal.SIGINT: begin_to_stop,
        signal.SIGUSR1: pause.begin,  # also while the model loads: unhandled, it would end the process
        signal.SIGUSR2: pause.end,
    }
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        for number in actions:
            loop.remove_signal_handler(number)


def _end_process_soon(code: int) -> None:
    """Cut off whatever hangs at the end, such as a GPU thread that is stuck in its driver: every row is committed."""
    deadline = threading.Timer(STOP_SECONDS, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
