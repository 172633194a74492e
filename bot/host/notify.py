"""Telling systemd how the service is: ready, stopping, alive. Does nothing where systemd did not ask for it.

The watchdog is fed from the event loop, and only while the GPU thread gives signs of life: so whichever of the two
hangs, systemd ends the process and starts it anew. See sd_notify(3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

from gen.pulse import Pulse

LOOK_SECONDS = 5.0  # between two looks at the pulse

log = logging.getLogger(__name__)


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send lines such as `READY=1` to systemd; a failure is logged and nothing more."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall("\n".join(lines).encode())
    except OSError as error:
        log.warning("systemd could not be told %s: %s", lines[0], error)


async def watch(
    pulse: Pulse,
    *,
    on_hung: Callable[[], None],
    look_seconds: float = LOOK_SECONDS,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Feed the watchdog until cancelled, but not while the GPU thread hangs: then call `on_hung`, once a hang."""
    was_hung = False
    while True:
        is_hung = pulse.is_hung
        if not is_hung:
            notify("WATCHDOG=1", environment=environment)
        elif not was_hung:
            log.critical("the GPU thread has been silent for %.0f s: it hangs", pulse.silent_seconds)
            on_hung()
        was_hung = is_hung
        await asyncio.sleep(look_seconds)
