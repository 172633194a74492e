"""The command line: `kiln run | demo | draw | weights | doctor | db | ...`. Only it may reach torch in `bot`.

Exit codes: 0 it worked, 1 it failed, 2 it was called wrongly. Errors are readable lines on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import discord

from bot.app import run_console_until_stopped, run_until_stopped
from bot.client import create_bot
from bot.command_words import usage
from bot.console.address import check_console, check_port
from bot.data_commands import add_command, add_data_commands
from bot.delivery.looking import PictureClassifier
from bot.doctor import cards as doctor_cards
from bot.doctor import command as doctor
from bot.doctor import plan as doctor_plan
from bot.doctor.finding import Status
from bot.errors import StartError
from bot.invite import how_to_connect
from bot.logs import log_to_stderr
from bot.settings import Settings, load_settings
from gen.__main__ import add_draw_arguments, draw
from gen.errors import GenerationError
from gen.executor import Generator
from gen.pull.command import add_weights_commands
from gen.weights import DEMO_WEIGHTS, read_profile

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]

OK, FAILED, MISUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except (StartError, GenerationError) as error:
        _complain(str(error))
        return FAILED
    except OSError as error:
        logging.getLogger(__name__).debug("the system refused", exc_info=True)
        _complain(f"the system refused: {error}")
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _complain(text: str) -> None:
    first, *rest = text.splitlines() or [""]
    print("\n".join([f"kiln: {first}", *rest]), file=sys.stderr)


def _run(parsed: argparse.Namespace) -> int:
    settings = load_settings()
    log_to_stderr(settings.log_level, as_json=settings.log_format == "json")
    token = settings.token
    if not token:
        raise StartError(how_to_connect("DISCORD_TOKEN is not set, and `kiln run` needs it.", token=None))
    if settings.console:
        _check_console(settings)
    load, on_hung = _loader(settings), _watched(parsed)
    try:
        run = run_until_stopped(settings, load=load, token=token, classifier=_classifier(settings), on_hung=on_hung)
        asyncio.run(run)
    except discord.LoginFailure:
        raise StartError(how_to_connect("Discord does not accept DISCORD_TOKEN.", token=token)) from None
    _leave(OK)


def _watched(parsed: argparse.Namespace) -> Callable[[], None]:
    """What to do when the GPU thread hangs; systemd's watchdog ends a hung process by SIGABRT, which is shown too."""
    faulthandler.enable(sys.__stderr__ or sys.stderr)
    return partial(_hung, end=parsed.end_when_hung)


def _hung(*, end: bool) -> None:
    """Show where every thread is; end the process if a supervisor starts it anew."""
    faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
    if end:
        _leave(FAILED)


def _classifier(settings: Settings) -> PictureClassifier | None:
    """What looks at pictures before they are posted; loads torch. Raise WeightsMissing."""
    if settings.classifier is None:
        return None
    from gen.picture_classifier import TransformersClassifier

    return TransformersClassifier(settings.classifier)


