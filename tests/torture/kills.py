"""kill -9 again and again, at random moments and at named points, and then a look at every promise.

The real `kiln run` over the loopback Discord, on a real file. Nothing is spared: a job whose process dies twice under
it is rightly set aside, and then it must have been seen running at two deaths.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from tests.end_to_end.kiln_process import KilnProcess
from tests.end_to_end.launch_kiln import CRASH_POINTS, MID_DRAWING
from tests.loopback.world import Interaction
from tests.loopback_discord import LoopbackDiscord
from tests.torture.forked import ForkedKiln, Nursery

POINTS = (*CRASH_POINTS, MID_DRAWING)
OVER = ("delivered", "cancelled", "failed", "quarantined")
REACH_SECONDS = 1.5  # to get to a named point; a life that does not is killed where it is
END_SECONDS = 300.0  # for what is left in the queue after the last kill


@dataclass(slots=True, kw_only=True)
class Torture:
    """What was asked, and what was seen at each death."""

    chance: random.Random
    discord: LoopbackDiscord
    kiln: KilnProcess
    asked: list[Interaction] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    died_running: Counter[int] = field(default_factory=Counter)  # by job
    starts: list[float] = field(default_factory=list)  # seconds, from fork to Discord's READY

    async def run(self, kills: int) -> None:
        """Kill so often, then let the last process finish."""
        self.kiln._crash_when.touch()
        people = [self.discord.world.add_person(name) for name in ("Ana", "Ben", "Cleo", "Dan", "Eve")]
        rooms = [self.discord.world.add_channel(name) for name in ("pictures", "more")]
        for _ in range(kills):
            point = self.chance.choice(POINTS) if self.chance.random() < 0.5 else None
            if await self._start(point):
                for _ in range(self.chance.randint(1, 2)):
                    await self._ask(self.chance.choice(people), self.chance.choice(rooms))
                await self._die(point)
            self._look()
            if self.chance.random() < 0.05:
                self.discord.world.advance(timedelta(minutes=10))  # a long downtime: Discord forgets the nonces
        await self.kiln.start()
        await self.kiln.until(lambda: not set(self.kiln.statuses()) - set(OVER), seconds=END_SECONDS)

    async def _start(self, point: str | None) -> bool:
        """False: it died, or was killed, before it was connected."""
        began, gateway = time.perf_counter(), self.discord.gateway
        connected = asyncio.ensure_future(gateway.until_connected(identified=gateway.identified + 1, seconds=60))
        await self.kiln.start(crash_at=point, connect=False)
        ended = asyncio.ensure_future(self.kiln.ended())
        early = self.chance.uniform(0.0, 0.3) if point is None and self.chance.random() < 0.25 else None
        await asyncio.wait({connected, ended}, return_when=asyncio.FIRST_COMPLETED, timeout=early)
        alive = connected.done() and not ended.done()
        connected.cancel()
        ended.cancel()
        if alive:
            self.starts.append(time.perf_counter() - began)
            return True
        self.deaths["while starting" if self.kiln.alive else str(point)] += 1
        await self.kiln.kill()
        return False

    async def _ask(self, person: Any, room: Any) -> None:
        if self.asked and self.chance.random() < 0.1:
            job = self.chance.randint(max(1, len(self.asked) - 5), len(self.asked))
            await self.discord.send_slash(person, room, "cancel", job=str(job))
            return
        prompt = f"job {len(self.asked)}" + (" broken" if self.chance.random() < 0.05 else "")
        self.asked.append(await self.discord.send_slash(person, room, "imagine", prompt=prompt))

    async def _die(self, point: str | None) -> None:
        """At the point if it comes, else at any moment."""
        try:
            await self.kiln.ended(seconds=REACH_SECONDS if point else self.chance.uniform(0.0, 0.6))
        except TimeoutError:
            await self.kiln.kill()
            self.deaths["at random"] += 1
        else:
            self.deaths[str(point)] += 1

    def _look(self) -> None:
        for job in self.kiln.jobs():
            if job.status == "running":
                self.died_running[job.id] += 1

    def summary(self) -> dict[str, Any]:
        """The figures; `broken` names every promise that does not hold."""
        jobs = {job.interaction_id: job for job in self.kiln.jobs()}
        acknowledged = [one.id for one in self.asked if one.answer is not None]
        pictures = Counter(int((one.nonce or "0").partition("-")[0]) for one in self.discord.pictures())
        delivered = {job.id for job in jobs.values() if job.status == "delivered"}
        set_aside = {job.id for job in jobs.values() if job.status == "quarantined"}
        broken = {
            "acknowledged and not in the database": len(set(acknowledged) - jobs.keys()),
            "not over": sum(job.status not in OVER for job in jobs.values()),
            "posted more than once": sum(times > 1 for times in pictures.values()),
            "delivered without a picture": len(delivered - pictures.keys()),
            "a picture of a job that was not delivered": len(pictures.keys() - delivered),
            "set aside without two deaths under it": sum(self.died_running[job] < 2 for job in set_aside),
            "a 401 or 403 repeated": len(self.discord.refused_again()),
            "the file is not sound": _unsound(self.kiln.data / "kiln.sqlite3"),
            "a traceback in the log": self.kiln.log().count("Traceback"),
        }
        return {
            "kills": sum(self.deaths.values()),
            "kills_by_moment": dict(sorted(self.deaths.items())),
            "asked": len(self.asked),
            "acknowledged": len(acknowledged),
            "acknowledged_terminal": sum(one in jobs and jobs[one].status in OVER for one in acknowledged),
            "jobs_by_state": dict(sorted(Counter(job.status for job in jobs.values()).items())),
            "posts_per_job_max": max(pictures.values(), default=0),
            "start_ms_p50": round(median(self.starts) * 1000),
            "start_ms_worst": round(max(self.starts) * 1000),
            "broken": {what: times for what, times in broken.items() if times},
        }


async def torture(folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kill so often in `folder`, with the moments drawn from `seed`, and return the figures."""
    began = time.perf_counter()
    async with LoopbackDiscord() as discord, Nursery() as nursery:
        discord.world.answer_within_seconds = 20  # a machine shared with other work; Kiln is not timed here
        kiln = ForkedKiln(nursery, discord, folder)
        kiln.step_seconds = 0.01
        run = Torture(chance=random.Random(seed), discord=discord, kiln=kiln)
        try:
            await run.run(kills)
        finally:
            await kiln.kill()
        return {"seed": seed, "seconds": round(time.perf_counter() - began), **run.summary()}


def _unsound(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        whole = raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(not whole) + len(raw.execute("PRAGMA foreign_key_check").fetchall())
