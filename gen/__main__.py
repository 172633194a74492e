"""`python -m gen draw | weights | bench`: the generator without Discord and a database.

`kiln draw` and `kiln weights` are the same. Knows no queue, no settings file and no tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gen.bench.command import add_bench_commands
from gen.errors import GenerationError, InvalidRequest
from gen.prompt import seed_of
from gen.pull.command import add_weights_commands
from gen.request import (
    CFG_SCALE_MAX,
    CFG_SCALE_MIN,
    GUIDANCE_MAX,
    GUIDANCE_MIN,
    PROMPT_MAX_CHARACTERS,
    SEED_MAX,
    STEPS_MAX,
    STEPS_MIN,
    STRONG,
    SUBTLE,
    ImageRequest,
    ImageResult,
    LoraUse,
    StepReport,
    Variation,
)
from gen.streaming.cards import GIB
from gen.streaming.planner import parse_budget
from gen.streaming.sizes import Precision
from gen.tuning import Tuning, default_cache
from gen.weights import folder_in_use, read_profile

REPEAT_MAX = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m gen", description="Kiln's generator, without Discord.")
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw one picture into a file")
    add_draw_arguments(drawing)
    drawing.set_defaults(run=draw)
    add_weights_commands(commands.add_parser("weights", help="fetch and check models"))
    add_bench_commands(commands.add_parser("bench", help="measure the generator", description="Measure the generator."))
    parsed = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    return run(parsed)


def add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `draw` reads; what is left out takes the model's own defaults."""
    parser.description = "Draw one picture into a PNG file. What is left out takes the model's own defaults."
    parser.add_argument("prompt", metavar="PROMPT", help=f"what to draw, up to {PROMPT_MAX_CHARACTERS:,} characters")
    parser.add_argument("--seed", type=int, metavar="N", help=f"0 to {SEED_MAX}; or end the prompt with seed:N")
    parser.add_argument("--size", metavar="WxH", help="in pixels, multiples of 16, such as 256x256")
    parser.add_argument("--steps", type=int, metavar="N", help=f"denoising steps, {STEPS_MIN} to {STEPS_MAX}")
    parser.add_argument("--guidance", type=float, metavar="G", help=f"{GUIDANCE_MIN:g} to {GUIDANCE_MAX:g}")
    parser.add_argument(
        "--lora", type=_lora, metavar="NAME:STRENGTH", action="append", default=[], help="a LoRA; may be there 5 times"
    )
    parser.add_argument("--loras", type=Path, metavar="DIR", help="folder of LoRA files")
    parser.add_argument("--negative", metavar="TEXT", default="", help="what to stay away from; takes twice the time")
    parser.add_argument(
        "--cfg-scale", type=float, metavar="X", help=f"{CFG_SCALE_MIN:g} (off) to {CFG_SCALE_MAX:g}, how far away"
    )
    parser.add_argument(
        "--variation",
        type=_variation,
        metavar="SEED:SHARE",
        action="append",
        default=[],
        help=f"mix in the noise of another seed: {SUBTLE:g} is subtle, {STRONG:g} strong; may be there several times",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the PNG file to write")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="draw it N times, to see warm timings")
    parser.add_argument("--json", action="store_true", help="print what was drawn as one JSON object")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="the model's folder, by default KILN_WEIGHTS or the small demo model",
    )
    parser.add_argument("--budget", metavar="SIZE", type=_budget, help="most of the card's memory, such as 6.8GiB")
    parser.add_argument(
        "--precision", choices=list(Precision), help="of the streamed weights; by default float8 on a card"
    )
    parser.add_argument("--no-compile", action="store_true", help="run the model as it is")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where packed weights and compiled graphs are kept")
    parser.add_argument("--device", metavar="NAME", type=_device, help="cpu, mps, cuda or cuda:N; by default the best")


def draw(arguments: argparse.Namespace, *, tuning: Tuning | None = None) -> int:
    """Draw as asked, `tuning` where the call says nothing else; what is wrong is said in one line on stderr."""
    try:
        request = _request(arguments)
        _check_output(arguments)
        results = _draw(request, arguments, _tuning(arguments, tuning or Tuning(cache=default_cache(os.environ))))
        _write(arguments.out, results[-1].png)
    except (GenerationError, OSError) as error:
        print(f"kiln draw: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kiln draw: stopped.", file=sys.stderr)
        return 1
    told = describe(request, results, arguments.out)
    print(json.dumps(told, ensure_ascii=False) if arguments.json else _sentence(told))
    if notice := results[-1].notice:
        print(notice, file=sys.stderr)
    return 0


