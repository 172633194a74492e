"""The command line of `kiln weights list | pull | verify | where`, which `python -m gen weights` is too.

Exit codes: 0 it is as asked, 1 it is not. Knows no torch.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gen.errors import GenerationError, HubUnreachable, WeightsMissing
from gen.pull import hub
from gen.pull.known import KNOWN, model_called
from gen.pull.pulling import Pull, expected, find_offline, pull, size
from gen.pull.store import Entry, cache_folder, model_folder, read_listed, trouble
from gen.weight_file import stored_as
from gen.weights import Weights, find_weights, folder_in_use

_STOPPED = "kiln weights: stopped. What came is kept: pull again to go on."
_ELSEWHERE = "Give this user the right to it, or set MODELSCOPE_CACHE to another folder."
_ROUNDED = """\
Its DiT is stored as {stored}: its publisher has rounded it already, and Kiln streams it as it is. A bfloat16 file of
the same model draws a little finer, and takes no more of the card: Kiln rounds each row to float8 with a scale."""


def add_weights_commands(parser: argparse.ArgumentParser, *, key: str = "run") -> None:
    """Declare what `weights` can do; each sets `key` to what takes the parsed arguments and returns an exit code."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listed = commands.add_parser("list", help="the models that can be fetched, and what is here")
    listed.set_defaults(**{key: _guarded(_list)})
    fetching = commands.add_parser("pull", help="fetch a model, or go on where a pull was cut")
    fetching.add_argument("model", metavar="MODEL", help=f"{', '.join(KNOWN)}, or a FLUX-dev fine-tune's *.safetensors")
    fetching.add_argument("--accept-licence", action="store_true", help="you have read it and accept it")
    fetching.add_argument(
        "--offline", action="store_true", help="ask no network: use what is here, or say what is missing"
    )
    fetching.set_defaults(**{key: _guarded(_pull)})
    checking = commands.add_parser("verify", help="read every byte and compare it with the hub's sums")
    checking.add_argument("model", metavar="MODEL", nargs="?", help="a model or a folder; by default the one in use")
    checking.add_argument("--offline", action="store_true", help="ask no network: compare with what `pull` wrote down")
    checking.set_defaults(**{key: _guarded(_verify)})
    place = commands.add_parser("where", help="the folder of a model")
    place.add_argument("model", metavar="MODEL", nargs="?", help="by default the one in use")
    place.set_defaults(**{key: _guarded(_where)})
    for command in (listed, fetching, checking, place):
        command.description = "Weights of the models that Kiln draws with. They lie in MODELSCOPE_CACHE."
        command.set_defaults(in_use=None)


