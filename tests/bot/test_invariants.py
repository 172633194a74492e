"""What holds for the whole of `bot`, whatever it grows into."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import bot

ROOT = Path(__file__).parents[2]
EVERY_MODULE = sorted(
    found.name for found in pkgutil.walk_packages(bot.__path__, "bot.") if found.name != "bot.__main__"
)


def test_nothing_in_bot_but_its_command_line_reaches_torch() -> None:
    assert "bot.cogs.imagine" in EVERY_MODULE
    code = (
        f"import importlib, sys\nfor name in {EVERY_MODULE!r}: importlib.import_module(name)\n"
        "unwanted = {'torch', 'diffsynth', 'gen.flux', 'gen.generator', 'bot.__main__'}\n"
        "sys.exit(', '.join(unwanted & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_itself_brings_torch_only_to_draw() -> None:
    code = "import sys, bot.__main__\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
