// What a terminal page says about its connection: a badge, and a final message.
import { announce } from "./announce.js";

/** Show `text` in the badge of `kind` (live, warn, idle) and say it aloud. */
export function showState(frame, kind, text) {
  const badge = frame.querySelector("[data-terminal-state]");
  if (!badge) return;
  badge.className = `badge ${kind}`;
  badge.textContent = text;
  announce(text);
}

/** Show one line from Sluice, such as how much time is left, and say it aloud. */
export function showNotice(frame, text) {
  frame.querySelector("[data-terminal-notice]").textContent = text;
  announce(text);
}

/** Show the final state: nothing more will come, and why. The clock counts no more. */
export function showEnd(frame, text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  frame.querySelector("[data-terminal-message]").textContent = sentence;
  frame.querySelector("[data-terminal-end]").hidden = false;
  frame.querySelector("[data-terminal-notice]").textContent = "";
  frame.querySelector("[data-ends-at]")?.remove();
  showState(frame, "idle", "Ended");
}

/** The WebSocket's address for a path on this host. */
export function socketUrl(path) {
  const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${window.location.host}${path}`;
}

/** xterm.js options that every terminal here shares; nothing may leave the page. */
export const TERMINAL_OPTIONS = {
  allowProposedApi: false,
  cursorBlink: false,
  fontFamily: 'ui-monospace, "Cascadia Mono", "Liberation Mono", "DejaVu Sans Mono", monospace',
  fontSize: 14,
  // Links in plant output are never made clickable.
  linkHandler: { activate() {}, allowNonHttpProtocols: false },
  screenReaderMode: true,
  scrollback: 5000,
  theme: { background: "#15181b", foreground: "#d7dce1" },
};
