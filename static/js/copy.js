// Copy buttons. <button data-copy="id-of-the-text" hidden> copies that element's text;
// where the clipboard is refused (plain http, policy) the text is selected instead.
import { announce } from "./announce.js";

const SHOWN_MS = 2000;
const labels = new WeakMap();

function select(source) {
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

function show(button, text) {
  if (!labels.has(button)) labels.set(button, button.textContent);
  button.textContent = text;
  announce(text);
  window.setTimeout(() => {
    button.textContent = labels.get(button);
  }, SHOWN_MS);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  if (!source) return;
  // A list is copied one entry a line, without the markup's white space.
  const lines = (source.value ?? source.textContent).split("\n");
  const text = lines.map((line) => line.trim()).filter(Boolean).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    show(button, "Copied");
  } catch {
    select(source);
    show(button, "Selected");
  }
}

function reveal(root) {
  for (const button of root.querySelectorAll("button[data-copy][hidden]")) {
    button.hidden = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) void copy(button);
});
document.addEventListener("htmx:load", (event) => reveal(event.target));
reveal(document);
