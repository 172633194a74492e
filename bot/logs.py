"""The log: lines for people or JSON objects for machines, on stderr, where systemd and containers take it up."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import discord


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, what the record says in fields, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def log_to_stderr(level: str, *, as_json: bool = False) -> None:
    """Send everything from `level` up to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler])
    if level == "DEBUG":
        for library in ("sqlalchemy", "discord"):
            logging.getLogger(library).setLevel("INFO")  # below that they log what people write
    logging.getLogger("alembic").setLevel("WARNING")  # what an upgrade does, bot.storage.schema says in one line
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # Kiln has no voice
