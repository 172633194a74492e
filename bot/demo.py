"""`kiln demo`: the real bot on a local page that looks like Discord. No token, no GPU.

Kiln runs here as it does on Discord, with its queue, SQLite file, dispatcher, GPU thread and the small model; only
Discord is played, by simcord. All the glue to simcord is in this file. What it uses of simcord's private side is
marked `private:` with the reason, and holds because the version is checked at start. Knows no torch: the caller
brings `load`.
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
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.app import open_kiln
from bot.client import KilnBot
from bot.delivery import Delivery
from bot.demo_look import SCRIPT, STEP_SECONDS, STYLE, Paced, face
from bot.errors import StartError
from bot.settings import load_settings
from gen.executor import Generator

if TYPE_CHECKING:
    from simcord.actors import MemberActor
    from simcord.env import Env
    from simcord.preview import Preview

_log = logging.getLogger(__name__)

PINS = {"simcord": "3.2.1", "discord.py": "2.7.1"}  # the versions whose private side this file knows
PORT = 8765  # of the page, where it is free
EDIT_EVERY = timedelta(seconds=1)  # a card's progress; nobody limits our rate here
REFRESH_SECONDS = 0.5  # between looks for news; the page asks every 0.5 s as well
SETTLE_SECONDS = 10.0  # a command answers in well under one; its job does not count, see `_outside_commands`
GREETING = "Type /imagine a red house at night and press Enter"
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
        _outside_commands(bot.kiln.dispatcher, "wake", outside=outside)
        _outside_commands(bot.kiln.delivery, "connect", "card_shown", "cancelled", outside=outside)
        with _set_by_signals(stop):
            async with _page(bot, port=port) as url:
                sys.stdout.write(f"Kiln's demo: {url}  (Ctrl-C ends it; pictures in {folder / 'pictures'})\n")
                sys.stdout.write(f"It takes {STEP_SECONDS:g} s a step on purpose, so that its progress can be seen.\n")
                sys.stdout.flush()
                if open_browser and _has_screen():
                    await asyncio.to_thread(webbrowser.open, url)
                await stop.wait()


def _outside_commands(part: object, *methods: str, outside: contextvars.Context) -> None:
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
        guild = env.create_guild("Kiln's studio")
        channel = guild.create_text_channel("pictures", topic=GREETING)
        people = [guild.add_member(env.create_user(name, global_name=name, avatar=name)) for name in ("You", "Ada")]
        # private: until here simcord's clock stood at its own fixed date, so that ids are the same in each demo and a
        # kept `--data` folder finds its people and channel again. From here it is the real date, and runs.
        env.backend.clock = _RealClock()
        # private: simcord keeps a refused command in the composer, since an error came by. Discord clears it: the
        # person has the answer, and the log has the rest.
        env.errors_since = lambda cursor: ()  # type: ignore[method-assign]
        preview = env.preview(
            channel, viewers=people, layout="channel", port=port, timezone=_timezone(), assets=_avatars(env)
        )
        live = _LivePage(preview)
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(preview)
            except SetupError as error:
                raise StartError(f"The demo's page cannot open: {error}. Try --port 0, which takes any port.") from None
            refreshing = asyncio.create_task(live.keep_true(env))
            stack.callback(refreshing.cancel)
            await live.imagine(people[1], prompt=COMPANY_PROMPT, seed=COMPANY_SEED)
            yield preview.url


class _RealClock:
    """simcord's clock, but following real time: `<t:…:R>`, time.monotonic and deadlines in commands then agree."""

    def __init__(self) -> None:
        self._start = time.perf_counter()  # simcord puts time.monotonic on this very clock

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def now(self) -> datetime:
        return datetime.now(UTC)

    def advance(self, seconds: float) -> None:
        """Real time advances by itself."""


class _LivePage:
    """Keeps the page true without a manual refresh: one lock for its own actions and ours."""

    def __init__(self, preview: Preview) -> None:
        self._preview = preview
        self._lock = asyncio.Lock()  # simcord refuses a second operation instead of queueing it
        self._act = preview._action
        # private: the one function through which the browser acts; it must wait for our refresh instead of failing.
        preview._action = self._action_in_turn  # type: ignore[method-assign]
        server = preview._server
        self._file = server._static
        # private: the page's own files, served with our style and script appended; routes are made from this table.
        server._static = self._dressed_file  # type: ignore[method-assign]
        server._STATIC_FILES = {**server._STATIC_FILES, "/favicon.ico": "index.html"}  # type: ignore[misc]

    async def keep_true(self, env: Env) -> None:
        """Publish the page anew whenever the bot has called Discord; never ends by itself."""
        seen = 0
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            calls = len(env.http_requests)
            if calls == seen:
                continue
            try:
                async with self._lock:
                    await self._preview.refresh()
                seen = calls
            except Exception:  # noqa: BLE001 - the page lives on and tries again
                _log.warning("the demo's page could not be refreshed", exc_info=True)

    async def imagine(self, person: MemberActor, **options: Any) -> None:
        """Let `person` use /imagine, as the browser would."""
        async with self._lock:
            await person.slash(self._preview.channel, "imagine", **options)

    async def _action_in_turn(self, context_id: str | None, body: Any) -> dict[str, Any]:
        async with self._lock:
            # private: commands publish with the time of the last refresh; a card's "in 8 seconds" needs now.
            self._preview._advance_presentation_time()
            page = self._preview._pages.get(context_id or "")
            if page is not None and isinstance(body, dict) and "published_revision" in body:
                # private: an action is refused when the page was published since; ours is, all the time. What it
                # points at is looked up afresh in any case.
                body = {**body, "published_revision": page.revision}
            return await self._act(context_id, body)

    async def _dressed_file(self, request: Any) -> Any:
        response = await self._file(request)
        if request.path == "/preview.css":
            response.text += STYLE
        elif request.path == "/app.js":
            response.text += SCRIPT
        elif request.path == "/favicon.ico":
            response.body, response.content_type = face("Kiln"), "image/png"
        return response


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
