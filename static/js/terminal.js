// A terminal in the browser. Text messages are JSON for control, binary ones are bytes.
// It never reconnects by itself: a new session is a new decision by the person.
import { TERMINAL_OPTIONS, showEnd, showNotice, showState, socketUrl } from "./terminal_state.js";

const PIECE_BYTES = 16 * 1024;
// Above this, typing and pasting wait until the browser has sent what it holds.
const HELD_BYTES = 256 * 1024;

const frame = document.getElementById("terminal");
const screen = frame.querySelector("[data-terminal-screen]");
const { Terminal } = await import(frame.dataset.xterm);
const { FitAddon } = await import(frame.dataset.fit);

const terminal = new Terminal({ ...TERMINAL_OPTIONS, cursorBlink: true });
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(screen);
fit.fit();

const socket = new WebSocket(socketUrl(frame.dataset.socket));
socket.binaryType = "arraybuffer";
const encoder = new TextEncoder();
let waiting = [];
let ended = false;
let ready = false;

function sendSize() {
  if (socket.readyState !== WebSocket.OPEN) return;
  const { cols: columns, rows } = terminal;
  socket.send(JSON.stringify({ type: "resize", columns, rows }));
}

/** Send what waits, in pieces, as fast as the socket takes it. */
function sendWaiting() {
  while (waiting.length && socket.bufferedAmount < HELD_BYTES) socket.send(waiting.shift());
  if (waiting.length) window.setTimeout(sendWaiting, 20);
}

function type(bytes) {
  if (socket.readyState !== WebSocket.OPEN) return;
  for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
    waiting.push(bytes.slice(from, from + PIECE_BYTES));
  }
  sendWaiting();
}

function end(text) {
  if (ended) return;
  ended = true;
  waiting = [];
  terminal.options.disableStdin = true;
  terminal.options.cursorBlink = false;
  frame.querySelector("[data-terminal-close]").hidden = true;
  showEnd(frame, text);
  socket.close();
}

function exitText({ message, signal, status }) {
  if (message) return message;
  if (signal) return `The shell ended by signal ${signal}.`;
  return `The shell ended${status ? ` with status ${status}` : ""}.`;
}

function control(text) {
  const message = JSON.parse(text);
  if (message.type === "ready") {
    ready = true;
    showState(frame, "live", `Live · ${message.session ?? ""}`.trim());
    frame.querySelector("[data-terminal-close]").hidden = false;
    terminal.focus();
  } else if (message.type === "notice") {
    showNotice(frame, message.text);
  } else if (message.type === "exit") {
    end(exitText(message));
  } else if (message.type === "error") {
    end(message.text);
  } else if (message.type === "closed") {
    end("The gateway closed the session.");
  }
}

socket.addEventListener("open", () => {
  showState(frame, "idle", "Connecting");
  sendSize();
});
socket.addEventListener("message", ({ data }) => {
  if (typeof data === "string") control(data);
  else terminal.write(new Uint8Array(data));
});
socket.addEventListener("close", ({ code }) => {
  if (code === 4401) end("You are no longer signed in, so the session was ended.");
  else if (!ready) {
    end("This terminal cannot be opened: the access has ended, or no gateway is running.");
  } else end("The connection to Sluice broke. The session has ended.");
});

terminal.onData((text) => type(encoder.encode(text)));
terminal.onBinary((text) => type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
terminal.onResize(sendSize);
// OSC 52: a host must neither read nor fill the engineer's clipboard.
terminal.parser.registerOscHandler(52, () => true);
// The way out for the keyboard, since Tab belongs to the host (WCAG 2.1.2).
terminal.attachCustomKeyEventHandler((event) => {
  if (event.ctrlKey && event.shiftKey && event.key === "F6") {
    if (event.type === "keydown") frame.querySelector("[data-terminal-close]").focus();
    return false;
  }
  return true;
});
new ResizeObserver(() => fit.fit()).observe(screen);
frame.querySelector("[data-terminal-close]").addEventListener("click", () => {
  end("You disconnected.");
});
window.addEventListener("pagehide", () => socket.close());
