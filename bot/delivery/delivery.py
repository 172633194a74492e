"""From the dispatcher's outcomes to Discord: cards that move, pictures that arrive, each in tasks of its own.

Every method of `Outcomes` returns at once, so a slow Discord never holds the GPU. Only ids are kept and only the bot's
token is used, so it works long after the command's own token has died, and after a restart. Before `connect`, when
Discord is not there yet, outcomes are remembered. Where a picture goes is the ladder's, how it is posted once is
posting's, how a card is kept true is showing's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import discord

from bot.background import Tasks, patiently
from bot.cards.captions import Origin
from bot.cards.comparing import compare
from bot.delivery.ladder import Ladder
from bot.delivery.looking import Looking
from bot.delivery.posting import LockedOut, Posted, Poster, Undeliverable, Unsure
from bot.delivery.showing import Showing
from bot.delivery.whispers import Whispers
from bot.language import Message, Worded, msg, say_to_owner
from bot.queue.job import Job, JobStatus, Verb
from bot.queue.job_queue import JobQueue
from bot.queue.outbox import Letter
from bot.quoting import message_link
from gen.request import StepReport

EDIT_EVERY = timedelta(seconds=3)  # a card, at most
GRACE = timedelta(seconds=1)  # for what is under way when the process stops

log = logging.getLogger(__name__)


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
        self._make_poster = make_poster
        self._ladder: Ladder | None = None
        self._tasks, self.whispers = Tasks(), Whispers()
        self._showing = Showing(queue=queue, tasks=self._tasks, edit_every=edit_every, whispers=self.whispers)
        self._posting: set[int] = set()
        self._wake: Callable[[], None] = lambda: None
        self._looking: Looking | None = None

    def look_with(self, looking: Looking) -> None:
        """Look at each picture before it is posted."""
        self._looking = looking

    def on_requeue(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever a job goes back to the queue from here."""
        self._wake = wake

    def connect(self, client: discord.Client) -> None:
        """Begin to talk to Discord through a client that is logged in: what waited so far, and what was not posted."""
        poster = self._make_poster(client)
        self._ladder = Ladder(client, poster=poster, outbox=self._queue.outbox, whispers=self.whispers)
        self._showing.connect(client)
        self._tasks.spawn(self._post_undelivered(), name="undelivered")

    async def aclose(self) -> None:
        """Give what is under way a second, then stop; what was not posted is found at the next start."""
        self._showing.close()
        await self._tasks.wait(at_most=GRACE)
        self._ladder = None
        self._showing.disconnect()
        await self._tasks.aclose()

    # Outcomes: each returns at once

    def started(self, job: Job) -> None:
        """The GPU has taken the job."""
        self._showing.show(job)

    def progress(self, job: Job, report: StepReport) -> None:
        """One more step is done; shown with the next edit, without its preview where pictures are looked at first."""
        if self._looking is not None and self._looking.looks:
            report = replace(report, preview=None)
        self._showing.show(job, report=report)

    def drawn(self, job: Job) -> None:
        """The picture is on disk and the row says so."""
        self._deliver(job.id)

    def failed(self, job: Job) -> None:
        """It could not be drawn, or was set aside; the job says why."""
        self._showing.show(job)

    def cancelled(self, job: Job) -> None:
        """Its owner took it back."""
        self._showing.show(job)

    def deleted(self, job: Job) -> None:
        """Its picture was taken away."""
        self._showing.show(job)

    def requeued(self, job: Job) -> None:
        """It waits again, at its old place."""
        self._showing.show(job)

    def holding_changed(self) -> None:
        """Whether anything is drawn at all has changed; cards that wait say so."""
        self._showing.refresh()

    def card_shown(self, job_id: int, *, message_id: int) -> None:
        """The job's card was sent; what happened meanwhile is shown on it."""
        self._showing.card_sent(job_id, message_id=message_id)

    # Pictures

    async def _post_undelivered(self) -> None:
        """Post what an earlier process drew; it may have posted some of it."""
        for letter in await patiently(self._queue.outbox.letters):
            self._deliver(letter.job.id)

    def _deliver(self, job_id: int) -> None:
        if self._ladder is None or job_id in self._posting:
            return  # not connected: `connect` finds it in the outbox
        self._posting.add(job_id)
        self._tasks.spawn(self._post(self._ladder, job_id), name=f"picture of job {job_id}")

    async def _post(self, ladder: Ladder, job_id: int) -> None:
        """Bring one drawn job to people and record it."""
        try:
            for letter in await patiently(lambda: self._queue.outbox.letters(job_id)):
                await self._bring(ladder, letter)
        finally:
            self._posting.discard(job_id)

    async def _bring(self, ladder: Ladder, letter: Letter) -> None:
        job, outbox = letter.job, self._queue.outbox
        png = await self._read(job)
        if png is None:
            return
        await asyncio.sleep(letter.pause(self._queue.now()))
        origin = await self._origin(job, png) or Origin()
        again = letter.tried_channel_id is not None
        if self._looking is not None and await self._looking.hides(job, png, again=again):
            origin = replace(origin, hidden=True)
        try:
            posted = await ladder.climb(letter, png=png, origin=origin)
        except LockedOut as error:
            text = msg("The picture is drawn, but Discord does not let me in ({error}).")
            self._wait(job, error, reason=Message(text, error=str(error)))
        except Undeliverable as error:
            await self._over(job, error, close=outbox.keep)
        except Unsure as error:
            await self._over(job, error, close=outbox.give_up)
        else:
            where = {"message_id": posted.message_id, "channel_id": posted.channel_id}
            await patiently(lambda: self._queue.record_delivered(job.id, **where))
            self._close_card(job, posted)

    async def _origin(self, job: Job, png: bytes) -> Origin | None:
        """What is told of the job that this one was made from."""
        if job.parent_id is None:
            return None
        parent_id = job.parent_id
        parent = await patiently(lambda: self._queue.job(parent_id))
        if job.verb is not Verb.REPRODUCE or parent is None:
            return Origin(parent=parent)
        first = self._data / (parent.picture or "gone")
        return Origin(parent=parent, compared=await asyncio.to_thread(compare, say_to_owner(job), first, png))

    async def _read(self, job: Job) -> bytes | None:
        """The picture's file; None: it is not there, and that is seen to."""
        assert job.picture is not None, f"job {job.id} is drawn without a picture"
        picture = self._data / job.picture
        try:
            return await asyncio.to_thread(picture.read_bytes)
        except FileNotFoundError:
            await self._draw_again(job, picture=picture)
        except OSError as error:
            text = msg("The picture is drawn, but its file cannot be read ({error}).")
            self._wait(job, error, reason=Message(text, error=error.strerror))
        return None

    async def _draw_again(self, job: Job, *, picture: Path) -> None:
        """The picture is lost, but its seed and settings are known. Once; a second time the job fails."""
        log.error("job %d: its picture %s is gone before it was posted", job.id, picture)
        changed = await patiently(lambda: self._queue.redraw(job.id))
        if changed is None:
            return
        if changed.status is JobStatus.QUEUED:
            self._wake()
        self._showing.show(changed)

    def _wait(self, job: Job, error: Exception, *, reason: Message) -> None:
        """Leave it in the outbox: the next start tries again; tell the log and the card why."""
        log.error("job %d stays undelivered: %s", job.id, reason, exc_info=error)
        self._showing.show(replace(job, reason=reason.told(say_to_owner(job))))

    async def _over(
        self, job: Job, error: Worded, *, close: Callable[..., Coroutine[object, object, Job | None]]
    ) -> None:
        """It reaches nobody, or nobody can tell: that is its end."""
        log.error("job %d stays undelivered: %s", job.id, error, exc_info=error)
        closed = await patiently(lambda: close(job.id, reason=error.told(say_to_owner(job))))
        if closed is not None:
            self._showing.show(closed)

    def _close_card(self, job: Job, posted: Posted) -> None:
        delivered = replace(job, status=JobStatus.DELIVERED, result_message_id=posted.message_id)
        in_server = posted.channel_id in (job.channel_id, job.parent_channel_id)
        link = message_link(job.guild_id if in_server else None, posted.channel_id, posted.message_id)
        whispered = job.private and in_server  # nothing links to that
        self._showing.show(delivered, link=None if whispered else link)
