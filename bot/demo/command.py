"""`kiln demo`: the real bot on a local page that looks like Discord. No token, no GPU.

Kiln runs here as it does on Discord, with its queue, SQLite file, dispatcher, GPU thread and the small model; only
Discord is played, by simcord. All the glue to simcord is here, in `demo_page.py` and in `demo_stage.py`. What they use
of simcord's private side is marked `private:` with the reason, and holds because the version is checked at start.
Knows no torch: the caller brings `load`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib.metadata
import logging
import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.app import open_kiln
from bot.client import KilnBot
from bot.delivery.delivery import Delivery
from bot.demo.look import STEP_SECONDS, Paced, face
from bot.demo.page import LivePage, RealClock
from bot.demo.stage import set_stage
from bot.errors import StartError
from bot.settings import load_settings
from gen.executor import Generator

if TYPE_CHECKING:
    from simcord.env import Env

_log = logging.getLogger(__name__)

PINS = {"simcord": "3.2.1", "discord.py": "2.7.1"}  # the versions whose private side this file knows
PORT = 8765  # of the page, where it is free
EDIT_EVERY = timedelta(seconds=1)  # a card's progress; nobody limits our rate here
# A command answers in well under one; its job does not count, see `outside_commands`. But a disk or a machine may
# stall, and past this the page keeps a command that was taken.
SETTLE_SECONDS = 60.0
SHOWN_BY_COMMANDS = ("card_shown", "cancelled", "deleted", "holding_changed")  # each may begin to follow waiting cards
COMPANY_PROMPT, COMPANY_SEED = "a white lighthouse at sunset", 7  # what the second person asks for at the start


def run_demo(*, load: Callable[[], Generator], port: int | None, data: Path | None, open_browser: bool) -> int:
    """Show Kiln on a local page until Ctrl-C; return the exit code.

    Port 0 takes any free one; None takes PORT, or any free one while that is in use. Without `data` the queue and
    the pictures live in a temporary folder, and the next demo starts clean; with it they stay. Raises StartError if
    the demo cannot start.
    """
    check_versions()
    logging.getLogger("discord").setLevel(logging.ERROR)  # its warnings are about a probe of simcord's
    if port is None:
        port = usual_port()
    with contextlib.nullcontext(data) if data else tempfile.TemporaryDirectory(prefix="kiln-demo-") as folder:
        try:
            asyncio.run(_demo(Path(folder), load=load, port=port, open_browser=open_browser))
        except KeyboardInterrupt:  # before the demo's own handler was there, or a second one
            return 130
    return 0


def usual_port() -> int:
    """Return PORT, or 0 while another program has it; says so on stderr."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a demo that has just ended does not count
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            sys.stderr.write(f"kiln: port {PORT} is in use, the page takes another.\n")
            return 0
    return PORT


def check_versions() -> None:
    """Raise StartError unless exactly the pinned simcord and discord.py are installed."""
    for package, pinned in PINS.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise StartError(f"The demo needs {package}: pip install 'kiln-bot[demo]'") from None
        if found != pinned:
            raise StartError(f"The demo needs {package} {pinned}, found {found}: pip install '{package}=={pinned}'")


async def _demo(folder: Path, *, load: Callable[[], Generator], port: int, open_browser: bool) -> None:
    settings = load_settings(data=folder)
    outside = contextvars.copy_context()  # before simcord marks the context of commands
    stop = asyncio.Event()
    # simcord's Discord is new in each demo and knows no commands yet, so what was sent to an earlier one says nothing.
    delivery = functools.partial(Delivery, edit_every=EDIT_EVERY)
    async with open_kiln(settings, load=lambda: Paced(load()), make_delivery=delivery, remember_sync=False) as bot:
        outside_commands(bot.kiln.dispatcher, "wake", outside=outside)
        outside_commands(bot.kiln.delivery, "connect", *SHOWN_BY_COMMANDS, outside=outside)
        outside_commands(bot.kiln.keepers.log_channel, "wake", outside=outside)
        with _set_by_signals(stop):
            async with _page(bot, port=port) as url:
                sys.stdout.write(f"Kiln's demo: {url}  (Ctrl-C ends it; pictures in {folder / 'pictures'})\n")
                sys.stdout.write(f"It takes {STEP_SECONDS:g} s a step on purpose, so that its progress can be seen.\n")
                sys.stdout.flush()
                if open_browser and _has_screen():
                    await asyncio.to_thread(webbrowser.open, url)
                await stop.wait()


def outside_commands(part: object, *methods: str, outside: contextvars.Context) -> None:
    """Let what these methods start live outside the context of the command that called them.

    simcord waits for everything that a command started, by context, before the page may act again. A test wants
    that; here the card must be seen at once and the next command must not wait for a picture.
    """
    for name in methods:
        setattr(part, name, functools.partial(_call_outside, outside, getattr(part, name)))


def _call_outside(outside: contextvars.Context, call: Callable[..., Any], *args: Any, **given: Any) -> Any:
    return outside.copy().run(call, *args, **given)  # a copy: a context cannot be entered twice at once


@contextlib.contextmanager
def _set_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    kinds = () if sys.platform == "win32" else (signal.SIGINT, signal.SIGTERM)  # there Ctrl-C is KeyboardInterrupt
    for kind in kinds:
        loop.add_signal_handler(kind, stop.set)
    try:
        yield
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)


@contextlib.asynccontextmanager
async def _page(bot: KilnBot, *, port: int) -> AsyncIterator[str]:
    """Attach `bot` to simcord's Discord, serve its page and yield the page's URL."""
    import simcord  # the optional extra [demo]
    from simcord.backend.errors import SetupError

    async with simcord.run(bot, check_errors=False, settle_timeout=SETTLE_SECONDS) as env:
        env.backend.edit_bot_profile("Kiln").avatar = "Kiln"  # private: simcord calls each bot TestBot
        stage = set_stage(env)
        # private: until here simcord's clock stood at its own fixed date, so that ids are the same in each demo and a
        # kept `--data` folder finds its people and channel again. From here it is the real date, and runs.
        env.backend.clock = RealClock()
        # private: simcord keeps a refused command in the composer, since an error came by. Discord clears it: the
        # person has the answer, and the log has the rest.
        env.errors_since = lambda cursor: ()  # type: ignore[method-assign]
        preview = env.preview(
            stage.channels[0],
            viewers=stage.people,
            layout="channel",
            port=port,
            timezone=_timezone(),
            assets=_avatars(env),
        )
        live = LivePage(preview, stage)
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(preview)
            except SetupError as error:
                raise StartError(f"The demo's page cannot open: {error}. Try --port 0, which takes any port.") from None
            await live.imagine(stage.people[1], prompt=COMPANY_PROMPT, seed=COMPANY_SEED)
            yield preview.url


def _avatars(env: Env) -> dict[str, tuple[str, bytes]]:
    from simcord.backend.cdn import CDN_BASE

    users = [user for user in env.backend.users.values() if user.avatar]
    return {f"{CDN_BASE}/avatars/{user.id}/{user.avatar}.png": ("avatar.png", face(str(user.avatar))) for user in users}


def _has_screen() -> bool:
    """Without one, a text browser would take over the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _timezone() -> str:
    """The machine's time zone by name, as simcord wants it; UTC where it cannot be told."""
    zone = os.environ.get("TZ") or str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    return zone if zone and (Path("/usr/share/zoneinfo") / zone).is_file() else "UTC"
