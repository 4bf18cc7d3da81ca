// Keys, and rows that change while they are shown. Without this script, every page works by its links and forms.
"use strict";

const list = document.getElementById("rows");
const body = list && list.tBodies[0];
let selected = null; // id of the selected row: it stays selected wherever the row moves
let waiting = null; // rows of the server that the list does not show yet
let prefix = "";

// A table that is wider than the window scrolls by itself: keys reach it, too.
for (const wide of document.querySelectorAll(".wide")) wide.tabIndex = 0;

const keysOn = () => localStorage.getItem("keys") !== "off";
const rows = () => (body ? [...body.rows].filter((row) => row.querySelector("a.open")) : []);
const idOf = (row) => row.dataset.id || row.querySelector("a.open").href;

function select(row) {
  for (const other of rows()) other.classList.remove("selected");
  if (!row) return;
  selected = idOf(row);
  row.classList.add("selected");
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = rows();
  const at = all.findIndex((row) => idOf(row) === selected);
  select(all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)]);
}

const marked = new Set();
let anchor = null; // id of the row that was marked last: a range begins there

function showMarks() {
  for (const row of rows()) row.classList.toggle("marked", marked.has(idOf(row)));
}

function mark() {
  if (!selected) return;
  if (!marked.delete(selected)) marked.add(selected);
  anchor = selected;
  showMarks();
}

function markRange() {
  const ids = rows().map(idOf);
  const to = ids.indexOf(selected);
  if (to < 0) return;
  const from = ids.includes(anchor) ? ids.indexOf(anchor) : to;
  for (const id of ids.slice(Math.min(from, to), Math.max(from, to) + 1)) marked.add(id);
  anchor = selected;
  showMarks();
}

// The incidents that a key in a list is about: the marked rows, or else the row under the cursor.
function chosen() {
  const wanted = marked.size ? marked : new Set([selected]);
  return rows().filter((row) => row.dataset.id && wanted.has(row.dataset.id));
}

function say(text) {
  document.getElementById("said").textContent = text;
}

async function actOn(about, fields, refusedBy = () => {}) {
  const [refused, left] = [[], []];
  for (const [row, { id, seen, expected }] of about.map((row) => [row, { ...row.dataset }])) {
    // As the person saw it: if somebody else was faster, the server answers who and what.
    const answer = await fetch(`/v1/incidents/${encodeURIComponent(id)}/actions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...fields, seen: Number(seen), expected }),
    });
    if (answer.ok) continue;
    refused.push(`${id}: ${(await answer.json()).detail}`);
    left.push(row);
  }
  marked.clear();
  showMarks();
  const done = about.length - refused.length;
  say([`Done for ${done} of ${about.length} incident${about.length === 1 ? "" : "s"}.`, ...refused].join(" "));
  next = 0;
  if (left.length) refusedBy(left, refused.join(" "));
  if (document.getElementById("new-rows")) await changed();
}

async function acknowledge() {
  // On an incident's page, its form; in a list, the chosen rows.
  const form = document.querySelector('form[data-key="a"]');
  if (form) { form.requestSubmit(); return; }
  const about = chosen();
  if (about.length) await actOn(about, { kind: "acknowledge", assignee: document.body.dataset.caller });
}

const FORMS = { c: "Comment", s: "Snooze", m: "Mute", e: "Expected", "!": "Attack" };

function unfold(key) {
  // On an incident's page, its form. In a list, a comment and a snooze have a form for all chosen rows; the others
  // depend on what one incident has, so the incident is opened with its form.
  const part = document.querySelector(`details[data-key="${key}"]`);
  const about = chosen();
  if (part) {
    part.open = true;
    (part.querySelector("input:not([type=hidden])") ?? part.querySelector("summary")).focus();
  } else if (document.body.dataset.page === "incident") {
    say(`${FORMS[key]} is not possible for this incident, or not with your role.`);
  } else if (!about.length) {
    return;
  } else if (document.body.dataset.acts === undefined) {
    say("Your role may not act on incidents.");
  } else if (document.getElementById(`form-${key}`)) {
    askFor(document.getElementById(`form-${key}`), about);
  } else if (about.length > 1) {
    say(`${FORMS[key]} is about one incident: mark a single row, or none to take the one under the cursor.`);
  } else {
    location.href = `/incidents/${encodeURIComponent(about[0].dataset.id)}#do-${encodeURIComponent(key)}`;
  }
}

function askFor(dialog, about, wrong = "") {
  // A form that was refused for some rows is open again for these, as it was filled in.
  const [form, problem] = [dialog.querySelector("form"), dialog.querySelector(".notice")];
  dialog.querySelector(".about").textContent = about.length === 1 ? "1 incident" : `${about.length} incidents`;
  problem.textContent = wrong;
  problem.hidden = !wrong;
  if (!wrong) form.reset();
  dialog.returnValue = "";
  dialog.onclose = () => {
    const given = [...new FormData(form)].filter(([, value]) => value);
    if (dialog.returnValue === "do") actOn(about, Object.fromEntries(given), (left, why) => askFor(dialog, left, why));
  };
  dialog.showModal();
  if (wrong) problem.focus();
}

const actions = {
  x: mark,
  X: markRange,
  a: acknowledge,
  c: () => unfold("c"),
  s: () => unfold("s"),
  m: () => unfold("m"),
  e: () => unfold("e"),
  "!": () => unfold("!"),
  u: () => document.querySelector('form[data-key="u"]')?.requestSubmit(),
  j: () => move(1),
  k: () => move(-1),
  "/": () => document.getElementById("search")?.focus(),
  "?": () => document.getElementById("keys").showModal(),
  "g i": () => { location.href = "/"; },
  "g u": () => { location.href = "/ranking"; },
  "g m": () => { location.href = "/models"; },
  "g p": () => { location.href = "/privacy"; },
  "g s": () => { location.href = "/system"; },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (typing) typing.blur();
    else document.getElementById("back")?.click();
    return;
  }
  if (typing || !keysOn() || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && event.target.matches("tr")) {
    event.target.querySelector("a.open").click();
    return;
  }
  const key = prefix + event.key;
  prefix = event.key === "g" && !prefix ? "g " : "";
  if (actions[key]) {
    event.preventDefault();
    say("");
    actions[key]();
  }
});
document.addEventListener("click", () => say(""));

