"""What a page of /history looks like: pictures with their words, and where its buttons lead.

Knows no queue and no network: a page and its thumbnails in, a message out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import discord
from discord import ui

from bot.cards.captions import alt_text, picture_link, settings_line
from bot.language import Say
from bot.queue.job import STATUS_WORDS, Job
from bot.queue.past import Page
from bot.quoting import ago, quoted

PROMPT_CHARACTERS = 150  # of each picture's prompt, before escaping: five fit into a message
SEARCH_CHARACTERS = 40  # with them a button's custom_id has 100 characters at most
ACCENT = 0x5865F2
ADDRESS = re.compile(r"history:(?P<user>\d{1,20}):(?P<newest>\d{1,19}):(?P<page>\d{1,10}):(?P<search>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Which page of what; a button's custom_id holds all of it, so that it works after a restart."""

    user_id: int
    search: str
    newest: int  # what came later is left out, so that the pages stay as they are
    page: int

    @property
    def custom_id(self) -> str:
        """At most 100 characters."""
        return f"history:{self.user_id}:{self.newest}:{self.page}:{self.search}"

    @classmethod
    def read(cls, found: re.Match[str]) -> Address:
        """What a custom_id says."""
        numbers = {name: int(found[group]) for name, group in (("user_id", "user"), ("newest", "newest"))}
        return cls(**numbers, page=int(found["page"]), search=found["search"])

    def beside(self, by: int) -> Address:
        """A page before or after this one."""
        return replace(self, page=self.page + by)


def page_layout(
    say: Say,
    page: Page,
    *,
    title: str,
    thumbnails: Mapping[int, bytes],
    actions: Mapping[int, Sequence[ui.Item[Any]]],
    turning: Sequence[ui.Item[Any]],
) -> tuple[ui.LayoutView, list[discord.File]]:
    """The message for one page, and the files that go with it.

    By job: `thumbnails`, WebP, and `actions`, the buttons below it. `turning` are the buttons to other pages.
    """
    files = [discord.File(io.BytesIO(data), filename=_name(job_id)) for job_id, data in thumbnails.items()]
    view = ui.LayoutView(timeout=None)
    parts: list[ui.Item[Any]] = [ui.TextDisplay(_head(say, page, title))]
    for job in page.jobs:
        parts.append(_row(say, job, has_thumbnail=job.id in thumbnails))
        parts += [ui.ActionRow(*actions[job.id])] if actions.get(job.id) else []
    parts += [ui.ActionRow(*turning)] if turning else []
    view.add_item(ui.Container(*parts, accent_colour=ACCENT))
    return view, files


def _head(say: Say, page: Page, title: str) -> str:
    count = say.many("{n} picture", "{n} pictures", page.found, n=page.found)
    where = say("page {page} of {pages}", page=page.page, pages=page.pages)
    lines = [title, f"-# {count} · {where}"]
    if page.hidden:
        lines.append(
            "-# " + say.many("{n} of them was deleted.", "{n} of them were deleted.", page.hidden, n=page.hidden)
        )
    return "\n".join(lines)


def _row(say: Say, job: Job, *, has_thumbnail: bool) -> ui.Item[Any]:
    words = f"**{quoted(job.request.prompt, characters=PROMPT_CHARACTERS)}**\n-# {settings_line(say, job.request)}"
    link = picture_link(job) if job.result_message_id is not None else None  # else it would be the card's
    made = ago(job.finished_at or job.created_at)
    shown = say("[the picture]({link})", link=link) if link else say(STATUS_WORDS[job.status])
    if job.is_picture_removed:
        shown += " · " + say("Its file was removed to make room.")
    text = ui.TextDisplay[Any](f"{words}\n-# {made} · {shown}")
    if not has_thumbnail:
        return text
    return ui.Section(text, accessory=ui.Thumbnail(f"attachment://{_name(job.id)}", description=alt_text(say, job)))


def _name(job_id: int) -> str:
    return f"picture-{job_id}.webp"
