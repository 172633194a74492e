"""Whether somebody could listen on an address, asked without listening there for long. Knows nobody who wants to."""

from __future__ import annotations

import socket

OFF = "off"  # instead of an address: nowhere


def why_not(host: str, port: int) -> str:
    """Why nobody can listen there now, in the system's words; empty if somebody can."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""