if (body) body.addEventListener("focusin", (event) => {
  const row = event.target.closest("tr");
  if (row && row.querySelector("a.open")) selected = idOf(row);
});

// On a phone, the filters would push the list off the screen.
const filters = document.querySelector("details.facets");
if (filters && matchMedia("(max-width: 640px)").matches) filters.open = false;

const box = document.getElementById("keys-on");
if (box) {
  box.checked = keysOn();
  box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
}

// What was wrong with the form that was sent.
document.getElementById("problem")?.focus();

// A key in a list has opened the incident with one of its forms.
const asked = /^#do-(.+)$/.exec(location.hash);
if (asked && decodeURIComponent(asked[1]) in FORMS) unfold(decodeURIComponent(asked[1]));

// Rows that the list shows are replaced in place, and say so if they are no longer in it; new rows wait behind a button,
// so that nothing moves by itself. The answer is false if it is worth another attempt.
async function refresh() {
  const query = new URLSearchParams(location.search);
  for (const row of rows()) query.append("shown", row.dataset.id);
  const answer = await fetch(`/rows?${query}`, { headers: { Accept: "text/html" } });
  if (!answer.ok) return answer.status < 429;
  const page = document.createElement("template");
  page.innerHTML = `<table>${await answer.text()}</table>`;
  const [first, later] = page.content.querySelectorAll("tbody");
  waiting = first;
  const shown = new Map(rows().map((row) => [row.dataset.id, row]));
  const fresh = [...first.querySelectorAll("tr[data-id]")].filter((row) => !shown.has(row.dataset.id)).length;
  for (const row of [first, later].flatMap((part) => [...part.querySelectorAll("tr[data-id]")])) {
    const old = shown.get(row.dataset.id);
    shown.delete(row.dataset.id);
    if (!old) continue;
    if (old.innerHTML === row.innerHTML) Object.assign(old.dataset, row.dataset);
    else {
      for (const name of ["selected", "marked"]) if (old.classList.contains(name)) row.classList.add(name);
      old.className = row.className;
      if (!old.contains(document.activeElement) || document.activeElement === old) {
        old.innerHTML = row.innerHTML;
        Object.assign(old.dataset, row.dataset);
      }
    }
  }
  for (const row of shown.values()) leave(row);
  offer(fresh, shown.size);
  return true;
}

function leave(row) {
  if (row.querySelector(".left")) return;
  const note = document.createElement("strong");
  note.className = "left";
  note.textContent = "no longer in this list";
  row.classList.add("gone");
  row.lastElementChild.append(note);
}

function offer(fresh, left) {
  const button = document.getElementById("new-rows");
  button.hidden = !fresh && !left;
  if (fresh) button.textContent = fresh === 1 ? "1 new row: show it" : `${fresh} new rows: show them`;
  else if (left === 1) button.textContent = "1 row is no longer in this list: remove it";
  else button.textContent = `${left} rows are no longer in this list: remove them`;
}

function showNew() {
  if (!waiting) return;
  body.replaceChildren(...waiting.cloneNode(true).childNodes);
  document.getElementById("new-rows").hidden = true;
  const ids = new Set(rows().map(idOf));
  for (const id of marked) if (!ids.has(id)) marked.delete(id);
  showMarks();
  rows().find((one) => idOf(one) === selected)?.classList.add("selected");
}

function follow(onChange) {
  // One stream for a browser: a seventh connection to one host would wait for ever. The tab that holds the lock has
  // the stream and informs the others.
  const channel = new BroadcastChannel("streamguard");
  channel.onmessage = () => onChange();
  const open = () => new Promise(() => {
    const source = new EventSource("/v1/stream");
    const changedNow = () => { channel.postMessage(1); onChange(); };
    source.addEventListener("changed", changedNow);
    source.addEventListener("open", changedNow); // what has changed between the list and the stream
  });
  if (navigator.locks) navigator.locks.request("streamguard-stream", { ifAvailable: true }, (lock) => {
    if (lock) return open();
    onChange();
    return void navigator.locks.request("streamguard-stream", open);
  });
  else open();
}

// A request at most every two seconds, and none while nobody looks: each person has a number of requests a minute for
// all tabs together.
const [PAUSE_MS, RETRY_MS] = [2000, 10000];
let due = false; // whether something has changed that the list may not show yet
let busy = false;
let next = 0; // time of the next request at the earliest

async function changed() {
  due = true;
  if (busy) return;
  busy = true;
  while (due && !document.hidden) {
    const wait = next - performance.now();
    if (wait > 0) {
      await new Promise((done) => setTimeout(done, wait));
      continue;
    }
    due = false;
    next = performance.now() + PAUSE_MS;
    if (!(await refresh().catch(() => false))) {
      [due, next] = [true, performance.now() + RETRY_MS];
    }
  }
  busy = false;
}

if (document.body.dataset.page === "incidents" && !new URLSearchParams(location.search).has("cursor")) {
  document.getElementById("new-rows").addEventListener("click", showNew);
  document.addEventListener("visibilitychange", () => { if (due) changed(); });
  follow(changed);
}
