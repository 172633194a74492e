"""Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`; on this machine alone unless the operator says else.

It answers from the start, while the model still loads. Nothing on it names a person or a prompt. Knows the Discord
client only as a question, "are you connected?".
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.orm import Session

from bot.errors import QueueUnavailable, StartError
from bot.host.card_reader import Reading
from bot.host.metrics import Metrics
from bot.host.ports import OFF, host_and_port
from bot.storage.database import Database
from gen.pulse import Pulse

ANSWER_SECONDS = 3.0  # for the database; a probe waits ten at most
LAG_EVERY = 1.0  # seconds between two looks at the event loop's lateness
STOP_SECONDS = 0.5  # for requests under way

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Watched:
    """The parts that are looked at; those that are not there yet are None."""

    pulse: Pulse = field(default_factory=Pulse)
    metrics: Metrics = field(default_factory=Metrics)
    database: Database | None = None
    is_loaded: Callable[[], bool] | None = None  # the model
    is_connected: Callable[[], bool] | None = None  # the gateway
    wants_gateway: bool = True  # the console alone has none
    is_resting: Callable[[], bool] = lambda: False  # the model was let go on purpose
    card: Callable[[], Reading | None] = lambda: None
    why_paused: Callable[[], str | None] = lambda: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)  # aware UTC


@asynccontextmanager
async def open_web(address: str, watched: Watched) -> AsyncIterator[int | None]:
    """Serve on `host:port` and yield the port; None for `off`. StartError if the port is taken."""
    if address == OFF:
        yield None
        return
    runner = web.AppRunner(make_app(watched), access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    lag = asyncio.create_task(_measure_lag(watched.metrics), name="event loop's lag")
    try:
        await _listen(runner, *host_and_port(address))
        yield runner.addresses[0][1]
    finally:
        lag.cancel()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, UnicodeError) as error:  # the latter from the look-up, for what is no name
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = (
            "is in use by another program" if taken else f"cannot be used: {getattr(error, 'strerror', None) or error}"
        )
        raise StartError(f"the address {host}:{port} {why}; set KILN_WEB to another, or to off") from error
    log.info("health and metrics are on http://%s:%d", host, runner.addresses[0][1])
    if host not in ("127.0.0.1", "::1", "localhost"):
        log.warning("whoever reaches %s can read Kiln's health and metrics: there is no password", host)


def make_app(watched: Watched) -> web.Application:
    """The three pages."""
    app = web.Application()
    for path, handler in (("/livez", _livez), ("/readyz", _readyz), ("/metrics", _metrics)):
        app.router.add_get(path, partial(handler, watched))
    return app


async def _livez(watched: Watched, _: web.Request) -> web.Response:
    """That this answers shows that the event loop turns; the GPU thread shows it by its pulse."""
    silent = watched.pulse.silent_seconds
    return _checked({"gpu_thread": f"silent for {silent:.0f} s" if watched.pulse.is_hung else None})


async def _readyz(watched: Watched, _: web.Request) -> web.Response:
    loaded = _is(watched.is_loaded) or watched.is_resting()
    checks = {"database": await _unwritable(watched.database), "model": None if loaded else "not loaded"}
    if watched.wants_gateway:
        checks["gateway"] = None if _is(watched.is_connected) else "not connected"
    return _checked(checks)


async def _metrics(watched: Watched, _: web.Request) -> web.Response:
    metrics, database = watched.metrics, watched.database
    measured = None
    if database is not None:
        with suppress(QueueUnavailable, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                measured = await database.read(partial(metrics.measure, now=watched.now()))
    metrics.show(measured)
    metrics.gateway.set(_is(watched.is_connected))
    metrics.loaded.set(_is(watched.is_loaded))
    metrics.silence.set(watched.pulse.silent_seconds)
    metrics.worked(watched.pulse.busy_seconds)
    _show_card(metrics, watched.card())
    metrics.paused.clear()
    if why := watched.why_paused():
        metrics.paused.labels(why).set(1)
    return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _show_card(metrics: Metrics, card: Reading | None) -> None:
    """What the card says; what it does not say is not a number, which is not zero."""
    for name, gauge in metrics.card.items():
        value = getattr(card, name, None)
        gauge.set(math.nan if value is None else value)


async def _unwritable(database: Database | None) -> str | None:
    """Why nothing can be written to the database; None: something was."""
    if database is None:
        return "not open"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await database.write(_touch)
    except (QueueUnavailable, TimeoutError):
        return "takes no write"
    return None


def _touch(session: Session) -> None:
    """Count up the number that SQLite leaves to programs in the file's head: a row set to what it is is not written."""
    version = session.scalar(text("PRAGMA user_version")) or 0
    session.execute(text(f"PRAGMA user_version = {(version + 1) % 2**31}"))


def _is(question: Callable[[], bool] | None) -> bool:
    return question is not None and question()


def _checked(checks: dict[str, str | None]) -> web.Response:
    """200 if nothing is wrong, 503 otherwise; what is wrong, by name."""
    wrong = any(checks.values())
    body = {"status": "fail" if wrong else "ok", "checks": {name: why or "ok" for name, why in checks.items()}}
    return web.json_response(body, status=503 if wrong else 200)


async def _measure_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        metrics.loop_lag.set(max(0.0, loop.time() - due))
