"""The command line of `python -m gen bench synth | gpu`. Knows no torch until something runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from gen.bench import gpu
from gen.errors import GenerationError, InvalidRequest
from gen.request import SEED_MAX, ImageRequest
from gen.weights import DEMO_WEIGHTS, folder_in_use, read_profile


def add_bench_commands(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` can do; each sets `run`, which takes the parsed arguments and returns an exit code."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    synth = commands.add_parser("synth", help="write a model of random weights", description="Write random weights.")
    synth.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder: 34 GB, or 22 GB with --float8")
    synth.add_argument("--float8", action="store_true", help="store the DiT as float8: 12 GB instead of 24")
    synth.add_argument("--shape", choices=("full", "demo"), default="full", help="FLUX.1-dev's, or the demo model's")
    synth.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights (default: %(default)s)")
    synth.set_defaults(run=_synth)
    _add_gpu(commands.add_parser("gpu", help="measure Kiln beside its peers", description="Measure on this card."))


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", type=Path, metavar="DIR", help="the model (default: KILN_WEIGHTS or the small demo model)")
    add("--budgets", default="all,6.8,4,2,1.5", metavar="LIST", help="GiB, or all resident (default: %(default)s)")
    add("--size", default="1024x1024", metavar="WxH", help="of the pictures (default: %(default)s)")
    add("--steps", type=int, default=20, metavar="N", help="denoising steps, 2 to 50 (default: %(default)s)")
    add("--peers", action="store_true", help="measure LoRAs, DiffSynth and diffusers too")
    add("--systems", metavar="LIST", help="exactly these: " + ", ".join(gpu.SYSTEMS))
    add("--minutes", type=float, default=3, metavar="M", help="for each, after loading (default: %(default)s)")
    add("--pictures", type=int, default=3, metavar="N", help="of each, at most (default: %(default)s)")
    add("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only tries the code (default: %(default)s)")
    add("--cache", type=Path, metavar="DIR", help="of packed weights and graphs (default: beside the weights)")
    add("--out", type=Path, metavar="FILE", help="the results (default: bench/results/gpu-WxH.json)")
    add("--plot", type=Path, metavar="FILE", help="only draw the plot and print the table of these results")
    add("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=_gpu)


def _gpu(arguments: argparse.Namespace) -> int:
    try:
        if arguments.plot is None:
            _measure(_bench(arguments), as_json=arguments.json)
        else:
            _show(arguments.plot, as_json=arguments.json)
    except (GenerationError, OSError, ValueError) as error:
        print(f"kiln bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kiln bench: stopped; what was measured is kept.", file=sys.stderr)
        return 1
    return 0


def _bench(arguments: argparse.Namespace) -> gpu.Bench:
    """What was asked for, checked before anything loads; raise GenerationError for what cannot be."""
    weights = arguments.weights or folder_in_use()
    asked = _asked(weights, arguments)
    if asked.steps < 2 or not 0 < arguments.minutes <= 60 or not 1 <= arguments.pictures <= 100:
        raise InvalidRequest("--steps is 2 or more, --minutes above 0 to 60, --pictures 1 to 100.")
    usual = ("kiln", gpu.LORA, *gpu.PEERS) if arguments.peers else ("kiln",)
    systems = arguments.systems.split(",") if arguments.systems else usual
    for system in systems:
        if system not in gpu.SYSTEMS:
            raise InvalidRequest(f"There is no system {system[:40]!r} to measure; there are {', '.join(gpu.SYSTEMS)}.")
    return gpu.Bench(
        weights=weights,
        width=asked.width,
        height=asked.height,
        steps=asked.steps,
        budgets=gpu.read_budgets(arguments.budgets),
        systems=tuple(systems),
        device=arguments.device,
        minutes=arguments.minutes,
        pictures=arguments.pictures,
        cache=arguments.cache or weights.with_name(weights.name + "-cache"),
        out=arguments.out or Path("bench/results") / f"gpu-{asked.size}.json",
    )


def _asked(weights: Path, arguments: argparse.Namespace) -> ImageRequest:
    """A picture as it will be measured; where the demo model only stands in and cannot draw it, say what could."""
    try:
        return read_profile(weights).request("a size", seed=0, size=arguments.size, steps=arguments.steps)
    except InvalidRequest as error:
        if weights != DEMO_WEIGHTS:
            raise
        raise InvalidRequest(
            f"{error} `python -m gen bench synth DIR` makes a full-size model; name it by --weights or KILN_WEIGHTS."
        ) from error


def _measure(bench: gpu.Bench, *, as_json: bool) -> None:
    for line in gpu.run(bench):
        print(line, flush=True, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(bench.out.read_text("utf-8"))
    _plot(bench.out)


def _show(path: Path, *, as_json: bool) -> None:
    with gpu.results(path) as found:
        for line in [path.read_text("utf-8")] if as_json else gpu.table(found):
            print(line)
        _plot(path)


def _plot(path: Path) -> None:
    from gen.bench.plot import plot

    try:
        plot(json.loads(path.read_text("utf-8")), path.with_suffix(".png"))
    except ImportError:
        print("No plot: matplotlib is not installed; --plot FILE draws it later from the results.", file=sys.stderr)


def _synth(arguments: argparse.Namespace) -> int:
    try:
        if not 0 <= arguments.seed <= SEED_MAX:
            raise InvalidRequest(f"--seed must be from 0 to {SEED_MAX:,}; it is {arguments.seed:,}.")
        from gen.bench.synth import demo_shape, synthesize  # brings torch

        started = time.perf_counter()
        shape = demo_shape() if arguments.shape == "demo" else None
        total = synthesize(arguments.folder, shape=shape, float8=arguments.float8, seed=arguments.seed)
    except (GenerationError, OSError) as error:
        print(f"kiln bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kiln bench: stopped; {arguments.folder} holds no whole model.", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - started
    print(f"{arguments.folder}: {total / 1e9:.2f} GB in {seconds:.1f} s, {total / 1e9 / seconds:.2f} GB/s")
    return 0
