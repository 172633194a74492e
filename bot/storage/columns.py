"""A column type of the tables: a tuple of small frozen values, as JSON. Knows no table."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator


class Values(TypeDecorator[tuple[Any, ...]]):
    """A tuple of one frozen dataclass, a JSON list of objects in SQLite.

    They were valid when they were written, and are not validated again: see `tables._stored_request`.
    """

    impl = Text
    cache_ok = True

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: tuple[Any, ...] | None, dialect: Dialect) -> str | None:
        """Write the fields by name."""
        return None if value is None else json.dumps([asdict(one) for one in value], ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[Any, ...] | None:
        """Read them back."""
        return None if value is None else tuple(stored(self.kind, one) for one in json.loads(value))


def stored(kind: type, values: dict[str, Any]) -> Any:
    """A frozen dataclass with these values as they are."""
    made: Any = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
