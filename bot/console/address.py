"""Where the web console may listen, and opening it there. Brings Gradio only when it is opened."""

from __future__ import annotations

import importlib.util
import ipaddress
from contextlib import AbstractAsyncContextManager

from bot.console.jobs import Console
from bot.errors import StartError
from bot.settings import Settings

PASSWORD_MIN = 8  # characters


def check_console(settings: Settings) -> None:
    """Raise StartError, before anything loads, if the console could not be opened, or by anybody."""
    if importlib.util.find_spec("gradio") is None:
        raise StartError("the console needs Gradio, which is not installed: pip install 'kiln-bot[console]'")
    password = settings.console_password.get_secret_value() if settings.console_password else ""
    if password and len(password) < PASSWORD_MIN:
        raise StartError(f"KILN_CONSOLE_PASSWORD needs {PASSWORD_MIN} characters or more; it has {len(password)}")
    host, port = settings.console_host, settings.console_port
    if not password and not is_loopback(host):
        raise StartError(
            f"KILN_CONSOLE_HOST is {host}, where others can reach the console: set KILN_CONSOLE_PASSWORD.\n"
            f"Or leave it at 127.0.0.1, and come from elsewhere with: ssh -L {port}:127.0.0.1:{port} you@this-machine"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; a name that is no address counts as reachable, but for localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_console(console: Console, settings: Settings) -> AbstractAsyncContextManager[str]:
    """Serve the page while it is open; its address. Raise StartError."""
    check_console(settings)
    from bot.console.page import open_page  # brings Gradio, which takes seconds

    return open_page(console, settings)
