"""The command line of `python -m gen bench synth | gpu`. Knows no torch until something runs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gen.errors import GenerationError


def add_bench_commands(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` can do; each sets `run`, which takes the parsed arguments and returns an exit code."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    synth = commands.add_parser("synth", help="write a model of random weights", description="Write random weights.")
    synth.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder: 34 GB, or 22 GB with --float8")
    synth.add_argument("--float8", action="store_true", help="store the DiT as float8: 12 GB instead of 24")
    synth.add_argument("--shape", choices=("full", "demo"), default="full", help="FLUX.1-dev's, or the demo model's")
    synth.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights (default: %(default)s)")
    synth.set_defaults(run=_synth)


def _synth(arguments: argparse.Namespace) -> int:
    from gen.bench.synth import demo_shape, synthesize  # brings torch

    started = time.perf_counter()
    try:
        shape = demo_shape() if arguments.shape == "demo" else None
        total = synthesize(arguments.folder, shape=shape, float8=arguments.float8, seed=arguments.seed)
    except (GenerationError, OSError) as error:
        print(f"kiln bench: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - started
    print(f"{arguments.folder}: {total / 1e9:.2f} GB in {seconds:.1f} s, {total / 1e9 / seconds:.2f} GB/s")
    return 0
