"""`python -m tests.torture`: a thousand kills, then a soak of 50,000 jobs; the summary as JSON. Not part of the tests.

Exit code 1 if a promise was broken. The kills are on the disk that `--folder` is on; so is the soak, unless
`--soak-folder` names another: it looks for what grows, not for how fast a disk is.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.torture.kills import torture
from tests.torture.soak import soak

PACKAGES = ("discord.py", "sqlalchemy")


def main() -> int:
    """Run both, print and keep the summary."""
    asked = _arguments()
    summary: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if asked.kills:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            summary["kills"] = asyncio.run(torture(Path(folder), kills=asked.kills, seed=asked.seed))
    if asked.jobs:
        with tempfile.TemporaryDirectory(dir=asked.soak_folder or asked.folder) as folder:
            summary["soak"] = asyncio.run(soak(Path(folder), jobs=asked.jobs, seed=asked.seed))
    text = json.dumps(summary, indent=1)
    sys.stdout.write(text + "\n")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(text + "\n", encoding="utf-8")
    return 0 if _kept(summary) else 1


def _kept(summary: dict[str, Any]) -> bool:
    parts = [summary[name] for name in ("kills", "soak") if name in summary]
    return all(
        part["acknowledged"] == part["acknowledged_terminal"]
        and part["posts_per_job_max"] <= 1
        and not part.get("broken")
        and part.get("flat", True)
        for part in parts
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Kill Kiln, and soak it.")
    parser.add_argument("--kills", type=int, default=1000, help="0: none (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=50_000, help="of the soak; 0: none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="of the moments")
    parser.add_argument("--folder", type=Path, help="where to make the data folders (default: the system's)")
    parser.add_argument("--soak-folder", type=Path, help="another one for the soak, such as a RAM disk")
    parser.add_argument("--json", type=Path, help="file for the summary")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
