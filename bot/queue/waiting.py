"""Keeps waiting cards true: when the queue moves, each card whose place changed is shown again, at a gentle pace.

A task that lives only while jobs wait and something moved them. It decides which card is due; its caller edits it.
Only the first in line are followed, because Discord takes one edit a second in a channel. Of jobs that share a card,
the first in line stands for all. Knows no Discord.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bot.background import Tasks, patiently
from bot.language import Message
from bot.queue.job import Job, Place
from bot.queue.job_queue import JobQueue

FOLLOWED = 50  # the first so many in line
AT_ONCE = 5  # edits under way together; the first in line go first
PATIENCE = 20  # a card is edited again after this many times `edit_every` at the soonest: with 3 s, a minute
WRONG_PART = 0.2  # of the time that a card named: it is corrected when it is wrong by more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What a card said when it was shown last."""

    position: int
    waiting: int
    ready_at: datetime
    at: datetime
    held: Message | None


class WaitingCards:
    """Shows the cards of waiting jobs anew while the line moves."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        tasks: Tasks,
        show: Callable[[Job], asyncio.Task[None] | None],
        edit_every: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`show` begins to edit a waiting job's card; None: there is nothing to edit. `now` is aware UTC."""
        self._queue, self._tasks, self._show, self._now = queue, tasks, show, now
        self._edit_every = edit_every
        self._shown: dict[int, _Shown] = {}  # by card
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def moved(self) -> None:
        """A job left the queue, or came back to it. Returns at once."""
        self._moved.set()
        if not self._closing and (self._task is None or self._task.done()):
            self._task = self._tasks.spawn(self._keep_true(), name="waiting cards")

    def close(self) -> None:
        """Begin no more edits."""
        self._closing = True
        self._moved.set()

    async def _keep_true(self) -> None:
        while not self._closing:
            self._moved.clear()
            line = _firsts(await patiently(lambda: self._queue.line(limit=FOLLOWED)))
            if not line:
                self._shown.clear()
                return
            waiting = {_card(job) for job, _ in line}
            self._shown = {card: shown for card, shown in self._shown.items() if card in waiting}
            now = self._now()
            due = [(job, place) for job, place in line if self._due(job, place, now=now) <= now][:AT_ONCE]
            await self._show_again(due, now=now)
            if not self._closing:
                await self._rest(min(self._due(job, place, now=now) for job, place in line))

    async def _show_again(self, due: list[tuple[Job, Place]], *, now: datetime) -> None:
        for job, place in due:
            self._shown[_card(job)] = _Shown(
                position=place.position, waiting=place.waiting, ready_at=place.ready_at, at=now, held=place.held
            )
        tasks = {task for job, _ in due if (task := self._show(job)) is not None}
        if tasks:
            await asyncio.wait(tasks)

    def _due(self, job: Job, place: Place, *, now: datetime) -> datetime:
        """When the card should be shown again if the place stays as it is."""
        shown = self._shown.get(_card(job))
        if now < (job.created_at if shown is None else shown.at):  # the clock was set back
            return now
        if shown is None:  # it says what held when it was sent
            return (
                now if place.position == 1 or place.held is not None else job.created_at + PATIENCE * self._edit_every
            )
        if shown.held != place.held:
            return now
        again = shown.at + PATIENCE * self._edit_every
        said, moved = shown.ready_at - shown.at, abs(place.ready_at - shown.ready_at)
        if (place.position, place.waiting) != (shown.position, shown.waiting) or moved > WRONG_PART * said:
            return again
        return max(shown.ready_at, again)

    async def _rest(self, until: datetime) -> None:
        seconds = (until - self._now()).total_seconds()
        if seconds > 0:
            waking = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait({waking}, timeout=seconds)
            finally:
                waking.cancel()


def _card(job: Job) -> int:
    """What stands for the job's card. A message's id is larger than any job's."""
    return job.card_message_id or job.id


def _firsts(line: Sequence[tuple[Job, Place]]) -> list[tuple[Job, Place]]:
    """The first job in line of each card."""
    firsts: dict[int, tuple[Job, Place]] = {}
    for job, place in line:
        firsts.setdefault(_card(job), (job, place))
    return list(firsts.values())