def _guarded(run: Any) -> Any:
    """What goes wrong is said in a line on stderr."""

    def guarded(arguments: argparse.Namespace) -> int:
        hub.prepare_client(os.environ)
        try:
            code: int = run(arguments)
        except GenerationError as error:
            print(f"kiln weights: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"kiln weights: {error.filename}: {error.strerror}. {_ELSEWHERE}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(_STOPPED, file=sys.stderr)
            return 1
        return code

    return guarded


def _list(_: argparse.Namespace) -> int:
    cache = cache_folder(os.environ)
    pulled = {path.name for path in (cache / "kiln").glob("*") if path.is_dir()}
    for name in [*KNOWN, *sorted(pulled - set(KNOWN))]:
        about, bytes_ = (KNOWN[name].about, size(KNOWN[name].about_bytes)) if name in KNOWN else ("a fine-tune", "")
        print(f"{name:<16} {bytes_:>8}  {about}")
        print(f"{'':<16} {'':>8}  {_state(model_folder(cache, name))}")
    print(
        "\nLicence: FLUX.1 [dev] Non-Commercial. `kiln weights pull MODEL` shows its terms before it fetches anything."
    )
    return 0


def _state(folder: Path) -> str:
    if not folder.is_dir():
        return "not here"
    try:
        return f"here, {stored_as(find_weights(folder).dit)}: {folder}"
    except WeightsMissing as error:
        return f"not whole: {str(error).splitlines()[0]}"


def _pull(arguments: argparse.Namespace) -> int:
    model = model_called(arguments.model)
    with _ended_by_ctrl_c(), _bar() as bar:

        def total(count: int) -> None:
            bar.reset(total=count)

        order = Pull(
            cache=cache_folder(os.environ),
            accepted=arguments.accept_licence,
            tell=print,
            progress=_shown(bar),
            total=total,
            sleep=time.sleep,
        )
        weights = (find_offline if arguments.offline else pull)(model, order)
    _tell(model.name, weights)
    return 0


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends the process here and now, which loses nothing: an exception can be lost in the client's callbacks."""
    if threading.current_thread() is not threading.main_thread():
        yield  # not the process's own command
        return

    def end(*_: object) -> None:
        sys.stderr.write(f"\n{_STOPPED}\n")
        sys.stderr.flush()
        os._exit(1)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(name: str, weights: Weights) -> None:
    stored, unsaid = stored_as(weights.dit), [entry for entry in read_listed(weights.folder) if not entry.stated]
    print(f"{name} is here and whole; its DiT is {stored}.")
    if unsaid:
        print(f"The hub states no sum for {len(unsaid)} of its files; `verify` compares them with what they are now.")
    print("To draw with it, put this line into .env:")
    print(f"KILN_WEIGHTS={weights.folder}")
    if stored.startswith("float8"):
        print(_ROUNDED.format(stored=stored))


def _verify(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    entries = read_listed(folder)
    if not entries and not arguments.offline and not (folder / "kiln.json").exists():
        try:
            entries = expected(folder)
        except HubUnreachable as error:
            print(f"{error}\nSo no sums are compared.", file=sys.stderr)
    damaged = _compare(folder, entries)
    weights = find_weights(folder)
    print(f"The shapes are {weights.profile.name}'s; its DiT is {stored_as(weights.dit)}.")
    if not entries:
        print("No sums are known for these files: a changed byte inside them would not be seen.")
    if damaged:
        print(
            f"kiln weights: {damaged} of {len(entries)} files are not right: pull again to replace them.",
            file=sys.stderr,
        )
    return 1 if damaged else 0


def _compare(folder: Path, entries: list[Entry]) -> int:
    """Say of each file whether it is right; how many are not."""
    damaged = 0
    with _bar(sum(entry.bytes for entry in entries)) as bar:
        for entry in entries:
            wrong = trouble(folder, entry, _shown(bar))
            origin = "the hub's sum" if entry.stated else "the sum it had when it came"
            verdict = f"FAIL  {entry.path} {wrong}" if wrong else f"ok    {entry.path}, {size(entry.bytes)}, {origin}"
            bar.write(verdict, file=sys.stdout)
            damaged += bool(wrong)
    return damaged


def _where(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    print(folder)
    find_weights(folder)
    return 0


def _folder(arguments: argparse.Namespace) -> Path:
    """A named model's folder, a folder by its path, or the one in use."""
    name = arguments.model
    if name is None:
        return arguments.in_use or folder_in_use()
    pulled = model_folder(cache_folder(os.environ), name)
    return pulled if name in KNOWN or pulled.is_dir() else Path(name).expanduser()


@contextmanager
def _bar(total: int = 0) -> Iterator[tqdm[Any]]:
    """One bar over all bytes, where there is a terminal."""
    out = sys.stderr
    with tqdm(total=total, unit="B", unit_scale=True, file=out, leave=False, disable=not out.isatty()) as bar:
        yield bar


def _shown(bar: tqdm[Any]) -> Any:
    def show(path: str, count: int) -> None:
        bar.set_description(path.rpartition("/")[2][:30], refresh=False)
        bar.update(count)

    return show
