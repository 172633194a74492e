"""The demo's page: simcord's Preview, kept true while the bot works, dressed like Discord, with several channels.

What it uses of simcord's private side is marked `private:` with the reason; command.py checks the version at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.cards.job_card import PREVIEW
from bot.demo.look import face
from bot.demo.stage import Stage

if TYPE_CHECKING:
    from simcord.actors import MemberActor
    from simcord.preview import Preview

_log = logging.getLogger(__name__)

PREVIEWS_KEPT = 50


class RealClock:
    """simcord's clock, but following real time: `<t:…:R>`, time.monotonic and deadlines in commands then agree."""

    def __init__(self) -> None:
        self._start = time.perf_counter()  # simcord puts time.monotonic on this very clock

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def now(self) -> datetime:
        return datetime.now(UTC)

    def advance(self, seconds: float) -> None:
        """Real time advances by itself."""


class LivePage:
    """The page is true whenever a browser asks, without a manual refresh: one lock for its own actions and ours."""

    def __init__(self, preview: Preview, stage: Stage) -> None:
        self._preview, self._stage = preview, stage
        self._lock = asyncio.Lock()  # simcord refuses a second operation instead of queueing it
        self._act = preview._action
        # private: the one function through which the browser acts; it must wait for our refresh instead of failing.
        preview._action = self._action_in_turn  # type: ignore[method-assign]
        self._previews: dict[str, bytes] = {}  # of cards, by the page's name for each; the newest last
        server = preview._server
        self._state, self._asset, self._file = server._state, server._asset, server._static
        self._seen = 0  # calls of the bot to Discord that the published page knows
        # private: what the page asks for twice a second.
        server._state = self._true_state  # type: ignore[method-assign]
        # private: what the page shows besides its own files; a preview may have gone before the page has fetched it.
        server._asset = self._asset_or_preview  # type: ignore[method-assign]
        # private: the page's own files, served with our style and script appended; routes are made from this table.
        server._static = self._dressed_file  # type: ignore[method-assign]
        server._STATIC_FILES = {**server._STATIC_FILES, "/favicon.ico": "index.html"}  # type: ignore[misc]

    async def _true_state(self, request: Any) -> Any:
        """Publish the page anew if the bot has called Discord since, then answer: no browser sees an older state.

        private: simcord answers with the last published state, less what has left Discord meanwhile: a card whose
        preview was replaced between would show "Thumbnail unavailable".
        """
        calls = len(self._preview.env.http_requests)
        if calls != self._seen and not self._lock.locked():  # an action publishes by itself
            try:
                async with self._lock:
                    self._remember_previews()
                    await self._preview.refresh()
                    self._remember_previews()
                self._seen = calls
            except Exception:  # noqa: BLE001 - the page lives on and asks again
                if self._preview._active:  # private: a page still asks while the demo ends
                    _log.warning("the demo's page could not be refreshed", exc_info=True)
        return await self._state(request)

    async def imagine(self, person: MemberActor, **options: Any) -> None:
        """Let `person` use /imagine, as the browser would."""
        async with self._lock:
            await person.slash(self._stage.channels[0], "imagine", **options)

    async def _action_in_turn(self, context_id: str | None, body: Any) -> dict[str, Any]:
        async with self._lock:
            # private: commands publish with the time of the last refresh; a card's "in 8 seconds" needs now.
            self._preview._advance_presentation_time()
            page = self._preview._pages.get(context_id or "")
            if page is None or not isinstance(body, dict):
                return await self._act(context_id, body)
            if "published_revision" in body:
                # private: an action is refused when the page was published since; ours is, all the time. What it
                # points at is looked up afresh in any case.
                body = {**body, "published_revision": page.revision}
            before = page.channel_id
            if body.get("kind") == "viewer":
                body = self._turn_to_channel(page, body)
            self._remember_previews()
            with self._acting_in(page):
                receipt = await self._act(context_id, body)
            self._remember_previews()
            if receipt.get("rejected"):
                page.channel_id = before
            return receipt

    def _turn_to_channel(self, page: Any, body: dict[str, Any]) -> dict[str, Any]:
        """Take the channel out of `PERSON@CHANNEL`, as demo.js writes it; nobody stays where they see nothing."""
        person_id, _, channel_id = str(body.get("viewer_id")).partition("@")
        person = next((person for person in self._stage.people if str(person.id) == person_id), None)
        wanted = channel_id or str(page.channel_id)
        if person is not None:  # private: a page shows one channel; the switch of people publishes it anew
            seen = [channel for channel in self._stage.channels if self._stage.sees(person, channel)]
            page.channel_id = next((it.id for it in seen if str(it.id) == wanted), seen[0].id)
        return {**body, "viewer_id": person_id}

    @contextlib.contextmanager
    def _acting_in(self, page: Any) -> Iterator[None]:
        """private: simcord sends commands to the preview's one channel instead of the page's."""
        usual = self._preview.channel
        self._preview.channel = next(it for it in self._stage.channels if it.id == page.channel_id)
        try:
            yield
        finally:
            self._preview.channel = usual

    def _remember_previews(self) -> None:
        """private: a preview leaves simcord with the card's next edit, a second later; Discord keeps it for a while."""
        for page in self._preview._pages.values():
            for name, record in page.assets.items():
                blob = self._preview._blobs.get(record.digest or "")
                if record.filename == PREVIEW and blob is not None:
                    self._previews[name] = blob.data
        for name in list(self._previews)[:-PREVIEWS_KEPT]:
            del self._previews[name]

    async def _asset_or_preview(self, request: Any) -> Any:
        from aiohttp import web

        response = await self._asset(request)
        kept = self._previews.get(request.match_info["asset_id"])
        if response.status == HTTPStatus.NOT_FOUND and kept is not None:
            return web.Response(body=kept, content_type="image/jpeg", headers=self._preview._server._SECURITY_HEADERS)
        return response

    async def _dressed_file(self, request: Any) -> Any:
        response = await self._file(request)
        if request.path == "/preview.css":
            response.text += _text("demo.css")
        elif request.path == "/app.js":
            response.text += f"\nconst KILN = {json.dumps(self._stage.facts())};\n{_text('demo.js')}"
        elif request.path == "/favicon.ico":
            response.body, response.content_type = face("Kiln"), "image/png"
        return response


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")
