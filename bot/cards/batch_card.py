"""The one card of several jobs that were asked for together: what they share once, and a line for each.

Knows no queue, no network: jobs in, message out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from discord import ui

from bot.cards.buttons import batch_row
from bot.cards.captions import alt_text, detail_lines, settings_words
from bot.cards.job_card import CARD_PROMPT_CHARACTERS, DONE, PREVIEW, THUMBNAIL_TEXT_CHARACTERS, WORKING, state_words
from bot.language import Say
from bot.queue.job import Job, Place
from bot.quoting import quoted
from gen.request import StepReport

REASON_CHARACTERS = 200  # of each job's reason, before escaping


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One job and what is known beside it; as in `bot.cards.job_card.card`."""

    job: Job
    place: Place | None = None
    report: StepReport | None = None
    link: str | None = None


def batch_card(say: Say, batch: Sequence[Shown]) -> ui.LayoutView:
    """The card of these jobs, the first one first."""
    first = batch[0].job
    parts: list[ui.Item[Any]] = [
        ui.TextDisplay(f"**{quoted(first.request.prompt, characters=CARD_PROMPT_CHARACTERS)}**")
    ]
    parts += [_line(say, one) for one in batch]
    small = [settings_words(say, first.request), *detail_lines(say, first)]
    parts.append(ui.TextDisplay("\n".join(f"-# {line}" for line in small)))
    row = batch_row(say, [one.job for one in batch])
    view = ui.LayoutView(timeout=None)
    colour = WORKING if any(one.job.finished_at is None for one in batch) else DONE
    view.add_item(ui.Container(*parts, *([row] if row else []), accent_colour=colour))
    return view


def _line(say: Say, one: Shown) -> ui.Item[Any]:
    words = state_words(say, one.job, place=one.place, report=one.report, link=one.link, characters=REASON_CHARACTERS)
    text = f"`{one.job.id}` {words}\n-# " + say("seed `{seed}`", seed=one.job.request.seed)
    if one.report is None or one.report.preview is None:
        return ui.TextDisplay(text)
    shown = alt_text(say, one.job, characters=THUMBNAIL_TEXT_CHARACTERS)
    return ui.Section(text, accessory=ui.Thumbnail(f"attachment://{PREVIEW}", description=shown))
