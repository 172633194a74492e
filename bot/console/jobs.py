"""Jobs from the web console: asked, followed, cancelled and remembered, in the same queue as everyone's.

A console is one browser; its number stands where a Discord user's does, so the fair order counts it as a person. Its
jobs name no server and no channel, and end when their picture is on the disk. Knows no Discord and no web page.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bot.background import Tasks, patiently
from bot.errors import NotAllowed
from bot.language import Message, msg
from bot.queue.dispatcher import Dispatcher
from bot.queue.drawing import Outcomes
from bot.queue.job import Job, JobStatus, NewJob, Place
from bot.queue.job_queue import JobQueue
from bot.settings import Settings
from gen.errors import InvalidRequest
from gen.lora_index import list_loras
from gen.request import SEED_MAX, ImageRequest, LoraUse, ModelProfile, StepReport

CONSOLE = 0  # stands for server and channel of a console's job: no snowflake is 0
NUMBER_MAX = 2**40  # of a console; Discord's ids of people are all larger
RANDOM_SEED = -1
FIELDS = ("prompt", "seed", "size", "steps", "guidance")  # of a page's form; and "lora" with its "strength"
LOOK_SECONDS = 1.0  # at the latest; others' jobs move a place without a word
ACTIVE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.HELD})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A job at one moment."""

    job: Job
    place: Place | None  # while it waits
    report: StepReport | None  # while it is drawn


class ByOrigin:
    """Tells what becomes of a job to where it came from."""

    def __init__(self, *, console: Outcomes, discord: Outcomes) -> None:
        self._console, self._discord = console, discord

    def _of(self, job: Job) -> Outcomes:
        return self._console if job.guild_id == CONSOLE else self._discord

    def started(self, job: Job) -> None:
        self._of(job).started(job)

    def progress(self, job: Job, report: StepReport) -> None:
        self._of(job).progress(job, report)

    def drawn(self, job: Job) -> None:
        self._of(job).drawn(job)

    def failed(self, job: Job) -> None:
        self._of(job).failed(job)

    def cancelled(self, job: Job) -> None:
        self._of(job).cancelled(job)

    def requeued(self, job: Job) -> None:
        self._of(job).requeued(job)


