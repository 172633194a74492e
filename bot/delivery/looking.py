"""A look at each picture before it is posted: what a classifier finds goes behind a spoiler, and the log channel hears.

The protocol that a classifier speaks; `gen.picture_classifier` is one. Where it breaks, the picture is hidden too: who
asked for a look wants none to pass unseen. Knows no Discord and no model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from bot.background import patiently
from bot.queue.job import Job
from bot.servers.audit import Audit
from bot.servers.server import Act, Entry

BROKEN = "?"  # the label of a look that failed

log = logging.getLogger(__name__)


class PictureClassifier(Protocol):
    """Tells what should not be seen unasked."""

    def found(self, png: bytes) -> str | None:
        """What it is, in a word; None: nothing. Blocking, on any thread; may raise."""
        ...


class Looking:
    """Looks at pictures in threads of their own, and notes what it finds."""

    def __init__(self, *, audit: Audit, noted: Callable[[], None]) -> None:
        """`noted` is called when the audit log has news. Without a classifier nothing is hidden."""
        self._audit, self._noted = audit, noted
        self._classifier: PictureClassifier | None = None

    def use(self, classifier: PictureClassifier | None) -> None:
        """Look with this one, from the next picture on."""
        self._classifier = classifier

    @property
    def looks(self) -> bool:
        """Whether pictures are looked at."""
        return self._classifier is not None

    async def hides(self, job: Job, png: bytes, *, again: bool) -> bool:
        """Whether the picture goes behind a spoiler; `again`: it was looked at before, and noted then."""
        if self._classifier is None:
            return False
        try:
            label = await asyncio.to_thread(self._classifier.found, png)
        except Exception:
            log.exception("job %d: its picture could not be looked at, so it is hidden", job.id)
            label = BROKEN
        if label is not None and not again:
            values = {"label": label}
            entry = Entry(act=Act.SEEN, guild_id=job.guild_id, user_id=job.user_id, job_id=job.id, values=values)
            await patiently(lambda: self._audit.note(entry, now=job.finished_at or job.created_at))
            self._noted()
        return label is not None
