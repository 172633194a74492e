"""Whose pages may ask the console, and how much they may send. Knows no Gradio and no job; an ASGI application
around another.

A website that the owner looks at can send forms to any address of the owner's machine, or have its own name lead there.
Browsers tell who asks, in `Origin`, and under which name, in `Host`; other programs may ask as they like. Gradio reads
a request's body into memory before it looks who sends it, so whoever is not logged in is turned away before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bot.console.address import is_loopback

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
BODY_MAX = 2**20  # bytes; a form with the longest prompt has some thousands
LOGIN_BODY_MAX = 4096  # of somebody who is not logged in: a name and a password
_LOGIN = "/login"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class _TooLarge(Exception):
    """The body goes on beyond its limit."""


class Guard:
    """Answers 403 to another website's page, 401 to a stranger who sends more than a login, 413 to a large body."""

    def __init__(self, app: Asgi, *, has_password: bool, is_logged_in: Callable[[Any], bool]) -> None:
        """Without a password the page has the names of this machine alone; `is_logged_in` judges a request's scope."""
        self._app, self._has_password, self._is_logged_in = app, has_password, is_logged_in

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if is_strange(headers, has_password=self._has_password):
            await _refuse(send, 403, "Another website's page asks.")
            return
        stranger = self._has_password and not self._is_logged_in(scope)
        if stranger and scope["method"] not in _READING and scope["path"].rstrip("/") != _LOGIN:
            await _refuse(send, 401, "Not logged in.")
            return
        await self._bounded(scope, receive, send, most=LOGIN_BODY_MAX if stranger else BODY_MAX)

    async def _bounded(self, scope: Any, receive: Any, send: Any, *, most: int) -> None:
        """Let the application answer, and read no more than so many bytes for it, whatever was announced."""
        read, begun = 0, False

        async def counted() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise _TooLarge
            return message

        async def noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        announced = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        try:
            if announced.isdigit() and (len(announced) > 18 or int(announced) > most):
                raise _TooLarge
            await self._app(scope, counted, noted)
        except _TooLarge:
            if not begun:
                await _refuse(send, 413, f"A request may have {most:,} bytes at most.")


async def _refuse(send: Any, status: int, words: str) -> None:
    """One line, and no more on this connection: what is still to come is not read."""
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def is_strange(headers: Mapping[str, str], *, has_password: bool) -> bool:
    """Whether another website's page asks, or this one under a name that is not this machine's."""
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        if not has_password and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return True
        return origin is not None and urlsplit(origin).netloc not in (host, headers.get("x-forwarded-host"))
    except ValueError:  # no address at all
        return True
