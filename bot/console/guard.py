"""Whose pages may ask the console: its own. Knows no Gradio and no job; an ASGI application around another.

A website that the owner looks at can send forms to any address of the owner's machine, or have its own name lead there.
Browsers tell who asks, in `Origin`, and under which name, in `Host`; other programs may ask as they like.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bot.console.address import is_loopback

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
_REFUSED = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}


class Guard:
    """Answers 403 to what comes from another website's page."""

    def __init__(self, app: Asgi, *, has_password: bool) -> None:
        """Without a password the page has the names of this machine alone."""
        self._app, self._has_password = app, has_password

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] == "http" and is_strange(headers, has_password=self._has_password):
            await send(_REFUSED)
            await send({"type": "http.response.body", "body": b"Another website's page asks."})
            return
        await self._app(scope, receive, send)


def is_strange(headers: Mapping[str, str], *, has_password: bool) -> bool:
    """Whether another website's page asks, or this one under a name that is not this machine's."""
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        if not has_password and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return True
        return origin is not None and urlsplit(origin).netloc not in (host, headers.get("x-forwarded-host"))
    except ValueError:  # no address at all
        return True
