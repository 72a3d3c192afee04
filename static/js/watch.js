// Watching a live session. Binary messages are events as the recording numbers them:
// number u64, kind u8, channel u32, microseconds u64, then the payload (big-endian).
// Numbers only grow. One that does not, or a broken line, means: start over, because the
// gateway sends the last part of the recording first each time.
import { TERMINAL_OPTIONS, showEnd, showNotice, showState, socketUrl } from "./terminal_state.js";

const OUTPUT = 2;
const STDERR = 3;
const RESIZE = 4;
const OPEN = 5;
const CLOSE = 6;
const NOTICE = 8;
const HEAD_BYTES = 21;
const PIECE_BYTES = 16 * 1024;
const RETRY_FIRST_MS = 1_000;
const RETRY_LAST_MS = 15_000;
// How much the screen may lag behind before the socket is left unread.
const UNWRITTEN_BYTES = 1 << 20;

const frame = document.getElementById("watch");
const screen = frame.querySelector("[data-terminal-screen]");
const chooser = document.getElementById("watch-channel");
const { Terminal } = await import(frame.dataset.xterm);
const decoder = new TextDecoder();

const channels = new Map();
let shown = null;
let lastNumber = -1n;
let retryMs = RETRY_FIRST_MS;
let finished = false;
let unwritten = 0;
let types = false;
let socket = null;
const encoder = new TextEncoder();

function choose(number) {
  shown = number;
  chooser.value = String(number);
  for (const [other, channel] of channels) channel.element.hidden = other !== number;
}

function channelFor(number) {
  if (channels.has(number)) return channels.get(number);
  const element = document.createElement("div");
  screen.append(element);
  const terminal = new Terminal({ ...TERMINAL_OPTIONS, disableStdin: !types });
  terminal.open(element);
  terminal.parser.registerOscHandler(52, () => true);
  terminal.onData((text) => type(encoder.encode(text)));
  terminal.onBinary((text) => type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  // The way out for the keyboard, since Tab belongs to the host (WCAG 2.1.2).
  terminal.attachCustomKeyEventHandler((event) => {
    if (!(event.ctrlKey && event.shiftKey && event.key === "F6")) return true;
    if (event.type === "keydown") document.getElementById("take-back-button")?.focus();
    return false;
  });
  const channel = { element, terminal };
  channels.set(number, channel);
  chooser.add(new Option(`${number}`, String(number)));
  frame.querySelector("[data-watch-channels]").hidden = channels.size < 2;
  choose(shown ?? number);
  return channel;
}

/** Send what was typed, in pieces, while the typing is handed to this page. */
function type(bytes) {
  if (!types || socket?.readyState !== WebSocket.OPEN) return;
  for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
    socket.send(bytes.slice(from, from + PIECE_BYTES));
  }
}

function setTyping(allowed) {
  types = allowed;
  for (const { terminal } of channels.values()) {
    terminal.options.disableStdin = !allowed;
    terminal.options.cursorBlink = allowed;
  }
  showState(frame, allowed ? "warn" : "live", allowed ? "You type" : "Live");
  showNotice(frame, allowed ? "You type now. Ctrl Shift F6 leaves the terminal." : "");
  if (allowed) channels.get(shown)?.terminal.focus();
}

function startOver() {
  for (const { element, terminal } of channels.values()) {
    terminal.dispose();
    element.remove();
  }
  channels.clear();
  chooser.replaceChildren();
  types = false;
  shown = null;
  lastNumber = -1n;
}

function resize(terminal, columns, rows) {
  if (columns > 0 && rows > 0) terminal.resize(Math.min(columns, 500), Math.min(rows, 200));
}

function opened(number, payload) {
  const told = JSON.parse(decoder.decode(payload));
  const channel = channelFor(number);
  resize(channel.terminal, told.columns, told.rows);
  const name = told.command ? `${number} ${told.kind} ${told.command}` : `${number} ${told.kind}`;
  chooser.querySelector(`option[value="${number}"]`).textContent = name.slice(0, 60);
  choose(number);
}

function show(buffer) {
  const view = new DataView(buffer);
  const number = view.getBigUint64(0);
  if (number <= lastNumber) return false;
  lastNumber = number;
  const kind = view.getUint8(8);
  const channel = view.getUint32(9);
  const payload = new Uint8Array(buffer, HEAD_BYTES);
  if (kind === OPEN) opened(channel, payload);
  else if (kind === RESIZE) {
    const size = new DataView(buffer, HEAD_BYTES);
    resize(channelFor(channel).terminal, size.getUint32(0), size.getUint32(4));
  } else if (kind === OUTPUT || kind === STDERR || kind === NOTICE) {
    unwritten += payload.length;
    const target = channelFor(channel || shown || 1).terminal;
    target.write(payload, () => {
      unwritten -= payload.length;
    });
  } else if (kind === CLOSE && channels.has(channel)) {
    channels.get(channel).terminal.write("\r\n[channel closed]\r\n");
  }
  return true;
}

function finish(text) {
  finished = true;
  showEnd(frame, text);
}

function control(text) {
  const message = JSON.parse(text);
  if (message.type === "ready") {
    retryMs = RETRY_FIRST_MS;
    showState(frame, "live", "Live");
  } else if (message.type === "typing") setTyping(message.allowed);
  else if (message.type === "notice") showNotice(frame, message.text);
  else if (message.type === "exit") finish(message.message || "The session has ended.");
  else if (message.type === "error") finish(message.text);
  else if (message.type === "closed") finish("The session has ended.");
}

function connect() {
  socket = new WebSocket(socketUrl(frame.dataset.socket));
  socket.binaryType = "arraybuffer";
  let accepted = false;
  socket.addEventListener("open", () => {
    accepted = true;
    startOver();
  });
  socket.addEventListener("message", ({ data }) => {
    if (typeof data === "string") {
      control(data);
    } else if (!show(data) || unwritten > UNWRITTEN_BYTES * 8) {
      // Out of order, or so far behind that catching up is pointless: begin anew.
      socket.close();
    }
  });
  socket.addEventListener("close", ({ code }) => {
    if (finished) return;
    if (!accepted || code === 4401 || code === 4404) {
      finish("This session cannot be watched: it has ended, or it is not yours to see.");
      return;
    }
    showState(frame, "warn", "Line broken, trying again");
    window.setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_LAST_MS);
  });
}

chooser.addEventListener("change", () => choose(Number(chooser.value)));
connect();
