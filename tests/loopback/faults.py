"""What goes wrong on purpose: a script of faults, each for one route and a number of requests.

Knows how Discord words an error; knows nothing of the state or of Kiln.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.loopback.record import Request
from tests.loopback.world import Json

POST_MESSAGE = ("POST", "/channels/{channel_id}/messages")
EDIT_MESSAGE = ("PATCH", "/channels/{channel_id}/messages/{message_id}")
OPEN_DIRECT = ("POST", "/users/@me/channels")
CALLBACK = ("POST", "/interactions/{interaction_id}/{token}/callback")
LOGIN = ("GET", "/users/@me")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one request ends. With status 0 and no reset it ends well, only later."""

    status: int = 0
    code: int = 0  # Discord's JSON error code
    text: str = ""
    after_effect: bool = False  # the request does its work first, then the fault answers
    reset: bool = False  # a TCP reset instead of an answer
    delay_seconds: float = 0.0  # before the answer; after the work if `after_effect`
    retry_after: float | None = None  # seconds

    def body(self) -> Json:
        body: Json = {"message": self.text, "code": self.code}
        return body if self.retry_after is None else body | {"retry_after": self.retry_after, "global": False}

    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        seconds = f"{self.retry_after:.3f}"
        return {
            "Via": "1.1 google",  # without it discord.py takes a 429 for a ban by Cloudflare
            "Retry-After": seconds,
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset-After": seconds,
            "X-RateLimit-Scope": "user",
        }


def rate_limited(retry_after: float) -> Fault:
    return Fault(status=429, text="You are being rate limited.", retry_after=retry_after)


def server_error(*, after_effect: bool, status: int = 500) -> Fault:
    return Fault(status=status, text=f"{status}: Internal Server Error", after_effect=after_effect)


def connection_reset(*, after_effect: bool) -> Fault:
    return Fault(reset=True, after_effect=after_effect)


def slow(seconds: float) -> Fault:
    return Fault(delay_seconds=seconds, after_effect=True)


def too_large() -> Fault:
    return Fault(status=413, code=40005, text="Request entity too large")


def missing_access() -> Fault:
    return Fault(status=403, code=50001, text="Missing Access")


def missing_permissions() -> Fault:
    return Fault(status=403, code=50013, text="Missing Permissions")


def unauthorized() -> Fault:
    return Fault(status=401, text="401: Unauthorized")


@dataclass(slots=True, kw_only=True)
class _Planned:
    route: tuple[str, str]
    fault: Fault
    left: int
    when: Callable[[Request], bool]


@dataclass(slots=True)
class FaultScript:
    """Faults still to come, in the order they were planned."""

    _planned: list[_Planned] = field(default_factory=list)

    def plan(
        self,
        route: tuple[str, str],
        fault: Fault,
        *,
        times: int = 1,
        when: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """Let the next `times` requests of `route` that match `when` end in `fault`."""
        self._planned.append(_Planned(route=route, fault=fault, left=times, when=when))

    def clear(self) -> None:
        """Forget what was planned: from here on nothing goes wrong."""
        self._planned.clear()

    def take(self, request: Request) -> Fault | None:
        for planned in self._planned:
            if planned.left and planned.route == (request.method, request.route) and planned.when(request):
                planned.left -= 1
                return planned.fault
        return None
