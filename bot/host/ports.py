"""Addresses to listen on: taken apart, and whether somebody could listen there, asked without doing so for long."""

from __future__ import annotations

import socket

OFF = "off"  # instead of an address: nowhere
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # an address that stands for all of this machine's


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


def clash(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two that listen there are in each other's way: the same port of one address, or one of all addresses."""
    if one[1] != other[1]:
        return False
    try:
        hosts = {str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]) for host, port in (one, other)}
    except (OSError, UnicodeError):  # that is said of each
        hosts = {one[0], other[0]}
    return len(hosts) == 1 or bool(hosts & _EVERYWHERE)
