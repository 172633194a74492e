"""How the demo looks: Discord's colours over simcord's workbench, what Discord's own client does, faces, and the pace.

`bot.demo` appends style and script to the page's own files. Knows no Discord, no bot and no server.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw

from gen.executor import Generator, Unfinished
from gen.request import ImageRequest, ModelProfile, StepReport

STEP_SECONDS = 0.25  # at least: alone on two cores the small model takes 0.05 s, and nobody would see a bar or a queue

FACES = {"Kiln": "#e8743b", "You": "#3ba55d", "Ada": "#8a5cf6"}  # colours
FACE_PIXELS = 128

STYLE = """
.preview-toolbar { position: fixed; left: 0; bottom: 0; width: 240px; border: 0; background: #232428; }
.preview-toolbar > :not(.viewer-control), .sidebar-heading .layout-label, .message-navigation, .sidebar-search,
.advanced-search, .sidebar-empty, .drawer-scrim { display: none !important; }
.viewer-control select { background: #383a40; border: 0; }
.messages-sidebar { flex-basis: 240px; padding: 0; background: #2b2d31; }
.sidebar-heading { padding: 0; border: 0; }
.sidebar-heading h1 { height: 48px; margin: 0 0 16px; padding: 14px 16px; color: #f2f3f5; font-size: 0;
  border-bottom: 1px solid #1f2023; }
.sidebar-heading h1::after { content: "Kiln's studio"; font-size: 15px; letter-spacing: 0; text-transform: none; }
.channel-context { margin: 0 8px; padding: 6px 8px; color: #fff; background: #404249; border-radius: 6px;
  font-size: 15px; }
.command-option-input[data-option="prompt"] { width: min(44ch, 50vw) !important; }
.command-option-input { min-width: 5ch; }
#channel-composer-input:focus-visible { outline: 0; }
@media (max-width: 820px) { .messages-sidebar, .preview-toolbar { display: none; } }
"""

SCRIPT = """
{  // a block: the page's own script has names of its own
document.title = "Kiln: a demo";

// As on Discord, "/imagine" and a space (or a pasted line) is the command, without picking it from the list.
const box = document.getElementById("channel-composer-input");
box.addEventListener("input", () => {
  const typed = /^(\\/[a-z]+) (.*)$/s.exec(box.value);
  if (!typed) return;
  const say = (text) => { box.value = text; box.dispatchEvent(new Event("input", { bubbles: true })); };
  const whole = box.value;
  say(typed[1]);
  const entries = [...document.querySelectorAll(".command-entry")];
  const entry = entries.find((item) => item.querySelector("strong")?.textContent === typed[1]);
  if (!entry) { box.value = whole; return; }
  entry.click();
  const field = document.querySelector(".command-option-input");
  if (!field) return;
  field.value = typed[2];
  field.dispatchEvent(new Event("input", { bubbles: true }));
});

// As on Discord, a field that offers choices offers them at once, not after the first letter.
document.addEventListener("focusin", ({ target }) => {
  if (!target.matches('.command-option-input[role="combobox"]') || target.value) return;
  setTimeout(() => target.isConnected && target.dispatchEvent(new Event("input", { bubbles: true })), 50);
});

// After a choice the page leaves the focus nowhere; on the command, Enter sends it.
document.addEventListener("click", ({ target }) => {
  if (!target.closest('.command-popup [role="option"]')) return;
  setTimeout(() => document.activeElement === document.body && document.querySelector(".command-chip")?.focus(), 50);
}, true);

// The page drops an Enter that comes while it still talks to the bot: send once, when it is free again.
const form = document.getElementById("channel-composer");
const sending = () => {
  const action = window.simcordPreview.pendingAction;
  return action?.kind === "run_command" ? action.requestId : null;
};
const PATIENCE = 15_000, LOOK_EVERY = 100;  // ms; an action takes 10 s at most
let waiting = null;  // for the page to be free
const sendWhenFree = (row, until) => {
  waiting = setTimeout(() => {
    const page = window.simcordPreview;
    if (!row.isConnected || row.querySelector('[aria-invalid="true"]') || Date.now() > until) return;
    if (page.pendingAction || page.awaitingRevision > page.publishedRevision) sendWhenFree(row, until);
    else {
      form.requestSubmit();
      row.dataset.sent = sending();
    }
  }, LOOK_EVERY);
};
for (const kind of ["input", "pointerdown"]) {  // who goes on writing presses Enter again
  form.addEventListener(kind, ({ isTrusted }) => { if (isTrusted) clearTimeout(waiting); }, true);
}
form.addEventListener("keydown", (event) => {
  const row = event.key === "Enter" && !event.isComposing && event.target.closest(".command-row");
  if (!row || event.target.matches("button:not(.command-chip)")) return;
  clearTimeout(waiting);
  if (document.querySelector(".command-popup:not([hidden])")) return;  // it chose from a list
  const before = sending();
  form.addEventListener("keydown", () => {  // after the page's own listener: has it sent the command?
    const now = sending();
    if (now && now !== before) row.dataset.sent = now;
    else if (!now || row.dataset.sent !== now) sendWhenFree(row, Date.now() + PATIENCE);
  }, { once: true });
}, true);

// Whoever reads the newest message keeps it in sight while pictures arrive; whoever scrolled up stays there.
const timeline = document.getElementById("channel-timeline");
const NEAR = 120;
let pinned = true;
const follow = () => requestAnimationFrame(() => requestAnimationFrame(() => {
  if (pinned) timeline.scrollTop = timeline.scrollHeight;
}));
for (const kind of ["wheel", "touchmove", "pointerdown", "pointerup", "keydown"]) {
  timeline.addEventListener(kind, () => {
    pinned = false;
    setTimeout(() => {
      pinned = timeline.scrollHeight - timeline.scrollTop - timeline.clientHeight < NEAR;
    }, 300);
  }, { passive: true });
}
timeline.addEventListener("scroll", follow, { passive: true });  // the page itself scrolls back at times
const sizes = new ResizeObserver(follow);
sizes.observe(timeline);
sizes.observe(document.getElementById("channel-message-list"));
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter") { pinned = true; follow(); }
});

// A link to a message jumps to it here instead of leaving for discord.com.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest('a[href^="https://discord.com/channels/"]');
  if (!link) return;
  event.preventDefault();
  pinned = false;
  const message = document.querySelector(`article[data-message-id="${link.href.split("/").at(-1)}"]`);
  message?.scrollIntoView({ block: "center" });
}, true);

// Discord's clients count relative times on by themselves; this page would show them as they were when drawn.
setInterval(() => {
  const words = new Intl.RelativeTimeFormat("en-US", { numeric: "auto" });
  for (const time of document.querySelectorAll("time.discord-timestamp")) {
    if (!/^(in |now$|this )| ago$/.test(time.textContent)) continue;
    const seconds = (new Date(time.dateTime) - Date.now()) / 1000, far = Math.abs(seconds);
    const [unit, size] = far < 60 ? ["second", 1] : far < 3600 ? ["minute", 60] : ["hour", 3600];
    const text = words.format(Math.round(seconds / size), unit);
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);
}
"""


def face(name: str) -> bytes:
    """The avatar of one of FACES, as PNG: a kiln for the bot, the first letter for people."""
    picture = Image.new("RGB", (FACE_PIXELS, FACE_PIXELS), FACES[name])
    draw = ImageDraw.Draw(picture)
    if name == "Kiln":
        draw.rounded_rectangle((26, 28, 102, 140), radius=38, fill="#5a2a16")
        draw.rounded_rectangle((42, 58, 86, 140), radius=22, fill="#ffb03a")
        draw.rounded_rectangle((53, 76, 75, 140), radius=11, fill="#fff3d6")
    else:
        middle = FACE_PIXELS // 2
        draw.text((middle, middle), name[0], fill="#ffffff", anchor="mm", font_size=72)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class Paced:
    """A generator that takes its time, as a large model does, so that progress and waiting can be watched."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def profile(self) -> ModelProfile:
        return self._generator.profile

    def paint(self, request: ImageRequest, *, on_step: Callable[[StepReport], None]) -> Unfinished:
        """Draw with at least STEP_SECONDS a step; `seconds` of the result is the drawing alone, without the pauses."""
        began = time.perf_counter()
        paused = 0.0

        def unhurried(report: StepReport) -> None:
            nonlocal paused
            on_step(report)
            resting = time.perf_counter()
            time.sleep(max(0.0, began + report.step * STEP_SECONDS - resting))
            paused += time.perf_counter() - resting

        painted = self._generator.paint(request, on_step=unhurried)
        seconds = max(0.0, painted.seconds - paused)
        return Unfinished(seconds=seconds, finish=lambda: replace(painted.finish(), seconds=seconds))

    def close(self) -> None:
        self._generator.close()
