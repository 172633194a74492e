"""A disk that is full at any write: what was acknowledged is kept, the rest is refused, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bot.errors import QueueUnavailable
from bot.queue.dispatcher import Dispatcher
from bot.queue.job import Limits
from bot.queue.job_queue import JobQueue
from bot.storage.database import check, open_database
from gen.executor import GpuExecutor
from tests.fakes import FakeGenerator, image_request, new_job
from tests.torture.power_loss import Drawn

ROOT = Path(__file__).parents[2]
ROUNDS = 40
SPARE_BYTES = 60_000  # at most; a job's rows need some tens of kilobytes of log, its picture some hundred bytes


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk without room."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


async def ask_on_a_full_disk(folder: Path, *, seed: int) -> None:
    """Submit and draw while files may grow by less than they need; then with room, until all is drawn."""
    chance, wal, outcomes = random.Random(seed), folder / "kiln.sqlite3-wal", Drawn()
    acknowledged, refused = [], 0
    async with open_database(folder / "kiln.sqlite3") as database, GpuExecutor(FakeGenerator) as executor:
        queue = JobQueue(database, limits=Limits(waiting_per_user=100, burst=1000), now=lambda: datetime.now(UTC))
        async with Dispatcher(
            queue=queue,
            executor=executor,
            outcomes=outcomes,
            pictures=folder,
            retry_seconds=0.01,
        ) as dispatcher:
            for number in range(1, ROUNDS + 1):
                new, asked = new_job(number, request=image_request(seed=number)), chance.random() < 0.5
                if asked:  # then the disk is full when it is drawn
                    acknowledged.append((await queue.submit(new)).id)
                with full_after(chance.choice((0, _size(wal))) + chance.randrange(SPARE_BYTES)):
                    try:
                        if not asked:
                            acknowledged.append((await queue.submit(new)).id)
                    except QueueUnavailable:
                        refused += 1
                    dispatcher.wake()
                    await asyncio.sleep(chance.random() * 0.05)
                dispatcher.wake()
            while len(outcomes.ids) < len(acknowledged):
                outcomes.one.clear()
                await outcomes.one.wait()
    sys.stdout.write(json.dumps({"acknowledged": acknowledged, "refused": refused, "drawn": outcomes.ids}))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_a_disk_that_is_full_at_any_write_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bot.test_full_disk", str(tmp_path)],
        cwd=ROOT,
        env={**unmeasured, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["refused"] > 0
    assert sorted(told["drawn"]) == told["acknowledged"] != []
    path = tmp_path / "kiln.sqlite3"
    check(path)
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT id, status, picture, attempts FROM jobs ORDER BY id").fetchall()
    assert [(job, status) for job, status, _, _ in rows] == [(job, "drawn") for job in told["acknowledged"]]
    assert all((tmp_path / picture).stat().st_size > 0 for _, _, picture, _ in rows)
    assert not list(tmp_path.rglob("*.half"))


if __name__ == "__main__":
    asyncio.run(ask_on_a_full_disk(Path(sys.argv[1]), seed=7))
