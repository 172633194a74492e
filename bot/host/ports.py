"""Addresses to listen on: taken apart, and whether somebody could listen there, asked without doing so for long."""

from __future__ import annotations

import socket

OFF = "off"  # instead of an address: nowhere


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of a checked `host:port`; an IPv6 host comes without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def checked_host(host: str) -> str:
    """A host's name or address; ValueError for what cannot be one, which looking it up would fail on oddly."""
    try:
        host.removesuffix(".").encode("idna")
    except UnicodeError:
        raise ValueError("has no host: what stands between two dots has 1 to 63 characters") from None
    return host


def why_not(host: str, port: int) -> str:
    """Why nobody can listen there now, in the system's words; empty if somebody can."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or type(error).__name__
    except UnicodeError:  # of the look-up, for what is no name
        return "it is no host's name"
    return ""