class Console:
    """All consoles of one Kiln. Lives on the event loop."""

    def __init__(
        self, *, queue: JobQueue, profile: ModelProfile, settings: Settings, choose_seed: Callable[[], int]
    ) -> None:
        """`choose_seed` gives 0 to SEED_MAX."""
        self.profile = profile
        self.refused: Callable[[Exception], None] = lambda _: None
        self._queue, self._settings, self._choose_seed = queue, settings, choose_seed
        self._dispatcher: Dispatcher | None = None
        self._tasks = Tasks()
        self._reports: dict[int, StepReport] = {}
        self._watchers: dict[int, set[asyncio.Event]] = {}

    def connect(self, dispatcher: Dispatcher, *, refused: Callable[[Exception], None]) -> None:
        """Wake and stop it from now on; `refused` hears what somebody asked for and did not get, on any thread."""
        self._dispatcher, self.refused = dispatcher, refused

    async def settle(self) -> None:
        """At start: what an earlier process drew for a console needs no posting, and its ends no telling."""
        for job in (*await self._queue.undelivered(), *await self._queue.unshown()):
            if job.guild_id == CONSOLE:
                await self._close(job)

    async def aclose(self) -> None:
        """Stop what is under way; what is not closed is closed at the next start."""
        await self._tasks.aclose()

    # What a page asks

    async def ask(self, number: int, request: ImageRequest, *, locale: str | None = None) -> Job:
        """Accept a job of console `number`; raise what JobQueue.submit raises."""
        new = NewJob(
            interaction_id=-1 - secrets.randbits(62),  # below every interaction of Discord's
            user_id=number,
            guild_id=CONSOLE,
            channel_id=CONSOLE,
            request=request,
            locale=locale,
        )
        job = await self._queue.submit(new)
        if self._dispatcher is not None:
            self._dispatcher.wake()
        return job

    async def next_active(self, number: int) -> Job | None:
        """The job of a console that is drawn, else the next in line, else one that is held, else None."""
        active = [job for job in await self._queue.active_jobs(number) if job.guild_id == CONSOLE]
        order = (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.HELD)
        return next((job for status in order for job in active if job.status is status), None)

    async def follow(self, job_id: int) -> AsyncGenerator[Look, None]:
        """Looks at a job whenever it moves, the last when it is over."""
        changed = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(changed)
        try:
            while (job := await self._queue.job(job_id)) is not None:
                place = await self._queue.place(job_id) if job.status is JobStatus.QUEUED else None
                yield Look(job=job, place=place, report=self._reports.get(job_id))
                if job.status not in ACTIVE:
                    return
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await changed.wait()
        finally:
            self._watchers[job_id].discard(changed)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    async def cancel(self, job_id: int, *, number: int) -> Job:
        """Take a console's job back; raise NotAllowed or Refusal as JobQueue.cancel does."""
        job = await self._queue.cancel(job_id, user_id=number)
        if job.guild_id != CONSOLE:
            raise NotAllowed(msg("You have no job {number}."), number=job_id)
        if job.status is JobStatus.RUNNING and self._dispatcher is not None:
            self._dispatcher.cancel(job_id)
        elif job.status is JobStatus.CANCELLED:
            self.cancelled(job)
        return job

    async def pictures(self, number: int, *, limit: int) -> tuple[Job, ...]:
        """The last so many jobs of a console that have a picture, the newest first."""
        return await self._queue.drawn_for(number, guild_id=CONSOLE, limit=limit)

    async def picture(self, job: Job) -> bytes | None:
        """The PNG of a drawn job; None if its file is gone."""
        if job.picture is None:
            return None
        try:
            return await asyncio.to_thread((self._settings.data / job.picture).read_bytes)
        except OSError as error:
            _log.warning("job %d: its picture cannot be read: %s", job.id, error)
            return None

    # Outcomes: each returns at once

    def started(self, job: Job) -> None:
        """The GPU has taken the job."""
        self._changed(job.id)

    def progress(self, job: Job, report: StepReport) -> None:
        """One more step is done."""
        self._reports[job.id] = report
        self._changed(job.id)

    def drawn(self, job: Job) -> None:
        """The picture is on disk: that is where a console finds it."""
        self._over(job)

    def failed(self, job: Job) -> None:
        """It could not be drawn, or was set aside."""
        self._over(job)

    def cancelled(self, job: Job) -> None:
        """Its console took it back."""
        self._over(job)

    def requeued(self, job: Job) -> None:
        """It waits again, at its old place."""
        self._reports.pop(job.id, None)
        self._changed(job.id)

    def _over(self, job: Job) -> None:
        self._reports.pop(job.id, None)
        self._changed(job.id)
        self._tasks.spawn(self._close(job), name=f"end of job {job.id}")

    async def _close(self, job: Job) -> None:
        if job.status is JobStatus.DRAWN:
            await patiently(partial(self._queue.record_delivered, job.id, message_id=CONSOLE))
        await patiently(partial(self._queue.record_shown, job.id))
        self._changed(job.id)

    def _changed(self, job_id: int) -> None:
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()

    def loras(self) -> list[str]:
        """Names of the LoRAs that lie in their folder now; blocking."""
        return list_loras(self._settings.lora_folder)

    def read_form(self, form: Mapping[str, Any]) -> ImageRequest:
        """What a page sent, as a request; raise InvalidRequest naming the limit and the value. Blocking."""
        prompt, seed, size, steps, guidance = (form.get(name) for name in FIELDS)
        chosen = _whole(msg("seed"), seed)
        if chosen != RANDOM_SEED and not 0 <= chosen <= SEED_MAX:
            raise InvalidRequest(
                msg("The seed must be from 0 to {most:,}, or -1 for one by chance; it is {value:,}."),
                most=SEED_MAX,
                value=chosen,
            )
        request = self.profile.request(
            prompt if isinstance(prompt, str) else "",
            seed=self._choose_seed() if chosen == RANDOM_SEED else chosen,
            size=size if isinstance(size, str) else "",
            steps=_whole(msg("steps"), steps),
            guidance=float(_number(msg("guidance"), guidance)),
        )
        return replace(request, loras=self._loras(form.get("lora"), form.get("strength")))

    def _loras(self, name: Any, strength: Any) -> tuple[LoraUse, ...]:
        if not name:
            return ()
        if name not in self.loras():
            raise InvalidRequest(msg("There is no LoRA named {name!r}."), name=str(name)[:80])
        return (LoraUse(name=name, strength=_number(Message(msg("strength of {lora}"), lora=name), strength)),)


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise InvalidRequest(msg("The {name} must be a whole number; it is {value}."), name=Message(name), value=number)
    return int(number)


def _number(name: str | Message, value: Any) -> float:
    """A finite number; a page may send anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        shown = "empty" if value is None else str(value)[:40]
        told = Message(name) if isinstance(name, str) else name
        raise InvalidRequest(msg("The {name} must be a number; it is {value}."), name=told, value=shown)
    return float(value) if isinstance(value, float) else value


def is_number(value: Any) -> bool:
    """Whether a browser's memory of its console's number can be one."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < NUMBER_MAX


def new_number() -> int:
    """A number for a console that is new here; who knows it sees its history, so it cannot be guessed."""
    return 1 + secrets.randbelow(NUMBER_MAX - 1)
