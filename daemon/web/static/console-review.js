// The keys of the review queue. Without this script everything works by its buttons and links.
"use strict";

const SWITCH = "optoutd-review-keys"; // "off" in this browser's memory: somebody does not want them

function typing(target) {
  return target instanceof Element && target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], dialog") !== null;
}

function items() {
  return Array.from(document.querySelectorAll("a[data-item]"));
}

// In the list: from row to row. On the page of an item: to the item beside it.
function move(key, by) {
  const rows = items();
  const link = document.querySelector(`a[data-key="${key}"]`);
  if (rows.length === 0) {
    if (link) link.click();
    return;
  }
  const row = document.activeElement ? document.activeElement.closest("tr") : null;
  const here = rows.findIndex((a) => a.closest("tr") === row);
  const there = here < 0 ? 0 : Math.min(Math.max(here + by, 0), rows.length - 1);
  rows[there].focus();
}

function tick() {
  const row = document.activeElement ? document.activeElement.closest("tr") : null;
  const box = row && row.querySelector("input[type=checkbox]");
  if (box) box.checked = !box.checked;
}

function decide(key) {
  if (performance.now() - shownAt < 500) return; // meant for the item before, which is decided already
  const button = document.querySelector(`button[data-key="${key}"]`);
  const ticked = items().length === 0 || document.querySelector("input[name=item]:checked") !== null;
  if (!button || button.disabled || !ticked) return;
  button.click();
  setTimeout(() => { button.disabled = true; }, 0); // a key that is hit twice decides once
}

function help() {
  const dialog = document.getElementById("keys-help");
  if (!dialog.open) dialog.showModal();
}

const KEYS = {
  j: () => move("j", 1),
  k: () => move("k", -1),
  x: tick,
  a: () => decide("a"),
  r: () => decide("r"),
  "?": help,
};

function wanted() {
  try {
    return localStorage.getItem(SWITCH) !== "off";
  } catch {
    return true; // a browser that remembers nothing
  }
}

const shownAt = performance.now();
let on = wanted();
const button = document.getElementById("keys-switch");

function tell() {
  button.textContent = on ? "Keys are on" : "Keys are off";
  button.setAttribute("aria-pressed", String(on));
}

button.addEventListener("click", () => {
  on = !on;
  try {
    localStorage.setItem(SWITCH, on ? "on" : "off");
  } catch {
    // for this page only, then
  }
  tell();
});

document.addEventListener("keydown", (event) => {
  const bare = !(event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat);
  if (!on || !bare || event.defaultPrevented || typing(event.target) || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

document.getElementById("keys-hint").hidden = false;
tell();
