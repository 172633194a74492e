"""The operator's commands about the data folder: `kiln db upgrade | check | backup | restore`, `kiln pause | resume`.

Each returns an exit code, or raises StartError: one line for the terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bot.errors import StartError
from bot.host.caretaker import Pause
from bot.settings import load_settings
from bot.storage import database

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]

OK, FAILED = 0, 1


def add_data_commands(commands: Subcommands) -> None:
    """Add them to the command line."""
    add_command(commands, "pause", pause, "draw nothing more, and let the card go, until `kiln resume`")
    add_command(commands, "resume", resume, "draw again after `kiln pause`")
    text = "Look after the database."
    parts = commands.add_parser("db", help=text, description=text).add_subparsers(metavar="COMMAND", required=True)
    add_command(parts, "upgrade", upgrade, "bring the database to this Kiln's schema, after a copy beside it")
    checked = add_command(parts, "check", check, "read all of the database and say whether it is sound")
    checked.add_argument("--models", action="store_true", help="check that the code's tables and the migrations agree")
    copied = add_command(parts, "backup", backup, "copy the database to a file, also while Kiln runs")
    copied.add_argument("to", type=Path, help="the copy, a file that does not exist yet")
    restored = add_command(
        parts, "restore", restore, "put a copy in the place of the database, which is kept beside it"
    )
    restored.add_argument("copy", type=Path, help="made by `kiln db backup`, by a start or by the daily schedule")


def pause(_: argparse.Namespace) -> int:
    """Leave the file that asks for a pause."""
    data = _data_of_a_kiln()
    Pause(data).begin()
    print(f"The Kiln in {data} finishes the picture that it draws and begins no other until `kiln resume`.")
    return OK


def resume(_: argparse.Namespace) -> int:
    """Take it away."""
    data = _data_of_a_kiln()
    Pause(data).end()
    print(f"The Kiln in {data} draws again.")
    return OK


def _data_of_a_kiln() -> Path:
    """The data folder of the settings; StartError if there is none of a Kiln: that of a service lies elsewhere."""
    settings = load_settings()
    if not settings.database.exists():
        raise StartError(f"no Kiln has its data in {settings.data.absolute()}: set KILN_DATA as that Kiln has it")
    return settings.data.absolute()


def upgrade(_: argparse.Namespace) -> int:
    """Upgrade the schema of a database that no Kiln uses."""
    settings = load_settings()
    settings.make_data_folder()
    path = settings.database
    done = database.upgrade(path, now=datetime.now(UTC))
    copied = f"; the file as it was is {done.backup}" if done.backup else ""
    print(f"{path}: schema {done.before or 'none'} -> {done.after}{copied}")
    return OK


def check(parsed: argparse.Namespace) -> int:
    """Say whether the file is sound; with --models, whether tables and migrations agree."""
    if parsed.models:
        differences = database.model_differences()
        for difference in differences:
            print(f"kiln: models and migrations differ: {difference}", file=sys.stderr)
        if not differences:
            print("models and migrations agree")
        return FAILED if differences else OK
    path = load_settings().database
    found = database.check(path)
    print(f"{path}: sound, {found.jobs} jobs, schema {found.revision}, this Kiln has {found.head}")
    return OK


def backup(parsed: argparse.Namespace) -> int:
    """Copy the database."""
    database.backup(load_settings().database, parsed.to)
    print(parsed.to)
    return OK


def restore(parsed: argparse.Namespace) -> int:
    """Put a sound copy in the database's place; nothing is overwritten, and no Kiln may run."""
    settings = load_settings()
    settings.make_data_folder()
    path, copy = settings.database, parsed.copy
    aside = path.with_name(f"{path.stem}-replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{path.suffix}")
    with database.lock(path):
        found = database.check(copy)
        fresh = path.with_name(path.name + ".restoring")
        fresh.unlink(missing_ok=True)
        database.backup(copy, fresh)
        if path.exists():
            aside.hardlink_to(path)
        for ending in ("-wal", "-shm"):  # the log belongs to its file, and would spoil another
            log = path.with_name(path.name + ending)
            if log.exists():
                log.rename(aside.with_name(aside.name + ending))
        fresh.replace(path)
    kept = f"; what was there is {aside}" if aside.exists() else ""
    print(f"{path}: {found.jobs} jobs, schema {found.revision}, from {copy}{kept}")
    return OK


def add_command(
    commands: Subcommands, name: str, command: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """A command of the command line: its name, what it calls, and what it does in a few words."""
    added = commands.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
    added.set_defaults(command=command)
    return added
