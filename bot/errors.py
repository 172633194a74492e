"""What the bot will not do, in words for people, and why it cannot start, in words for operators.

Refusal                    will not do; the person is shown it, in their language
├─ QueueFull               too many of their jobs wait already; says when the first is ready
├─ RateLimited             too many pictures in a short time; says when to come back
├─ BudgetSpent             no GPU time left for them today; says when the next day begins
├─ ServerBudgetSpent       the same for all people in the server together
├─ NotAllowed              somebody else's job, or none; more than the server allows
│  ├─ Banned               kept out by a moderator or the host; says why and until when
│  └─ WrongChannel         the server has chosen other channels
├─ PromptRefused           a rule refuses the words; names them
└─ QueueUnavailable        the database takes nothing right now; nothing was stored
StartError                 start is impossible; str() is one line for the operator
"""

from __future__ import annotations

from datetime import datetime

from bot.language import Message, Worded, msg
from bot.quoting import ago, at, from_then


class Refusal(Worded):
    """Kiln will not do it: `Refusal(msg("… {limit} …"), limit=3)`."""


class QueueFull(Refusal):
    """As many jobs of this person wait as may; by `retry_at`, if that is known, one of them has left the queue."""

    def __init__(self, *, waiting: int, allowed: int, retry_at: datetime | None = None) -> None:
        """`retry_at` is aware UTC; the text shows it as a Discord timestamp."""
        self.waiting, self.allowed, self.retry_at = waiting, allowed, retry_at
        if retry_at is None:
            super().__init__(
                msg(
                    "{waiting} of your jobs wait already, and {allowed} may. Wait for one, or cancel one with /cancel."
                ),
                waiting=waiting,
                allowed=allowed,
            )
        else:
            super().__init__(
                msg(
                    "{waiting} of your jobs wait already, and {allowed} may. Wait for one, the first is ready {when}, "
                    "or cancel one with /cancel."
                ),
                waiting=waiting,
                allowed=allowed,
                when=ago(retry_at),
            )


class RateLimited(Refusal):
    """This person asks faster than allowed; they may come back at `retry_at`."""

    def __init__(self, *, pictures_per_hour: int, retry_at: datetime) -> None:
        """`retry_at` is aware UTC; the text shows it as a Discord timestamp."""
        self.retry_at = retry_at
        super().__init__(
            msg("That is a lot of pictures: {number} an hour are yours here. You can ask again from {when} on."),
            number=pictures_per_hour,
            when=from_then(retry_at),
        )


class BudgetSpent(Refusal):
    """This person's GPU time of the day does not suffice for the picture."""

    def __init__(self, *, used: float, estimate: float, per_day: float, retry_at: datetime) -> None:
        """GPU-seconds; `retry_at` is aware UTC, when the next day begins."""
        self.retry_at = retry_at
        if estimate > per_day:
            super().__init__(
                msg(
                    "This picture needs about {needed:.0f} s of the GPU, and {per_day:g} s a day are yours here. "
                    "Please ask for fewer steps or pixels."
                ),
                needed=estimate,
                per_day=per_day,
            )
        else:
            super().__init__(
                msg(
                    "This picture needs about {needed:.0f} s of the GPU, and {left:.0f} s of your {per_day:g} s of "
                    "today are left. You have all of them again from {when} on."
                ),
                needed=estimate,
                left=max(0.0, per_day - used),
                per_day=per_day,
                when=from_then(retry_at),
            )


class ServerBudgetSpent(Refusal):
    """The GPU time of the day of all people in a server does not suffice for the picture."""

    def __init__(self, *, used: float, estimate: float, per_day: float, retry_at: datetime) -> None:
        """As in BudgetSpent."""
        self.retry_at = retry_at
        super().__init__(
            msg(
                "This picture needs about {needed:.0f} s of the GPU, and {left:.0f} s of the {per_day:g} s a day that "
                "this server has are left. It has all of them again from {when} on."
            ),
            needed=estimate,
            left=max(0.0, per_day - used),
            per_day=per_day,
            when=from_then(retry_at),
        )


class NotAllowed(Refusal):
    """The job is somebody else's, or there is none."""


class Banned(NotAllowed):
    """A moderator, or the host (`everywhere`), keeps this person out."""

    def __init__(self, *, everywhere: bool, reason: str, until: datetime | None) -> None:
        """`until` is aware UTC; None: until it is lifted. `reason` is quoted already."""
        where = Message(msg("everywhere") if everywhere else msg("in this server"))
        if until is None:
            super().__init__(msg("You may not use Kiln {where}. Reason: {reason}"), where=where, reason=reason)
        else:
            super().__init__(
                msg("You may not use Kiln {where} before {when}. Reason: {reason}"),
                where=where,
                when=at(until),
                reason=reason,
            )


class WrongChannel(NotAllowed):
    """The server has chosen channels for Kiln, and this is none of them."""

    def __init__(self, *, channel_ids: tuple[int, ...]) -> None:
        self.channel_ids = channel_ids
        shown = tuple(f"<#{channel_id}>" for channel_id in channel_ids)
        super().__init__(msg("In this server Kiln draws in other channels: {channels}."), channels=shown)


class PromptRefused(Refusal):
    """A rule refuses the words of the prompt."""


class QueueUnavailable(Refusal):
    """The database could not be read or written (locked for long, disk full); nothing was stored.

    The operator finds the cause in the log.
    """

    def __init__(self) -> None:
        super().__init__(
            msg("Kiln cannot reach its queue right now. Nothing was changed; please try again in a minute.")
        )


class StartError(Exception):
    """Start is impossible; `str()` is one readable line that says what to do."""
