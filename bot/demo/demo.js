// What Discord's own client does and simcord's page does not. bot/demo_page.py appends this file to the page's own
// script, with `KILN` before it: {"people": {id: what they are}, "channels": [{id, name, seenBy: [ids]}]}.
{  // a block: the page's own script has names of its own
document.title = "Kiln: a demo";

const box = document.getElementById("channel-composer-input");
const form = document.getElementById("channel-composer");
const picker = document.getElementById("viewer-picker");
const write = (field, text) => {
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};

// The people say what they are, and the sidebar lists the channels that this person can see.
const channels = document.createElement("nav");
channels.className = "kiln-channels";
document.querySelector(".sidebar-heading").append(channels);
const enter = (channel) => {  // bot/demo_page.py knows "PERSON@CHANNEL"
  const way = new Option("", `${picker.value}@${channel}`);
  picker.append(way);
  picker.value = way.value;
  picker.dispatchEvent(new Event("change"));
};
for (const { id, name } of KILN.channels) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: `# ${name}` });
  button.addEventListener("click", () => enter(id));
  button.dataset.channel = id;
  channels.append(button);
}
const name = document.getElementById("channel-context-name");
const here = () => KILN.channels.find((channel) => channel.name === name.textContent)?.id;
let viewer = "";  // the last that the picker told: it is empty while the page changes
const settle = () => {
  if (KILN.people[picker.value]) viewer = picker.value;
  for (const option of picker.options) {
    const what = KILN.people[option.value];
    if (what && !option.textContent.endsWith(what)) option.textContent += `, ${what}`;
  }
  for (const [at, button] of [...channels.children].entries()) {
    button.hidden = !KILN.channels[at].seenBy.includes(viewer);
    button.toggleAttribute("aria-current", button.dataset.channel === here());
  }
};
for (const part of [picker, name]) new MutationObserver(settle).observe(part, { childList: true });

// As on Discord, "/imagine" and a space (or a pasted line) is the command, without picking it from the list.
let looking = false;  // for a command, by writing into the box
box.addEventListener("input", () => {
  const whole = box.value;
  const typed = /^(\/[a-z]+) /.exec(whole);
  if (!typed || looking) return;
  looking = true;
  write(box, typed[1]);  // the page then lists what begins like that
  const called = (item) => `${item.querySelector("strong")?.textContent} `;
  const entry = [...document.querySelectorAll(".command-entry")].filter((item) => whole.startsWith(called(item)))
    .sort((one, other) => called(other).length - called(one).length)[0];
  entry?.click();
  if (!entry) write(box, whole);
  looking = false;
  const field = entry && document.querySelector(".command-option-input");
  if (field) write(field, whole.slice(called(entry).length));
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

// As on Discord, Enter sends a command that needs no more words, while the list of its options is offered.
let walked = false;  // through that list, by the arrows
form.addEventListener("keydown", ({ key, target }) => {
  if (key === "Enter" && !walked && target.matches(".command-chip")) {
    target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true }));
  }
  walked = key.startsWith("Arrow");
}, true);

// The page drops an Enter that comes while it still talks to the bot: send once, when it is free again.
const sending = () => {
  const action = window.simcordPreview.pendingAction;
  return action?.kind === "run_command" ? action.requestId : null;
};
const PATIENCE = 65_000, LOOK_EVERY = 100;  // ms; an action takes 60 s at most
let trying = null;  // the command that waits for the page to be free
const sendWhenFree = (row, until) => {
  trying = row;
  setTimeout(() => {
    const page = window.simcordPreview;
    if (!row.isConnected || row.querySelector('[aria-invalid="true"]') || Date.now() > until) trying = null;
    else if (page.pendingAction || page.awaitingRevision > page.publishedRevision) sendWhenFree(row, until);
    else {
      form.requestSubmit();
      row.dataset.sent = sending();
      trying = null;
    }
  }, LOOK_EVERY);
};
form.addEventListener("keydown", (event) => {
  const row = event.key === "Enter" && !event.isComposing && event.target.closest(".command-row");
  if (!row || row === trying || event.target.matches("button:not(.command-chip)")) return;
  if (document.querySelector(".command-popup:not([hidden])")) return;  // it chose from a list
  const before = sending();
  form.addEventListener("keydown", () => {  // after the page's own listener: has it sent the command?
    const now = sending();
    if (now && now !== before) row.dataset.sent = now;
    else if (row.querySelector('[aria-invalid="true"]')) return;
    else if (!now || row.dataset.sent !== now) sendWhenFree(row, Date.now() + PATIENCE);
    writeOn(row);
  }, { once: true });
}, true);

// The page keeps a command in the composer until the bot has it, and then empties the composer; Discord empties it at
// once. What is written meanwhile goes into a box of our own, line by line, and from there into the real one.
const next = Object.assign(document.createElement("textarea"), { id: "next-words", rows: 1, hidden: true });
next.setAttribute("aria-label", "Message");
form.append(next);
let lines = [];  // that Enter ended
const under = (row) => (row.isConnected && row === trying) || sending() !== null;  // until then nothing can be written
const writeOn = (row) => {
  if (next.hidden) next.value = "";
  next.hidden = false;
  next.focus();
  const look = setInterval(() => {
    if (under(row)) return;
    clearInterval(look);
    if (row.isConnected) giveBack(row);
    else handOver();
  }, 30);
};
const giveBack = (row) => {  // the command has a mistake and stays; what was written after it waits
  if (lines.length || next.value) box.dataset.later = [...lines, next.value].join("\n");
  lines = [];
  next.hidden = true;
  row.querySelector('[aria-invalid="true"], .command-option-input')?.focus();
};
const handOver = () => {
  const line = lines.shift();
  if (line === undefined) {
    next.hidden = true;
    box.focus();
    const words = next.value || box.dataset.later;
    delete box.dataset.later;
    if (words) write(box, words);
    return;
  }
  write(box, line);
  if (document.activeElement === next) box.focus();
  const press = { key: "Enter", bubbles: true, cancelable: true };
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", press));
  const row = form.querySelector(".command-row");
  if (row && under(row)) return;  // on its way, and `writeOn` goes on
  if (row) { giveBack(row); return; }  // it was chosen from the list, and wants another Enter or more words
  const said = window.simcordPreview.pendingAction?.kind === "send_message";
  next.value = [said ? "" : box.value, ...lines, next.value].filter(Boolean).join("\n");
  lines = [];
  handOver();
};
next.addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (next.value) lines.push(next.value);
  next.value = "";
});

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
for (const part of [picker, channels]) part.addEventListener("click", () => { pinned = true; });

// A link to a message jumps to it here instead of leaving for discord.com.
const jump = (message, until) => {
  const found = document.querySelector(`article[data-message-id="${message}"]`);
  if (found) found.scrollIntoView({ block: "center" });
  else if (Date.now() < until) setTimeout(() => jump(message, until), LOOK_EVERY);
};
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest('a[href^="https://discord.com/channels/"]');
  if (!link) return;
  event.preventDefault();
  pinned = false;
  const [channel, message] = link.href.split("/").slice(-2);
  if (channel !== here()) enter(channel);
  jump(message, Date.now() + PATIENCE);
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
