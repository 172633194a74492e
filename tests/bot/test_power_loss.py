"""A power cut leaves of each file what was last synced: that must be enough for every promise that was made."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.queue.job import JobStatus, Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import check, open_database
from tests.fakes import Clock, picture
from tests.torture.power_loss import JOBS_A_ROUND, ROUNDS

ROOT = Path(__file__).parents[2]
PICTURED = (JobStatus.DRAWN, JobStatus.DELIVERED)

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("sqlite3") is None, reason="this Python brings an SQLite of its own, which has no handle"
)


def cut_at_every_round(tmp_path: Path, *otherwise: str) -> list[Path]:
    """Images of the disk at power cuts, each with what had been acknowledged; synced as Kiln does it, or otherwise."""
    folder, images = tmp_path / "data", tmp_path / "images"
    folder.mkdir()
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    subprocess.run(
        [sys.executable, "-m", "tests.torture.power_loss", str(folder), str(images), *otherwise],
        cwd=ROOT,
        env={**unmeasured, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    cuts = sorted(images.glob("cut-*"), key=lambda cut: cut.stat().st_mtime)
    assert len(cuts) == ROUNDS
    return cuts


async def lost(image: Path) -> int:
    """How many acknowledged jobs, or pictures that were told, the next start does not find."""
    acknowledged = json.loads((image / "acknowledged.json").read_text())
    path = image / "kiln.sqlite3"
    missing = 0
    async with open_database(path) as database:
        queue = JobQueue(database, limits=Limits(), now=Clock())
        await queue.recover()
        for number in acknowledged["submitted"]:
            job = await queue.job(number)
            missing += job is None
            if job is not None and number in acknowledged["drawn"]:
                whole = job.picture is not None and (image / job.picture).read_bytes() == picture(job.request)
                missing += not (job.status in PICTURED and whole)
            elif job is not None:
                missing += job.status not in (JobStatus.QUEUED, *PICTURED)
    check(path)
    return missing


async def test_a_power_cut_at_the_last_sync_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert [await lost(image) for image in cut_at_every_round(tmp_path)] == [0] * ROUNDS


async def test_the_same_power_cuts_lose_jobs_if_commits_are_not_synced(tmp_path: Path) -> None:
    """What holds the test above to the truth: `synchronous = NORMAL` is SQLite's usual advice for WAL."""
    losses = [await lost(image) for image in cut_at_every_round(tmp_path, "NORMAL")]
    assert losses[-1] >= JOBS_A_ROUND