def _console(parsed: argparse.Namespace) -> int:
    given = {"console_host": parsed.host, "console_port": parsed.port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    _check_console(settings)
    log_to_stderr(settings.log_level, as_json=settings.log_format == "json")
    load, on_hung = _loader(settings), _watched(parsed)
    asyncio.run(run_console_until_stopped(settings, load=load, on_hung=on_hung, tell=lambda at: print(at, flush=True)))
    _leave(OK)


def _check_console(settings: Settings) -> None:
    """Before the model loads, which may take minutes."""
    check_console(settings)
    check_port(settings)


def _demo(parsed: argparse.Namespace) -> int:
    from bot.demo.command import run_demo  # needs simcord, which only the demo installs

    log_to_stderr("WARNING")
    load = _loader(load_settings(weights=DEMO_WEIGHTS))
    _leave(run_demo(load=load, port=parsed.port, data=parsed.data, open_browser=not parsed.no_browser))


def _draw(parsed: argparse.Namespace) -> int:
    """Draw with the model and on the device that `kiln run` would use here, unless the call names others."""
    settings = load_settings()
    parsed.weights = parsed.weights or settings.weights
    parsed.loras = parsed.loras or settings.loras
    if parsed.device is None and settings.device != "auto":
        parsed.device = settings.device
    return draw(parsed, tuning=settings.tuning)


def _weights(parsed: argparse.Namespace) -> int:
    """As `python -m gen weights`; the model in use is the settings'."""
    parsed.in_use = load_settings().weights
    run: Callable[[argparse.Namespace], int] = parsed.weights_command
    return run(parsed)


def _commands(parsed: argparse.Namespace) -> int:
    payloads = asyncio.run(create_bot().payloads())
    if parsed.json:
        print(json.dumps(payloads, indent=2, ensure_ascii=False))
        return OK
    for payload in payloads:
        print(*usage(payload), sep="\n")
    return OK


def _doctor(parsed: argparse.Namespace) -> int:
    if parsed.cards:
        for line in doctor_cards.lines(doctor_cards.expected(), as_json=parsed.json):
            print(line)
        return OK
    if parsed.plan is not None:
        card, plan = doctor_plan.plan_here(load_settings(), parsed.plan, size=parsed.size)
        for line in doctor_plan.lines(card, plan, as_json=parsed.json):
            print(line)
        return OK
    findings = doctor.examine()
    for line in doctor.report(findings, as_json=parsed.json):
        print(line)
    return FAILED if any(finding.status is Status.FAIL for finding in findings) else OK


def _bench_queue(parsed: argparse.Namespace) -> int:
    from bot.bench import queue

    load = _loader(load_settings(weights=DEMO_WEIGHTS, device="cpu"))
    figures = queue.measure(load=load, histories=parsed.histories, seconds=parsed.seconds)
    for line in queue.lines(figures, as_json=parsed.json):
        print(line)
    return OK if all(figures[name] <= promise for name, promise in queue.PROMISES.items()) else FAILED


def _loader(settings: Settings) -> Callable[[], Generator]:
    """What loads the model; called on the GPU thread, where torch is imported.

    Raise WeightsMissing at once if a file is missing or damaged: torch takes seconds to come.
    """
    read_profile(settings.weights)

    def load() -> Generator:
        from gen.flux import load_generator

        device = None if settings.device == "auto" else settings.device
        return load_generator(settings.weights, device=device, tuning=settings.tuning, loras=settings.loras)

    return load


def _leave(code: int) -> NoReturn:
    """End the process now that every file and connection is closed.

    Letting Python take torch and DiffSynth apart takes 1.5 s, on a busy machine five (2 cores, 2026-11), and waits for
    a GPU thread that was given up.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kiln", description="A Discord bot that lets a community share one GPU.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    run = add("run", _run, "Serve a Discord server; needs DISCORD_TOKEN.")
    console = add("console", _console, "Serve a web page for drawing, without Discord; KILN_CONSOLE adds it to `run`.")
    console.add_argument("--host", help="where to listen (default: KILN_CONSOLE_HOST)")
    console.add_argument("--port", type=_from_1_to(65535), help="of the page (default: KILN_CONSOLE_PORT)")
    for served in (run, console):
        served.add_argument(
            "--end-when-hung", action="store_true", help="end when the GPU thread hangs, to be started anew"
        )
    demo = add("demo", _demo, "Show Kiln on a local page that looks like Discord; needs no token.")
    demo.add_argument("--port", type=_port, help="of the page; 0 takes any (default: 8765, or any while that is taken)")
    demo.add_argument("--data", type=Path, help="folder to keep the queue and the pictures in")
    demo.add_argument("--no-browser", action="store_true", help="do not open a browser")
    add_draw_arguments(add("draw", _draw, "Draw pictures to files, without Discord and without the queue."))
    text = "Fetch and check the weights of models."
    add_weights_commands(add("weights", _weights, text), key="weights_command")
    listed = add("commands", _commands, "List the slash commands.")
    listed.add_argument("--json", action="store_true", help="the payloads that Discord receives")
    check = add("doctor", _doctor, "Check settings, database, weights and device, and say what will happen here.")
    check.add_argument("--json", action="store_true", help="the findings, or the plan, as JSON")
    check.add_argument("--plan", metavar="BUDGET", help="what would stream within 6.8GiB, 900MiB or all that is free")
    check.add_argument("--cards", action="store_true", help="a table of what FLUX.1-dev would take on common cards")
    check.add_argument("--size", metavar="WxH", help="of the plan's pictures, in pixels; by default the model's own")
    _add_bench(commands.add_parser("bench", help="Measure Kiln.", description="Measure Kiln on this machine."))
    add_data_commands(commands)
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "speed and fairness of the queue; exit code 1 if a promise is broken"
    queue = add_command(commands, "queue", _bench_queue, text)
    queue.add_argument("--json", action="store_true", help="the figures as JSON")
    queue.add_argument("--histories", type=_from_1_to(100_000), default=1000, help="random histories (default: 1000)")
    queue.add_argument("--seconds", type=_from_1_to(600), default=5, help="of asking at 200 a second (default: 5)")


def _from_1_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"it is a whole number from 1 to {most}, not {text!r}")
        return int(text)

    return number


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535; it is {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
