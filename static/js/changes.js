// Changes: the server says what changed, the page fetches the fragment again.
//
// An element asks for it with data-changes="access sessions.session" and
// hx-trigger="sluice:changed"; which rows it may show is decided by the view alone.
// Messages on the WebSocket are JSON: {"changed": ["access.grant.revoked"]}, where a
// topic is an audit kind. An element's topic matches itself and everything below it
// ("access" matches "access.grant.revoked"). While the socket is down everything is
// polled, slower and slower, and rarely in a hidden tab.

const POLL_FIRST_MS = 5_000;
const POLL_LAST_MS = 60_000;
const POLL_HIDDEN_MS = 120_000;
const RETRY_FIRST_MS = 1_000;
const RETRY_LAST_MS = 60_000;
const DEADLINE_SETTLE_MS = 700;

let pollMs = POLL_FIRST_MS;
let retryMs = RETRY_FIRST_MS;
let pollTimer = 0;
let socket = null;

function matches(element, topics) {
  const wanted = element.dataset.changes.split(/\s+/).filter(Boolean);
  return topics.some((topic) =>
    wanted.some((name) => topic === name || topic.startsWith(`${name}.`)),
  );
}

/** Somebody is writing inside: fetching again now would throw the words away. */
function isBeingEdited(element) {
  const active = document.activeElement;
  return (
    active instanceof HTMLElement &&
    element.contains(active) &&
    active.matches("input:not([type=checkbox], [type=radio]), textarea, select")
  );
}

function refresh(element) {
  if (isBeingEdited(element)) {
    document.activeElement.addEventListener("blur", () => refresh(element), {
      once: true,
    });
    return;
  }
  element.dispatchEvent(new CustomEvent("sluice:changed"));
}

function refreshTopics(topics) {
  for (const element of document.querySelectorAll("[data-changes]")) {
    if (matches(element, topics)) refresh(element);
  }
}

function refreshAll() {
  for (const element of document.querySelectorAll("[data-changes]")) refresh(element);
}

function schedulePoll() {
  window.clearTimeout(pollTimer);
  const wait = document.hidden ? POLL_HIDDEN_MS : pollMs;
  pollTimer = window.setTimeout(() => {
    refreshAll();
    pollMs = Math.min(pollMs * 1.5, POLL_LAST_MS);
    schedulePoll();
  }, wait);
}

function stopPolling() {
  window.clearTimeout(pollTimer);
  pollTimer = 0;
  pollMs = POLL_FIRST_MS;
}

function read(message) {
  let parsed;
  try {
    parsed = JSON.parse(message);
  } catch {
    return; // not ours; the next message or a poll repairs what was missed
  }
  if (Array.isArray(parsed?.changed)) refreshTopics(parsed.changed.map(String));
}

function connect() {
  const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
  let wasOpen = false;
  socket = new WebSocket(`${scheme}//${window.location.host}/ws/changes/`);
  socket.addEventListener("open", () => {
    wasOpen = true;
    retryMs = RETRY_FIRST_MS;
    stopPolling();
  });
  socket.addEventListener("message", (event) => read(event.data));
  socket.addEventListener("close", () => {
    // What changed while nobody listened is not repeated: fetch once, then poll.
    if (wasOpen) refreshAll();
    if (!pollTimer) schedulePoll();
    window.setTimeout(reconnect, retryMs + jitter());
    retryMs = Math.min(retryMs * 2, RETRY_LAST_MS);
  });
}

function reconnect() {
  if (document.hidden) {
    document.addEventListener("visibilitychange", reconnect, { once: true });
    return;
  }
  connect();
  // Missed while away: one fetch as soon as the line is back.
  socket.addEventListener("open", refreshAll, { once: true });
}

/** Up to a second, so that a restart is not met by every browser at once. */
function jitter() {
  return window.crypto.getRandomValues(new Uint16Array(1))[0] % 1_000;
}

function start() {
  if (!document.querySelector("[data-changes]")) return;
  connect();
  document.addEventListener("visibilitychange", () => {
    if (pollTimer) schedulePoll();
    if (!document.hidden && pollTimer) refreshAll();
  });
  document.addEventListener("sluice:deadline", () => {
    window.setTimeout(refreshAll, DEADLINE_SETTLE_MS);
  });
  window.addEventListener("pagehide", () => socket?.close());
}

start();
