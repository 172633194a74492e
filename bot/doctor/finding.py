"""What `kiln doctor` finds: one line with a status and a cure. Knows no check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  # works, but perhaps not as meant
    FAIL = "fail"  # Kiln cannot run like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found, and what cures it."""

    name: str
    status: Status
    detail: str
    cure: str = ""


def ok(name: str, detail: str, cure: str = "") -> Finding:
    """All is well; a cure is then a hint."""
    return Finding(name=name, status=Status.OK, detail=detail, cure=cure)


def warn(name: str, detail: str, cure: str) -> Finding:
    """It works, but perhaps not as meant."""
    return Finding(name=name, status=Status.WARN, detail=detail, cure=cure)


def fail(name: str, detail: str, cure: str) -> Finding:
    """Kiln cannot run like this."""
    return Finding(name=name, status=Status.FAIL, detail=detail, cure=cure)


def looked_at(name: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds; one that the system does not even let look is a finding too."""
    try:
        return check()
    except OSError as error:
        cure = "Give this user the right to it, and to the folders above it, or choose another folder."
        return fail(name, f"{error.filename} cannot be looked at: {error.strerror}", cure)
