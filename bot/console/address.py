"""Where the web console may listen, and opening it there. Brings Gradio only when it is opened."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from bot.console.jobs import Console
from bot.errors import StartError
from bot.host.ports import why_not
from bot.settings import Settings

PASSWORD_MIN = 8  # characters
NO_PROXY = "no_proxy"  # of the environment: addresses, or * for all, that no proxy is used for


def check_console(settings: Settings) -> None:
    """Raise StartError, before anything loads, if the console could not be opened, or by anybody."""
    if importlib.util.find_spec("gradio") is None:
        raise StartError("the console needs Gradio, which is not installed: pip install 'kiln-bot[console]'")
    password = settings.console_password.get_secret_value() if settings.console_password else ""
    if password and len(password) < PASSWORD_MIN:
        raise StartError(f"KILN_CONSOLE_PASSWORD needs {PASSWORD_MIN} characters or more; it has {len(password)}")
    if password.isspace():
        raise StartError("KILN_CONSOLE_PASSWORD is nothing but spaces")
    host, port = settings.console_host, settings.console_port
    if not password and not is_loopback(host):
        raise StartError(
            f"KILN_CONSOLE_HOST is {host}, where others can reach the console: set KILN_CONSOLE_PASSWORD.\n"
            f"Or leave it at 127.0.0.1, and come from elsewhere with: ssh -L {port}:127.0.0.1:{port} you@this-machine"
        )


def check_port(settings: Settings) -> None:
    """Raise StartError if nobody could listen there now."""
    host, port = settings.console_host, settings.console_port
    if why := why_not(host, port):
        raise StartError(
            f"the console cannot listen on {host}:{port}: {why}. Choose another KILN_CONSOLE_PORT or KILN_CONSOLE_HOST."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; a name that is no address counts as reachable, but for localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def open_console(console: Console, settings: Settings) -> AsyncIterator[str]:
    """Serve the page while it is open; its address. Raise StartError."""
    check_console(settings)
    async with AsyncExitStack() as opened:
        with _without_proxy():
            from bot.console.page import open_page  # brings Gradio, which takes seconds

            address = await opened.enter_async_context(open_page(console, settings))
        yield address


@contextmanager
def _without_proxy() -> Iterator[None]:
    """As long as Gradio asks its own address whether the page is there: a proxy would say no."""
    before = os.environ.get(NO_PROXY)
    os.environ[NO_PROXY] = "*"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_PROXY]
        else:
            os.environ[NO_PROXY] = before
