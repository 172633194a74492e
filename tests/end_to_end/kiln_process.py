"""`kiln run` as a process that tests start, kill, stop and look into: its database, its pictures, its log."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.loopback_discord import LoopbackDiscord

REPOSITORY = Path(__file__).parents[2]
LAUNCHER = "tests.end_to_end.launch_kiln"
POLL_SECONDS = 0.02
START_SECONDS = 60.0  # the fake takes one second, the real model ten; a busy machine far more


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """What a test looks at in a job's row."""

    id: int
    status: str
    attempts: int
    interaction_id: int
    picture: str | None
    result_message_id: int | None
    reason: str | None


class Running(Protocol):
    """As much of asyncio's Process as is used here."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def kill(self) -> None: ...
    def send_signal(self, number: int, /) -> None: ...
    async def wait(self) -> int: ...


class KilnProcess:
    """One data folder and, at a time, one process of Kiln on it."""

    def __init__(self, discord: LoopbackDiscord, folder: Path, *, log: str = "kiln.log") -> None:
        self.discord = discord
        self.data = folder / "data"
        self.step_seconds: float | None = 0.005  # the fake generator's; None draws with the real demo model
        self.settings: dict[str, str] = {}
        self.arguments: list[str] = []  # of `kiln run`
        self.token: str | None = discord.token
        self._folder = folder
        self._log = folder / log
        self._crash_when = folder / "crash-now"
        self._process: Running | None = None

    async def start(self, *, crash_at: str | None = None, connect: bool = True) -> None:
        """Start the process, and wait until it has identified at the gateway unless `connect` is False."""
        assert self._process is None or self._process.returncode is not None, "Kiln runs already"
        identified = self.discord.gateway.identified
        self._process = await self._spawn(crash_at)
        if connect:
            await self._until_connected(identified + 1)

    async def crash(self) -> None:
        """Let a process that holds at its `crash_at` point die there, as soon as it reaches it."""
        self._crash_when.touch()
        assert await self.ended() == -signal.SIGKILL

    async def kill(self) -> None:
        """End the process at once, as the kernel or a power cut does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def freeze(self) -> None:
        """Stop the process where it is, so that its database can be looked at before it dies or goes on."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 5.0) -> int:
        """Send SIGTERM or SIGINT and return the exit code; TimeoutError when it takes longer than `seconds`."""
        self._signal(number)
        return await self.ended(seconds=seconds)

    async def ended(self, *, seconds: float = START_SECONDS) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """Everything that all processes of this folder wrote to stdout and stderr."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def jobs(self) -> list[JobRow]:
        """Every job, the oldest first, read past Kiln from the file."""
        path = self.data / "kiln.sqlite3"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            columns = ", ".join(JobRow.__slots__)
            rows = connection.execute(f"SELECT {columns} FROM jobs ORDER BY id").fetchall()
        return [JobRow(**dict(zip(JobRow.__slots__, row, strict=True))) for row in rows]

    def statuses(self) -> list[str]:
        """Every job's status, the oldest first."""
        return [job.status for job in self.jobs()]

    def all_shown(self) -> bool:
        """Whether people saw how each job ended, or Discord took no word of it."""
        with closing(sqlite3.connect(f"file:{self.data / 'kiln.sqlite3'}?mode=ro", uri=True, timeout=5)) as connection:
            return bool(connection.execute("SELECT min(end_shown) FROM jobs").fetchone()[0])

    async def until(self, condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Wait for `condition`, which reads the database or the log; TimeoutError shows the log's end."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - another process's file: nothing to await
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"the condition did not come true; Kiln's log ends:\n{self.log()[-4000:]}") from None

    async def until_accepted(self, *, jobs: int) -> None:
        """Wait until so many jobs were accepted."""
        await self.until(lambda: len(self.statuses()) == jobs)

    async def until_all(self, status: str, *, seconds: float = 20.0) -> list[JobRow]:
        """Wait until every job has `status`, and return them."""
        await self.until(lambda: set(self.statuses()) == {status}, seconds=seconds)
        return self.jobs()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _until_connected(self, identified: int) -> None:
        connected = asyncio.create_task(
            self.discord.gateway.until_connected(identified=identified, seconds=START_SECONDS)
        )
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        await asyncio.wait({connected, ended}, return_when=asyncio.FIRST_COMPLETED)
        if connected.done():
            ended.cancel()
            await connected
            return
        connected.cancel()
        raise AssertionError(f"Kiln ended with {ended.result()} before it connected:\n{self.log()[-4000:]}")

    async def _spawn(self, crash_at: str | None) -> Running:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-X", "faulthandler", "-m", LAUNCHER, *self.arguments),
                cwd=self._folder,  # away from any .env of the developer
                env=self._environment(crash_at),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self, crash_at: str | None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        told = {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "LOOPBACK_URL": self.discord.address,
            "KILN_DATA": str(self.data),
            "KILN_MAX_WAITING_PER_USER": "100",
            "KILN_BURST": "1000",
            "KILN_WEB": "off",
            **self.settings,
        }
        if self.token is not None:
            told["DISCORD_TOKEN"] = self.token
        if self.step_seconds is not None:
            told["LOOPBACK_STEP_SECONDS"] = str(self.step_seconds)
        if crash_at is not None:
            told |= {"LOOPBACK_CRASH_AT": crash_at, "LOOPBACK_CRASH_WHEN": str(self._crash_when)}
        return kept | told
