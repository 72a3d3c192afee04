// Replay: asciinema-player shows the screen, the controls below it are our own, so that
// they speak, take the keyboard and can give out a link to a second.
import { clockFace } from "./countdown.js";

const IDLE_SECONDS = 2;
const SHOW_EVERY_MS = 250;

const frame = document.getElementById("replay");
const screen = frame.querySelector("[data-replay-screen]");
const controls = frame.querySelector("[data-replay-controls]");
const problem = frame.querySelector("[data-replay-problem]");
const play = frame.querySelector("[data-replay-play]");
const speed = document.getElementById("replay-speed");
const idle = document.getElementById("replay-idle");
const seek = document.getElementById("replay-seek");
const link = document.getElementById("replay-link");
const channel = document.getElementById("channel");

let player = null;
let text = "";
let seconds = 0;
let playing = false;
let dragging = false;

/** Seconds and [columns, rows] of each change of the window, and the length. */
function readCast(cast) {
  const lines = cast.split("\n").filter(Boolean);
  const header = JSON.parse(lines[0]);
  const sizes = [[0, `${header.width}x${header.height}`]];
  let last = 0;
  for (const line of lines.slice(1)) {
    const [at, code, data] = JSON.parse(line);
    last = at;
    if (code === "r") sizes.push([at, data]);
  }
  return { sizes, length: last };
}

let facts = { sizes: [], length: 0 };

function showTime() {
  frame.querySelector("[data-replay-now]").textContent = clockFace(Math.floor(seconds));
  if (!dragging) seek.value = String(Math.floor(seconds));
  seek.setAttribute("aria-valuetext", clockFace(Math.floor(seconds)));
  const size = facts.sizes.filter(([at]) => at <= seconds).at(-1);
  if (size) frame.querySelector("[data-replay-size]").textContent = size[1].replace("x", " × ");
  const url = new URL(window.location.pathname, window.location.origin);
  if (channel) url.searchParams.set("channel", channel.value);
  url.searchParams.set("t", String(Math.floor(seconds)));
  link.textContent = url.href;
}

function showPlaying(now) {
  playing = now;
  play.textContent = now ? "Pause" : "Play";
}

function create(startAt, andPlay) {
  player?.dispose();
  screen.replaceChildren();
  const holder = document.createElement("div");
  screen.append(holder);
  player = window.AsciinemaPlayer.create({ data: text }, holder, {
    controls: false,
    fit: "width",
    idleTimeLimit: idle.checked ? IDLE_SECONDS : undefined,
    poster: `npt:${startAt}`,
    preload: true,
    speed: Number(speed.value),
    startAt,
    terminalFontFamily:
      'ui-monospace, "Cascadia Mono", "Liberation Mono", "DejaVu Sans Mono", monospace',
    theme: "asciinema",
  });
  player.addEventListener("play", () => showPlaying(true));
  player.addEventListener("pause", () => showPlaying(false));
  player.addEventListener("ended", () => showPlaying(false));
  showPlaying(false);
  if (andPlay) void player.play();
}

async function tick() {
  if (!player || dragging) return;
  const now = await player.getCurrentTime();
  // What was asked before a seek must not move the clock back.
  if (typeof now === "number" && now !== seconds && !dragging) {
    seconds = now;
    showTime();
  }
}

async function start() {
  const response = await fetch(frame.dataset.cast, { credentials: "same-origin" });
  if (!response.ok) throw new Error(String(response.status));
  text = await response.text();
  facts = readCast(text);
  seconds = Math.min(Number(frame.dataset.start) || 0, Math.floor(facts.length));
  seek.max = String(Math.max(1, Math.ceil(facts.length)));
  frame.querySelector("[data-replay-length]").textContent = clockFace(Math.ceil(facts.length));
  create(seconds, false);
  showTime();
  controls.hidden = false;
  window.setInterval(() => void tick(), SHOW_EVERY_MS);
}

play.addEventListener("click", () => void (playing ? player.pause() : player.play()));
speed.addEventListener("change", () => create(seconds, playing));
idle.addEventListener("change", () => create(seconds, playing));
seek.addEventListener("input", () => {
  dragging = true;
  seconds = Number(seek.value);
  showTime();
});
seek.addEventListener("change", async () => {
  await player.seek(Number(seek.value));
  dragging = false;
  await tick();
});

start().catch(() => {
  problem.textContent =
    "The recording could not be read. If it is broken, its state beside the title says so.";
  problem.hidden = false;
});