def describe(request: ImageRequest, results: list[ImageResult], out: Path) -> dict[str, Any]:
    """What was drawn: the last picture's figures, and every picture's under "pictures"."""
    last = results[-1]
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "size": request.size,
        "steps": request.steps,
        "guidance": request.guidance,
        "negative": request.negative,
        "cfg_scale": request.cfg_scale,
        "loras": [asdict(use) for use in request.loras],
        "variations": [asdict(one) for one in request.variations],
        "model": last.model,
        "seconds": round(last.seconds, 3),
        "sha256": last.sha256,
        "out": str(out),
        "pictures": [{"seconds": round(result.seconds, 3), "sha256": result.sha256} for result in results],
    }


def _lora(text: str) -> tuple[str, float]:
    name, colon, strength = text.rpartition(":")
    try:
        return (name, float(strength)) if colon else (text, 1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is NAME:STRENGTH, such as ink:0.8, not {text!r}") from error


def _variation(text: str) -> tuple[int, float]:
    seed, _, share = text.partition(":")
    try:
        return int(seed), float(share)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is SEED:SHARE, such as 7:0.1, not {text!r}") from error


def _device(text: str) -> str:
    if re.fullmatch(r"cpu|mps|cuda(:\d{1,2})?", text) is None:
        raise argparse.ArgumentTypeError(f"it is cpu, mps, cuda or cuda:N, not {text!r}")
    return text


def _folder(arguments: argparse.Namespace) -> Path:
    return arguments.weights or folder_in_use()


def _loras(arguments: argparse.Namespace) -> Path | None:
    given = arguments.loras or os.environ.get("KILN_LORAS")
    return Path(given) if given else None


def _request(arguments: argparse.Namespace) -> ImageRequest:
    words, seed = seed_of(arguments.prompt, arguments.seed)
    profile = read_profile(_folder(arguments))
    plain = profile.request(
        words,
        seed=secrets.randbelow(SEED_MAX + 1) if seed is None else seed,
        size=arguments.size,
        steps=arguments.steps,
        guidance=arguments.guidance,
    )
    loras = tuple(LoraUse(name=name, strength=strength) for name, strength in arguments.lora)
    variations = tuple(Variation(seed=seed, share=share) for seed, share in arguments.variation)
    request = profile.avoiding(plain, negative=arguments.negative, cfg_scale=arguments.cfg_scale)
    return replace(request, loras=loras, variations=variations)


def _check_output(arguments: argparse.Namespace) -> None:
    """Complain before drawing rather than after."""
    if not 1 <= arguments.repeat <= REPEAT_MAX:
        raise GenerationError(f"--repeat must be from 1 to {REPEAT_MAX:,}; it is {arguments.repeat:,}.")
    if arguments.out.is_dir():
        raise GenerationError(f"--out {arguments.out} is a folder; name a file in it.")
    if arguments.out.exists() and not arguments.out.is_file():
        raise GenerationError(
            f"--out {arguments.out} is a device or a pipe, which a picture would replace; name a file."
        )
    if not arguments.out.parent.is_dir():
        raise GenerationError(f"There is no folder {arguments.out.parent} to write into.")
    if not os.access(arguments.out.parent, os.W_OK):
        raise GenerationError(f"The folder {arguments.out.parent} is not writable.")


def _budget(text: str) -> str:
    try:
        parse_budget(text, free_bytes=GIB)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _tuning(arguments: argparse.Namespace, usual: Tuning) -> Tuning:
    """What the call says about speed and memory, else what is usual here."""
    return Tuning(
        budget=arguments.budget or usual.budget,
        precision=Precision(arguments.precision) if arguments.precision else usual.precision,
        compiled=usual.compiled and not arguments.no_compile,
        pinned_bytes=usual.pinned_bytes,
        cache=arguments.cache or usual.cache,
    )


def _draw(request: ImageRequest, arguments: argparse.Namespace, tuning: Tuning) -> list[ImageResult]:
    from gen.flux import load_generator  # brings torch, which takes seconds: only when there is something to draw

    generator = load_generator(_folder(arguments), device=arguments.device, tuning=tuning, loras=_loras(arguments))
    results = []
    for _ in range(arguments.repeat):
        with tqdm(total=request.steps, unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:

            def show(report: StepReport, bar: tqdm[Any] = bar) -> None:
                bar.update(report.step - bar.n)

            results.append(generator.draw(request, on_step=show))
    return results


def _write(path: Path, png: bytes) -> None:
    """Write the whole file or nothing."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(png)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _sentence(told: dict[str, Any]) -> str:
    return f"{told['out']}: seed {told['seed']}, {told['size']}, steps {told['steps']}, {told['seconds']} s"


if __name__ == "__main__":
    sys.exit(main())
