"""Cards that move: each is edited until it shows the last that is known, by a task of its own.

What became of a job in the end is told for certain: the row remembers whether its card, or a message in its place,
said so, and the next start takes up what is left. Only ids are kept. Knows no picture.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from weakref import WeakValueDictionary

import discord

from bot.background import Tasks, backoff, patiently
from bot.cards.batch_card import Shown, batch_card
from bot.cards.buttons import failure_view
from bot.cards.captions import picture_link
from bot.cards.job_card import author_only, card, failure_words, preview_files
from bot.delivery.posting import UNREACHABLE
from bot.delivery.whispers import Whispers
from bot.errors import QueueUnavailable
from bot.language import say_to_owner
from bot.queue.job import Job, JobStatus
from bot.queue.job_queue import JobQueue
from bot.queue.outbox import nonce
from bot.queue.waiting import WaitingCards
from gen.request import StepReport

CARD_COMES_WITHIN = timedelta(minutes=15)  # then the command's token is dead, and no card can come of it
LAST_EDIT_TRIES = 8  # about four minutes; then the next start tries again
PASSING = frozenset({408, 429})  # of the 4xx; asking again for the others brings the address a ban, not the card

OVER = frozenset(JobStatus) - {JobStatus.HELD, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.DRAWN}

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Card:
    """What one card should show next. The task that edits it lives while there is something to show."""

    job: Job
    report: StepReport | None = None
    link: str | None = None
    parent: Job | None = None  # the job that this one was made from
    message_id: int | None = None
    changed: bool = True
    waited_for_card: bool = False  # its message did not come in time
    gone: bool = False  # Discord refused an edit; it is never asked again
    pause: asyncio.Task[None] | None = None  # between two edits; cancelled when the job leaves the GPU
    task: asyncio.Task[None] | None = None


class Showing:
    """All cards of the process."""

    def __init__(self, *, queue: JobQueue, tasks: Tasks, edit_every: timedelta, whispers: Whispers) -> None:
        """A running job's card is edited once in `edit_every` at most."""
        self._whispers = whispers
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # by message
        self._queue, self._tasks, self._edit_every = queue, tasks, edit_every
        self._client: discord.Client | None = None
        self._closing = False
        self._cards: dict[int, _Card] = {}
        self._messages: dict[int, int] = {}  # by job id: cards that were sent, until the job is over
        self._waiting = WaitingCards(queue=queue, tasks=tasks, show=self._show_waiting, edit_every=edit_every)

    def connect(self, client: discord.Client) -> None:
        """Begin to edit: what waited so far, ends that an earlier process did not show, and whoever waits."""
        self._client = client
        for shown in self._cards.values():
            self._start_editing(shown)
        self._tasks.spawn(self._show_ends(), name="ends to show")
        self._waiting.moved()

    def close(self) -> None:
        """Let what is under way end soon."""
        self._closing = True
        self._waiting.close()
        for shown in self._cards.values():
            if shown.pause is not None:
                shown.pause.cancel()

    def disconnect(self) -> None:
        """Talk to Discord no more."""
        self._client = None

    def show(self, job: Job, *, report: StepReport | None = None, link: str | None = None) -> None:
        """Bring the job's card to this, soon; returns at once."""
        shown = self._cards.setdefault(job.id, _Card(job=job))
        shown.job, shown.report, shown.link, shown.changed = job, report, link, True
        if job.status is not JobStatus.RUNNING and shown.pause is not None:
            shown.pause.cancel()
        self._start_editing(shown)
        if report is None and self._client is not None:
            self._waiting.moved()

    def refresh(self) -> None:
        """Look at all waiting cards again."""
        if self._client is not None:
            self._waiting.moved()

    def card_sent(self, job_id: int, *, message_id: int) -> None:
        """The job's card is this message; what happened meanwhile is shown on it."""
        self._messages[job_id] = message_id
        shown = self._cards.get(job_id)
        if shown is not None:
            shown.changed = True
            self._start_editing(shown)

    def _show_waiting(self, job: Job) -> asyncio.Task[None] | None:
        """Edit a waiting job's card to its place of now; `job` may be older than what its card knows."""
        shown = self._cards.setdefault(job.id, _Card(job=job))
        if shown.gone or shown.job.status is not JobStatus.QUEUED:
            return None
        shown.changed = True
        self._start_editing(shown)
        return shown.task

    async def _show_ends(self) -> None:
        for job in await patiently(self._queue.unshown):
            if job.id not in self._cards:
                self._cards[job.id] = _Card(job=job, waited_for_card=True)
                self.show(job, link=picture_link(job))

    def _start_editing(self, shown: _Card) -> None:
        if self._client is not None and (shown.task is None or shown.task.done()):
            shown.task = self._tasks.spawn(self._keep_current(shown), name=f"card of job {shown.job.id}")

    async def _keep_current(self, shown: _Card) -> None:
        """Edit the card until it shows the last that is known, a running job's at most once in `edit_every`."""
        while shown.changed:
            if not await self._has_card(shown):
                if shown.job.status not in OVER:
                    return  # `card_sent` begins again
                if not shown.waited_for_card:
                    shown.waited_for_card = True
                    await asyncio.sleep(self._edit_every.total_seconds())
                    continue
            shown.changed = False
            if shown.job.status in OVER:
                await self._end(shown)
                return
            await self._tell(shown, tries=1)
            await self._pause(shown)

    async def _end(self, shown: _Card) -> None:
        """Show the end of the job for certain, and note it; what Discord does not answer is left to the next start."""
        job = shown.job
        if await self._tell(shown, tries=LAST_EDIT_TRIES):
            await patiently(lambda: self._queue.record_shown(job.id))
        else:
            log.warning("job %d: its end (%s) is not shown; the next start tries again", job.id, job.status)
        if shown.message_id is not None:
            self._forget(job.id)
        else:  # the answer may still be on its way
            asyncio.get_running_loop().call_later(CARD_COMES_WITHIN.total_seconds(), self._forget, job.id)

    def _forget(self, job_id: int) -> None:
        self._cards.pop(job_id, None)
        self._messages.pop(job_id, None)

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
        job_id = shown.job.id
        shown.message_id = shown.message_id or self._messages.get(job_id) or shown.job.card_message_id
        if shown.message_id is None:
            known = await patiently(lambda: self._queue.job(job_id))
            shown.message_id = self._messages.get(job_id) or (known.card_message_id if known else None)
        return shown.message_id is not None

    async def _tell(self, shown: _Card, *, tries: int) -> bool:
        """Edit the card by the bot's token; a failure is told by a message if the card is gone.

        False: Discord did not answer. What it refuses for good counts as told.
        """
        for left, pause in zip(reversed(range(tries)), islice(backoff(), tries), strict=True):
            by_card = shown.message_id is not None and not shown.gone
            try:
                await (self._edit(shown) if by_card else self._tell_failure(shown.job))
                return True
            except (*UNREACHABLE, QueueUnavailable) as error:
                refused = _is_refusal(error)
                if refused and not by_card:
                    log.warning("job %d: its failure could not be told: %s", shown.job.id, error)
                    return True
                shown.gone |= refused
                log.info("job %d: its card %s (%s)", shown.job.id, "is gone" if refused else "was not edited", error)
            if left and not refused:
                await asyncio.sleep(pause)
        return False

    async def _edit(self, shown: _Card) -> None:
        client, job = self._connected(), shown.job
        assert shown.message_id is not None
        async with self._locks.setdefault(shown.message_id, asyncio.Lock()):  # jobs may share a card
            made = await self._view(shown)
            if made is None:
                return  # it moved on meanwhile; the next edit says how
            view, files = made
            if job.private:
                whisper = self._whispers.of(job)
                await (whisper.edit(view, files) if whisper else self._tell_failure(job))
                return
            channel = client.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
            await channel.get_partial_message(shown.message_id).edit(
                view=view, attachments=files, allowed_mentions=discord.AllowedMentions.none()
            )

    async def _view(self, shown: _Card) -> tuple[discord.ui.LayoutView, list[discord.File]] | None:
        """The card as it should be now, and the files that it shows."""
        job = shown.job
        if job.count > 1:
            return await self._batch_view(job)
        place = await self._queue.place(job.id) if job.status is JobStatus.QUEUED else None
        if job.status is JobStatus.QUEUED and (place is None or place.position == 0 or job is not shown.job):
            return None
        if job.parent_id is not None and shown.parent is None:
            shown.parent = await self._queue.job(job.parent_id)
        view = card(say_to_owner(job), job, place=place, report=shown.report, link=shown.link, parent=shown.parent)
        return view, preview_files(shown.report)

    async def _batch_view(self, job: Job) -> tuple[discord.ui.LayoutView, list[discord.File]]:
        """The card that the job shares with others, as the queue has them all now."""
        batch = []
        for one in await self._queue.batch(job):
            known, place = self._cards.get(one.id), None
            if one.status is JobStatus.QUEUED:
                place = await self._queue.place(one.id)
            report = known.report if known is not None and one.status is JobStatus.RUNNING else None
            batch.append(Shown(job=one, place=place, report=report, link=picture_link(one)))
        reports = [one.report for one in batch if one.report is not None][:1]
        return batch_card(say_to_owner(job), batch), preview_files(reports[0] if reports else None)

    async def _tell_failure(self, job: Job) -> None:
        by_others = job.status is JobStatus.CANCELLED and job.reason
        if job.status not in (JobStatus.FAILED, JobStatus.QUARANTINED) and not by_others:
            return
        client, say = self._connected(), say_to_owner(job)
        channel: discord.abc.Messageable = client.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        if job.private:
            channel = await client.create_dm(discord.Object(job.user_id))
        await channel.send(
            failure_words(say, job),
            view=discord.utils.MISSING if job.private else failure_view(say, job),  # a DM's buttons could ask nothing
            allowed_mentions=author_only(job),
            nonce=nonce(job.id, job.interaction_id, mark="!"),
        )

    def _connected(self) -> discord.Client:
        if self._client is None:
            raise ConnectionError("Kiln is closing")
        return self._client


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, discord.HTTPException) and 400 <= error.status < 500 and error.status not in PASSING
