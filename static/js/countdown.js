// Countdown: [data-ends-at] (RFC 3339) is counted down in the <time> inside it.
// The server's clock counts: data-now is its time when the page was written, so a wrong
// clock on the engineer's machine shows no wrong minute. Said aloud at 15, 5 and 1
// minutes only. At zero a bubbling "sluice:deadline" event is sent, once.
import { announce } from "./announce.js";

const SAID_AT_MINUTES = [15, 5, 1];
const SOON_SECONDS = 5 * 60;
const offsets = new WeakMap();
const lastSeconds = new WeakMap();

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** "41:12", or "2:05:00" from an hour on. `seconds` is a whole number >= 0. */
export function clockFace(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = twoDigits(seconds % 60);
  return hours ? `${hours}:${twoDigits(minutes)}:${rest}` : `${twoDigits(minutes)}:${rest}`;
}

/** ISO 8601 duration for <time datetime>, such as PT41M12S. */
export function isoDuration(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  return `PT${hours ? `${hours}H` : ""}${minutes ? `${minutes}M` : ""}${seconds % 60}S`;
}

/** The minute mark crossed between two readings, or null. The largest one wins. */
export function crossedMark(before, after) {
  for (const minutes of SAID_AT_MINUTES) {
    if (before > minutes * 60 && after <= minutes * 60 && after > 0) return minutes;
  }
  return null;
}

function serverOffset(clock) {
  if (!offsets.has(clock)) {
    const now = Date.parse(clock.dataset.now ?? "");
    offsets.set(clock, Number.isNaN(now) ? 0 : now - Date.now());
  }
  return offsets.get(clock);
}

function tick(clock) {
  const end = Date.parse(clock.dataset.endsAt);
  if (Number.isNaN(end)) return;
  const left = (end - Date.now() - serverOffset(clock)) / 1000;
  const seconds = Math.max(0, Math.ceil(left));
  const before = lastSeconds.get(clock);
  if (before === seconds) return;
  lastSeconds.set(clock, seconds);

  const face = clock.querySelector("time");
  if (face) {
    face.textContent = clockFace(seconds);
    face.setAttribute("datetime", isoDuration(seconds));
  }
  const bar = clock.querySelector("progress");
  if (bar) bar.value = Math.min(seconds, bar.max);
  clock.classList.toggle("soon", seconds < SOON_SECONDS);
  const warning = clock.querySelector("[data-soon]");
  if (warning) warning.hidden = seconds >= SOON_SECONDS || seconds === 0;

  if (before === undefined) return;
  const mark = crossedMark(before, seconds);
  const label = clock.dataset.label || "Access";
  if (mark !== null) {
    announce(`${label} ends in ${mark} ${mark === 1 ? "minute" : "minutes"}.`);
  }
  if (seconds === 0) {
    announce(`${label} has ended.`);
    clock.dispatchEvent(new CustomEvent("sluice:deadline", { bubbles: true }));
  }
}

function tickAll() {
  for (const clock of document.querySelectorAll("[data-ends-at]")) tick(clock);
}

window.setInterval(tickAll, 250);
document.addEventListener("visibilitychange", tickAll);
tickAll();
