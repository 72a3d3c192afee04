"""A live session shown on an SSH client's terminal, or as JSON to a program."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final, Protocol

from apps.gateway.screen import ScreenTracker
from apps.gateway.terminal_lines import plain
from apps.gateway.watched_output import LEAVE_SCREEN, RESET, OutputFilter
from apps.recordings.frames import (
    Event,
    EventKind,
    decode_open,
    decode_resize,
)

ENDS: Final = b"\x03\x1d"
"""Ctrl-C and Ctrl-]"""

GIVES_BACK: Final = b"\x1d"
"""Ctrl-], pressed by whom the typing was handed to."""

_BARE_END: Final = re.compile(rb"(?<!\r)\n")
_SHOWN: Final = frozenset({EventKind.OUTPUT, EventKind.STDERR, EventKind.NOTICE})


class Screen(Protocol):
    """Where a watch is shown: the watcher's channel."""

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Show bytes."""

    def is_closing(self) -> bool:
        """Say whether nothing more can be shown."""


class WatchScreen:
    """Draws the events of a watch.

    Of several channels each says what it is when it is its turn. `room` is set while
    the client takes what it is sent.
    """

    def __init__(
        self,
        screen: Screen,
        *,
        room: asyncio.Event,
        channel: int | None,
        as_json: bool,
        has_terminal: bool,
    ) -> None:
        self._screen = screen
        self._room = room
        self._only = channel
        self._as_json = as_json
        self._has_terminal = has_terminal
        self._filters: dict[int, OutputFilter] = {}
        self._trackers: dict[int, ScreenTracker] = {}
        self._names: dict[int, str] = {}
        self._terminals: set[int] = set()
        self._turn: int | None = None

    async def show(self, event: Event) -> None:
        """Show one event, when there is room for it."""
        await self._room.wait()
        if self._only is not None and event.channel not in {self._only, 0}:
            return
        if self._as_json:
            self._write((json.dumps(_told(event)) + "\n").encode())
        elif event.kind is EventKind.OPEN:
            self._opened(event)
        elif event.kind is EventKind.CLOSE:
            self._take_turn(event.channel)
            self.say("the channel closed")
            self._filters.pop(event.channel, None)
            self._trackers.pop(event.channel, None)
        elif event.kind in _SHOWN:
            self._take_turn(event.channel)
            shown = self._filters.setdefault(event.channel, OutputFilter())
            data = shown.feed(event.data)
            self._trackers.setdefault(event.channel, ScreenTracker()).feed(data)
            if self._has_terminal and event.channel not in self._terminals:
                # What was not made for a terminal ends its lines without a return.
                data = _BARE_END.sub(b"\r\n", data)
            self._write(data)

    def _opened(self, event: Event) -> None:
        told = decode_open(event.data)
        what = " ".join(filter(None, (told.kind, plain(told.command or ""))))
        size = f", {told.columns}x{told.rows}" if told.columns else ""
        if told.term is not None:
            self._terminals.add(event.channel)
        self._names[event.channel] = f"channel {event.channel}: {what[:200]}{size}"
        self._take_turn(event.channel)

    def _take_turn(self, channel: int) -> None:
        """Say whose output comes now, when it is not that of the one before."""
        if channel not in {self._turn, 0}:
            self._turn = channel
            self.say(self._names.get(channel, f"channel {channel}"))

    def say(self, line: str) -> None:
        """Show a line of ours."""
        if not self._as_json:
            self._write(f"\r\n--- {plain(line)} ---\r\n".encode())

    def leave(self) -> None:
        """Set the watcher's terminal back to what it was before."""
        if self._has_terminal and not self._as_json:
            left = any(tracker.full_screen for tracker in self._trackers.values())
            self._write((LEAVE_SCREEN if left else b"") + RESET)

    def _write(self, data: bytes) -> None:
        if data and not self._screen.is_closing():
            self._screen.write(data)


def _told(event: Event) -> dict[str, object]:
    told: dict[str, object] = {
        "microseconds": event.microseconds,
        "kind": event.kind.name.lower(),
        "channel": event.channel,
    }
    if event.kind in _SHOWN:
        told["text"] = event.data.decode("utf-8", "replace")
    elif event.kind is EventKind.OPEN:
        opened = decode_open(event.data)
        told |= {"what": opened.kind, "command": opened.command}
        told |= {"columns": opened.columns, "rows": opened.rows}
    elif event.kind is EventKind.RESIZE:
        columns, rows = decode_resize(event.data)
        told |= {"columns": columns, "rows": rows}
    return told


def ends_watch(typed: bytes) -> bool:
    """Say whether somebody who watches pressed what ends it."""
    return any(key in typed for key in ENDS)
