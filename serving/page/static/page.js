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

function mark() {
  if (!selected) return;
  if (!marked.delete(selected)) marked.add(selected);
  for (const row of rows()) row.classList.toggle("marked", marked.has(idOf(row)));
}

async function acknowledge() {
  // On an incident's page, its form; in the list, the marked rows or the selected one.
  const form = document.querySelector('form[data-key="a"]');
  if (form) { form.requestSubmit(); return; }
  const ids = marked.size ? [...marked] : selected ? [selected] : [];
  const byId = new Map(rows().map((row) => [idOf(row), row.dataset]));
  for (const id of ids) {
    // As the person saw it: if somebody else was faster, the server answers who and what.
    const { seen, expected } = byId.get(id) || {};
    const answer = await fetch(`/v1/incidents/${encodeURIComponent(id)}/actions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        kind: "acknowledge", assignee: document.body.dataset.caller,
        ...(seen === undefined ? {} : { seen: Number(seen), expected }),
      }),
    });
    if (!answer.ok) alert(`${id}: ${(await answer.json()).detail}`);
  }
  marked.clear();
  for (const row of rows()) row.classList.remove("marked");
  if (ids.length && document.getElementById("new-rows")) await refresh();
}

function unfold(key) {
  const part = document.querySelector(`details[data-key="${key}"]`);
  if (!part) return;
  part.open = true;
  part.querySelector("input:not([type=hidden])").focus();
}

const actions = {
  x: mark,
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
    actions[key]();
  }
});

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

// Rows that the list shows are replaced in place; new rows wait behind a button, so that nothing moves by itself.
async function refresh() {
  const answer = await fetch("/rows" + location.search, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = document.createElement("template");
  page.innerHTML = "<table><tbody>" + (await answer.text()) + "</tbody></table>";
  waiting = page.content.querySelector("tbody");
  const shown = new Map(rows().map((row) => [row.dataset.id, row]));
  let fresh = 0;
  for (const row of waiting.querySelectorAll("tr[data-id]")) {
    const old = shown.get(row.dataset.id);
    if (!old) fresh += 1;
    else if (old.innerHTML === row.innerHTML) Object.assign(old.dataset, row.dataset);
    else {
      for (const name of ["selected", "marked"]) if (old.classList.contains(name)) row.classList.add(name);
      old.className = row.className;
      if (!old.contains(document.activeElement) || document.activeElement === old) {
        old.innerHTML = row.innerHTML;
        Object.assign(old.dataset, row.dataset);
      }
    }
  }
  const button = document.getElementById("new-rows");
  button.hidden = fresh === 0;
  button.textContent = fresh === 1 ? "1 new row: show it" : `${fresh} new rows: show them`;
}

function showNew() {
  if (!waiting) return;
  body.replaceChildren(...waiting.childNodes);
  document.getElementById("new-rows").hidden = true;
  const row = rows().find((one) => idOf(one) === selected);
  if (row) row.classList.add("selected");
}

function follow(changed) {
  // One stream for a browser: a seventh connection to one host would wait for ever. The tab that holds the lock has
  // the stream and informs the others.
  const channel = new BroadcastChannel("streamguard");
  channel.onmessage = () => changed();
  const open = () => new Promise(() => {
    const source = new EventSource("/v1/stream");
    source.addEventListener("changed", (event) => {
      channel.postMessage(event.lastEventId);
      changed();
    });
  });
  if (navigator.locks) navigator.locks.request("streamguard-stream", open);
  else open();
}

if (document.body.dataset.page === "incidents" && !new URLSearchParams(location.search).has("cursor")) {
  document.getElementById("new-rows").addEventListener("click", showNew);
  let asked = false;
  let again = false;
  const changed = async () => {
    if (asked) { again = true; return; }
    asked = true;
    try { await refresh(); } finally { asked = false; }
    if (again) { again = false; setTimeout(changed, 500); }
  };
  follow(changed);
}
