"""From the dispatcher's outcomes to Discord: cards that move, pictures that arrive, each in tasks of its own.

Every method of `Outcomes` returns at once, so a slow Discord never holds the GPU. Only ids are kept and only the bot's
token is used, so it works long after the command's own token has died, and after a restart. Before `connect`, when
Discord is not there yet, outcomes are remembered. How one picture is posted exactly once is `bot.posting`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import discord

from bot.cards import author_only, card, failure_words, message_link
from bot.errors import QueueUnavailable
from bot.job import Job, JobStatus
from bot.job_queue import JobQueue
from bot.posting import UNREACHABLE, Posted, Poster, Undeliverable, backoff, nonce
from gen.request import StepReport

EDIT_EVERY = timedelta(seconds=3)  # a card, at most
LAST_EDIT_TRIES = 4
REFUSED = frozenset({401, 403, 404})  # asking again brings the address a ban, not the card
GRACE = timedelta(seconds=1)  # for what is under way when the process stops

OVER = frozenset({JobStatus.DELIVERED, JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.QUARANTINED})

_T = TypeVar("_T")
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Card:
    """What one card should show next. The task that edits it lives while there is something to show."""

    job: Job
    report: StepReport | None = None
    link: str | None = None
    message_id: int | None = None
    changed: bool = True
    waited_for_card: bool = False  # its message did not come in time
    gone: bool = False  # Discord refused an edit; it is never asked again
    pause: asyncio.Task[None] | None = None  # between two edits; cancelled when the job leaves the GPU
    task: asyncio.Task[None] | None = None


class Delivery:
    """Shows jobs in Discord. One for the process."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        data: Path,
        edit_every: timedelta = EDIT_EVERY,
        make_poster: Callable[[discord.Client], Poster] = Poster,
    ) -> None:
        self._queue = queue
        self._data = data
        self._edit_every = edit_every
        self._make_poster = make_poster
        self._client: discord.Client | None = None
        self._poster: Poster | None = None
        self._closing = False
        self._cards: dict[int, _Card] = {}
        self._posting: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self, client: discord.Client) -> None:
        """Begin to talk to Discord through a client that is logged in: what waited so far, and what was not posted."""
        self._client = client
        self._poster = self._make_poster(client)
        for shown in self._cards.values():
            self._start_editing(shown)
        self._spawn(self._post_undelivered(), name="undelivered")

    async def aclose(self) -> None:
        """Give what is under way a second, then stop; what was not posted is found at the next start."""
        self._closing = True
        for shown in self._cards.values():
            if shown.pause is not None:
                shown.pause.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE.total_seconds())
        self._client = self._poster = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Outcomes: each returns at once

    def started(self, job: Job) -> None:
        """The GPU has taken the job."""
        self._show(job)

    def progress(self, job: Job, report: StepReport) -> None:
        """One more step is done; shown with the next edit."""
        self._show(job, report=report)

    def drawn(self, job: Job) -> None:
        """The picture is on disk and the row says so."""
        self._deliver(job, look_first=False)

    def failed(self, job: Job) -> None:
        """It could not be drawn, or was set aside; the job says why."""
        self._show(job)

    def cancelled(self, job: Job) -> None:
        """Its owner took it back."""
        self._show(job)

    def requeued(self, job: Job) -> None:
        """It waits again, at its old place."""
        self._show(job)

    def card_shown(self, job_id: int, *, message_id: int) -> None:
        """The job's card was sent; what happened meanwhile is shown on it."""
        shown = self._cards.get(job_id)
        if shown is not None:
            shown.message_id = message_id
            shown.changed = True
            self._start_editing(shown)

    # Cards

    def _show(self, job: Job, *, report: StepReport | None = None, link: str | None = None) -> None:
        shown = self._cards.setdefault(job.id, _Card(job=job))
        shown.job, shown.report, shown.link, shown.changed = job, report, link, True
        if job.status is not JobStatus.RUNNING and shown.pause is not None:
            shown.pause.cancel()
        self._start_editing(shown)

    def _start_editing(self, shown: _Card) -> None:
        if self._client is not None and (shown.task is None or shown.task.done()):
            shown.task = self._spawn(self._keep_current(shown), name=f"card of job {shown.job.id}")

    async def _keep_current(self, shown: _Card) -> None:
        """Edit the card until it shows the last that is known, at most once in `edit_every`."""
        while shown.changed:
            over = shown.job.status in OVER
            if shown.gone:
                shown.changed = False
                await self._tell_failure(shown.job)
            elif await self._has_card(shown):
                shown.changed = False
                await self._edit(shown, tries=LAST_EDIT_TRIES if over else 1)
            elif over and shown.waited_for_card:
                await self._tell_failure(shown.job)
            elif over:
                shown.waited_for_card = True
                await asyncio.sleep(self._edit_every.total_seconds())
                continue
            else:
                return  # `card_shown` begins again
            if over:
                self._cards.pop(shown.job.id, None)
                return
            await self._pause(shown)

    async def _pause(self, shown: _Card) -> None:
        """Wait out the time between two edits of a running job, or until it runs no more."""
        if shown.job.status is not JobStatus.RUNNING or self._closing:
            return
        shown.pause = asyncio.create_task(asyncio.sleep(self._edit_every.total_seconds()))
        try:
            await asyncio.wait({shown.pause})
        finally:
            shown.pause.cancel()

    async def _has_card(self, shown: _Card) -> bool:
        """Find the card's message; there is none while the command is still answering."""
        if shown.message_id is None:
            shown.message_id = shown.job.card_message_id
        if shown.message_id is None:
            known = await self._patiently(lambda: self._queue.job(shown.job.id))
            if known is not None and known.card_message_id is not None:
                shown.message_id = known.card_message_id
        return shown.message_id is not None

    async def _edit(self, shown: _Card, *, tries: int) -> None:
        """Edit by the bot's token. A card that is gone is left alone; a failure is told by a message instead."""
        pauses = backoff()
        for left in reversed(range(tries)):
            try:
                await self._edit_once(shown)
                return
            except (*UNREACHABLE, QueueUnavailable) as error:
                if isinstance(error, discord.HTTPException) and error.status in REFUSED:
                    log.info("job %d: its card is gone (%s)", shown.job.id, error)
                    shown.gone = True
                    await self._tell_failure(shown.job)
                    return
                log.info("job %d: its card was not edited (%s)", shown.job.id, error)
            if left:
                await asyncio.sleep(next(pauses))

    async def _edit_once(self, shown: _Card) -> None:
        if self._client is None or shown.message_id is None:
            return
        job = shown.job
        place = await self._queue.place(job.id) if job.status is JobStatus.QUEUED else None
        channel = self._client.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        await channel.get_partial_message(shown.message_id).edit(
            view=card(job, place=place, report=shown.report, link=shown.link),
            allowed_mentions=discord.AllowedMentions.none(),
        )

    async def _tell_failure(self, job: Job) -> None:
        if job.status not in (JobStatus.FAILED, JobStatus.QUARANTINED) or self._client is None:
            return
        channel = self._client.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        try:
            await channel.send(failure_words(job), allowed_mentions=author_only(job), nonce=nonce(job, mark="!"))
        except UNREACHABLE as error:
            log.warning("job %d: its failure could not be told: %s", job.id, error)

    # Pictures

    async def _post_undelivered(self) -> None:
        """Post what an earlier process drew; it may have posted some of it."""
        for job in await self._patiently(self._queue.undelivered):
            self._deliver(job, look_first=True)

    def _deliver(self, job: Job, *, look_first: bool) -> None:
        if self._poster is None or job.id in self._posting:
            return  # not connected: `connect` finds it in the database
        self._posting.add(job.id)
        self._spawn(self._post(self._poster, job.id, look_first=look_first), name=f"picture of job {job.id}")

    async def _post(self, poster: Poster, job_id: int, *, look_first: bool) -> None:
        """Bring one drawn job to its channel and record it; what cannot be posted stays drawn."""
        try:
            job = await self._patiently(lambda: self._queue.job(job_id))
            if job is not None and job.status is JobStatus.DRAWN and job.picture is not None:
                await self._bring(poster, job, picture=self._data / job.picture, look_first=look_first)
        finally:
            self._posting.discard(job_id)

    async def _bring(self, poster: Poster, job: Job, *, picture: Path, look_first: bool) -> None:
        try:
            png = await asyncio.to_thread(picture.read_bytes)
            posted = await poster.post(job, png=png, look_first=look_first)
        except Undeliverable as error:
            self._keep(job, error, reason=str(error))
        except OSError as error:
            self._keep(job, error, reason=f"the picture is drawn, but its file cannot be read ({error.strerror})")
        else:
            await self._patiently(lambda: self._queue.record_delivered(job.id, message_id=posted.message_id))
            self._close_card(job, posted)

    def _keep(self, job: Job, error: Exception, *, reason: str) -> None:
        """Leave the row drawn and the file on disk: the next start tries again; tell the log and the card why."""
        log.error("job %d stays undelivered: %s", job.id, reason, exc_info=error)
        self._show(replace(job, reason=f"{reason[:1].upper()}{reason[1:]}."))

    def _close_card(self, job: Job, posted: Posted) -> None:
        delivered = replace(job, status=JobStatus.DELIVERED, result_message_id=posted.message_id)
        guild = job.guild_id if posted.channel_id == job.channel_id else None
        self._show(delivered, link=message_link(guild, posted.channel_id, posted.message_id))

    async def _patiently(self, ask: Callable[[], Coroutine[object, object, _T]]) -> _T:
        """Ask the queue until it answers: a full or locked database must not cost a picture."""
        for pause in backoff():
            try:
                return await ask()
            except QueueUnavailable:
                await asyncio.sleep(pause)
        raise AssertionError("backoff is endless")

    # Tasks

    def _spawn(self, work: Coroutine[object, object, None], *, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._logged(work, name=name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _logged(self, work: Coroutine[object, object, None], *, name: str) -> None:
        try:
            await work
        except Exception:
            log.exception("%s: stopped by an error", name)
