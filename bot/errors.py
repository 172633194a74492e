"""What the bot will not do, in words for people, and why it cannot start, in words for operators.

Refusal                    will not do; str() is shown to the person as it is
├─ QueueFull               too many of their jobs wait already; says when the first is ready
├─ RateLimited             too many pictures in a short time; says when to come back
├─ BudgetSpent             no GPU time left for them today; says when the next day begins
├─ NotAllowed              somebody else's job, or none
└─ QueueUnavailable        the database takes nothing right now; nothing was stored
StartError                 start is impossible; str() is one line for the operator
"""

from __future__ import annotations

from datetime import datetime


class Refusal(Exception):
    """Kiln will not do it; `str()` is shown as it is."""


class QueueFull(Refusal):
    """As many jobs of this person wait as may; by `retry_at`, if that is known, one of them has left the queue."""

    def __init__(self, *, waiting: int, allowed: int, retry_at: datetime | None = None) -> None:
        """`retry_at` is aware UTC; the text shows it as a Discord timestamp."""
        self.waiting, self.allowed, self.retry_at = waiting, allowed, retry_at
        when = "" if retry_at is None else f", the first is ready <t:{_up(retry_at)}:R>"
        super().__init__(
            f"{waiting} of your jobs wait already, and {allowed} may. Wait for one{when}, or cancel one with /cancel."
        )


class RateLimited(Refusal):
    """This person asks faster than allowed; they may come back at `retry_at`."""

    def __init__(self, *, pictures_per_hour: int, retry_at: datetime) -> None:
        """`retry_at` is aware UTC; the text shows it as a Discord timestamp."""
        self.retry_at = retry_at
        super().__init__(
            f"That is a lot of pictures: {pictures_per_hour} an hour are yours here. "
            f"You can ask again <t:{_up(retry_at)}:R>."
        )


class BudgetSpent(Refusal):
    """This person's GPU time of the day does not suffice for the picture."""

    def __init__(self, *, used: float, estimate: float, per_day: float, retry_at: datetime) -> None:
        """GPU-seconds; `retry_at` is aware UTC, when the next day begins."""
        self.retry_at = retry_at
        needs = f"This picture needs about {estimate:.0f} s of the GPU"
        if estimate > per_day:
            super().__init__(f"{needs}, and {per_day:g} s a day are yours here. Please ask for fewer steps or pixels.")
        else:
            super().__init__(
                f"{needs}, and {max(0.0, per_day - used):.0f} s of your {per_day:g} s of today are left. "
                f"You have all of them again <t:{retry_at.timestamp():.0f}:R>."
            )


class NotAllowed(Refusal):
    """The job is somebody else's, or there is none."""


class QueueUnavailable(Refusal):
    """The database could not be read or written (locked for long, disk full); nothing was stored.

    The operator finds the cause in the log.
    """

    def __init__(self) -> None:
        super().__init__("Kiln cannot reach its queue right now. Nothing was changed; please try again in a minute.")


class StartError(Exception):
    """Start is impossible; `str()` is one readable line that says what to do."""


def _up(moment: datetime) -> int:
    """Unix seconds, rounded up: coming back then must work."""
    return -int(-moment.timestamp() // 1)
