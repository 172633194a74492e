"""The web console's page: a form, the picture as it comes, what this browser has drawn. The only importer of Gradio.

Gradio serves from a thread of its own; what it asks of the queue runs on Kiln's event loop. A full picture travels
inside the page, byte for byte, to the console whose it is; only thumbnails lie in Gradio's own files.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar

import gradio as gr
from PIL import Image, ImageDraw
from starlette.middleware import Middleware
from starlette.requests import Request

from bot.console.address import check_port
from bot.console.guard import Guard
from bot.console.jobs import FIELDS, RANDOM_SEED, Console, Look, is_number, new_number
from bot.console.words import LABELS, language_of, picture_html, status_html, trouble_html
from bot.errors import Refusal
from bot.language import Say, msg, say_in
from bot.queue.job import Job
from bot.settings import Settings
from gen.errors import InvalidRequest
from gen.png import BROKEN
from gen.recipe_reader import read_recipe

HISTORY, THUMBNAIL = 24, 256  # pictures; pixels a side
PAGES = 1000  # whose first numbers are known, in case they ask again before they have heard them
USER = "kiln"
SECRET = "kiln"  # of the browser's own memory: it hides nothing, but without one a restart would forget the history
VIEWS = ("number", "job_id", "status", "picture", "seed", "recipe", "history", "shown")

_T = TypeVar("_T")
_LOST = msg("The picture of job {number} cannot be shown: its file is missing or damaged.")
_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_page(console: Console, settings: Settings) -> AsyncIterator[str]:
    """Serve the page and yield its address; raise StartError if it cannot listen there."""
    page, password = Page(console, asyncio.get_running_loop()), settings.console_password
    blocks = page.build()
    check_port(settings)  # Gradio knows no other reason than a port that is taken
    _, address, _ = await asyncio.to_thread(
        blocks.launch,
        server_name=settings.console_host,
        server_port=settings.console_port,
        auth=[(USER, password.get_secret_value())] if password else None,
        app_kwargs={"middleware": [Middleware(Guard, has_password=password is not None, is_logged_in=_is_logged_in)]},
        max_file_size=1,  # byte of an upload, for which the page has no place
        enable_monitoring=False,
        i18n=page.labels,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
    )
    try:
        yield address
    finally:
        await asyncio.to_thread(blocks.close, verbose=False)


class Page:
    """What the page shows and does. Its methods run on Gradio's thread."""

    def __init__(self, console: Console, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is Kiln's, on which the console lives."""
        self._console, self._loop = console, loop
        self._thumbnails: dict[int, Image.Image] = {}  # by job
        self._turns: dict[str | None, object] = {}  # by page: who follows its jobs
        self._first_number = lru_cache(PAGES)(lambda page: new_number())  # the same however often a page asks at once
        english, chinese = ({key: say_in(locale)(text) for key, text in LABELS.items()} for locale in ("en", "zh"))
        self.labels = gr.I18n(en=english, zh=chinese, **{"zh-CN": chinese, "zh-TW": chinese})

    def build(self) -> gr.Blocks:
        """The page: form on the left, what happens on the right, history below."""
        label = self.labels
        with gr.Blocks(title="Kiln", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
            number = gr.BrowserState(None, storage_key="kiln-console", secret=SECRET)
            job_id, shown = gr.State(None), gr.State([])
            gr.Markdown(f"# Kiln · {self._console.profile.name}")
            with gr.Row():
                with gr.Column():
                    form = self._form()
                    with gr.Row():
                        draw, cancel = gr.Button(label("draw"), variant="primary"), gr.Button(label("cancel"))
                    refusal = gr.HTML(elem_id="refusal")
                with gr.Column():
                    status, picture = gr.HTML(elem_id="status"), gr.HTML(elem_id="picture")
                    seed = gr.Textbox(label=label("seed_used"), interactive=False, elem_id="seed-used")
                    recipe = gr.Code(
                        label=label("recipe"), language="json", interactive=False, wrap_lines=True, elem_id="recipe"
                    )
            tiles: dict[str, Any] = {"columns": 8, "fit_columns": False, "allow_preview": False}
            history = gr.Gallery(label=label("history"), elem_id="history", **tiles)
            views = [number, job_id, status, picture, seed, recipe, history, shown]
            free: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
            each: dict[str, Any] = free | {"trigger_mode": "multiple"}  # or what comes while one is under way is lost
            asked = draw.click(self.ask, [number, *form], [number, refusal], **each)
            asked.then(self.follow, number, views, **each)
            blocks.load(self.follow, number, views, **free)
            blocks.load(self.offer, None, form[-2], **free)
            cancel.click(self.cancel, [number, job_id], refusal, **free)
            history.select(self.pick, [number, shown], [picture, seed, recipe], **free)
        return blocks

    def _form(self) -> list[Any]:
        profile, label = self._console.profile, self.labels
        usual = f"{profile.width}x{profile.height}"
        sizes = {"choices": list(profile.sizes()), "value": usual, "allow_custom_value": True}
        # `read_form` says which LoRAs there are: Gradio would refuse all that a page from before a restart sends.
        loras: dict[str, Any] = {"choices": [], "value": None, "allow_custom_value": True}
        return [
            gr.Textbox(label=label("prompt"), lines=4, autofocus=True, elem_id="prompt"),
            gr.Number(label=label("seed"), value=RANDOM_SEED, elem_id="seed"),
            gr.Dropdown(label=label("size"), elem_id="size", **sizes),
            gr.Number(label=label("steps"), value=profile.steps, elem_id="steps"),
            gr.Number(label=label("guidance"), value=profile.guidance, elem_id="guidance"),
            gr.Dropdown(label=label("lora"), elem_id="lora", **loras),
            gr.Number(label=label("strength"), value=1, elem_id="strength"),
        ]

    async def offer(self) -> Any:
        """The LoRAs that are there now; the first choice is none."""
        names = await asyncio.to_thread(self._console.loras)
        return gr.update(choices=[("–", ""), *((name, name) for name in names)], value="")

    async def ask(self, request: gr.Request, number: Any, *form: Any) -> tuple[int, str]:
        """Put one picture into the queue, or say why not."""
        number = self._number(request, number)
        filled = dict(zip((*FIELDS, "lora", "strength"), form, strict=True))
        try:
            wanted = await asyncio.to_thread(self._console.read_form, filled)
            await self._on_kiln(self._console.ask(number, wanted, locale=_say(request).locale))
        except (InvalidRequest, Refusal) as error:
            self._console.refused(error)
            return number, trouble_html(error.told(_say(request)))
        return number, ""

    async def follow(self, request: gr.Request, number: Any) -> AsyncIterator[tuple[Any, ...]]:
        """Show this console's jobs one after the other, as long as there are any, and then its history.

        The next that follows for the same page takes this one's place. Gradio's own `cancels` may come late and end
        the newer one, after which nobody follows.
        """
        page, turn = request.session_hash, object()
        self._turns[page] = turn
        try:
            async for views in self._followed(self._number(request, number), _say(request)):
                yield views
                if self._turns.get(page) is not turn:
                    return
        finally:
            if self._turns.get(page) is turn:
                del self._turns[page]

    async def _followed(self, number: int, say: Say) -> AsyncIterator[tuple[Any, ...]]:
        yield await self._past(number, say)
        while (job := await self._on_kiln(self._console.next_active(number))) is not None:
            async for look in self._looks(job.id):
                yield _views(number=number, job_id=job.id, status=status_html(say, look))
                job = look.job
            picture, seed, recipe = await self._full(job, say)
            if job.picture is not None:
                yield _views(picture=picture, seed=seed, recipe=recipe)
            yield await self._past(number, say)

    def _number(self, request: gr.Request, number: Any) -> int:
        """This browser's number; a new one for a page that has none yet."""
        if is_number(number):
            return int(number)
        return self._first_number(request.session_hash) if request.session_hash else new_number()

    async def cancel(self, request: gr.Request, number: Any, job_id: Any) -> str:
        """Take back the job that is shown."""
        if not is_number(number) or not isinstance(job_id, int):
            return ""
        try:
            await self._on_kiln(self._console.cancel(job_id, number=number))
        except Refusal as error:
            return trouble_html(error.told(_say(request)))
        return ""

    async def pick(
        self, event: gr.SelectData, request: gr.Request, number: Any, shown: list[int]
    ) -> tuple[str, str, str]:
        """Show a picture of the history."""
        found = await self._on_kiln(self._console.pictures(number, limit=HISTORY)) if is_number(number) else ()
        picked = [job for job in found if job.id in shown[event.index : event.index + 1]]
        return await self._full(picked[0], _say(request)) if picked else ("", "", "")

    async def _full(self, job: Job, say: Say) -> tuple[str, str, str]:
        """The picture, its seed and its recipe; in their stead a word where the file is no picture any more."""
        png, small = await self._read(job)
        if png is None or small is None:
            return (trouble_html(say(_LOST, number=job.id)) if job.picture else ""), str(job.request.seed), ""
        recipe = read_recipe(png)  # Kiln's own file: it has one
        told = json.dumps(json.loads(recipe.as_json()), indent=2, ensure_ascii=False) if recipe else ""
        return picture_html(job, png), str(job.request.seed), told

    async def _past(self, number: int, say: Say) -> tuple[Any, ...]:
        jobs = await self._on_kiln(self._console.pictures(number, limit=HISTORY))
        history = []
        for job in jobs:
            small = self._thumbnails.get(job.id) or (await self._read(job))[1]
            told = f"{job.request.prompt[:60]} · {job.request.seed}"
            history.append((small, told) if small else (_nothing(), say(_LOST, number=job.id)))
        return _views(number=number, history=history, shown=[job.id for job in jobs])

    async def _read(self, job: Job) -> tuple[bytes | None, Image.Image | None]:
        """A job's file, and the picture in it, small; nothing, and a line in the log, where it is no picture."""
        png = await self._on_kiln(self._console.picture(job))
        if png is None:
            return None, None
        try:
            small = await asyncio.to_thread(_small, png)
        except BROKEN as error:
            _log.warning("job %d: its file %s is damaged: %s", job.id, job.picture, error)
            return png, None
        self._thumbnails[job.id] = small
        while len(self._thumbnails) > 10 * HISTORY:
            del self._thumbnails[next(iter(self._thumbnails))]
        return png, small

    async def _looks(self, job_id: int) -> AsyncIterator[Look]:
        looks = self._console.follow(job_id)
        try:
            while (look := await self._on_kiln(_next(looks))) is not None:
                yield look
        finally:
            await self._on_kiln(looks.aclose())

    async def _on_kiln(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


async def _next(looks: AsyncIterator[Look]) -> Look | None:
    return await anext(looks, None)


def _views(**changed: Any) -> tuple[Any, ...]:
    """A value for each view; what is not named stays as it is."""
    return tuple(changed.get(view, gr.skip()) for view in VIEWS)


def _say(request: gr.Request) -> Any:
    return language_of(request.headers.get("accept-language", ""))


def _is_logged_in(scope: Any) -> bool:
    """As Gradio judges it: by the token that its login gave out."""
    app, cookies = scope["app"], Request(scope).cookies
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(cookies.get(name) in app.tokens for name in names)


def _small(png: bytes) -> Image.Image:
    """Decoded whole: a file that ends too soon has a sound beginning."""
    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    picture.load()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture


def _nothing() -> Image.Image:
    """Stands for a picture that cannot be shown."""
    side = THUMBNAIL // 2
    crossed = Image.new("RGB", (side, side), "#dddddd")
    for ends in ((0, 0, side, side), (0, side, side, 0)):
        ImageDraw.Draw(crossed).line(ends, fill="#c0392b", width=4)
    return crossed
