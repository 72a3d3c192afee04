"""Export of a recording as asciicast v2, the format of asciinema's players.

Format: https://docs.asciinema.org/manual/asciicast/v2/. One JSON value per line: a
header, then `[seconds, code, text]` with code `o` (output), `i` (input), `r` (resize)
or `m` (marker; also what became of a file). Bytes that are not UTF-8 become U+FFFD:
the export is for looking at, the recording itself is the evidence. Input is left out
unless asked for, since it holds what was typed at password prompts; so are the packets
of file transfers. Pure, and it holds one event at a time.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from apps.recordings.frames import (
    TERMINAL_KINDS,
    Event,
    EventKind,
    decode_open,
    decode_resize,
)
from apps.recordings.manifest import decode_note, sentence

DEFAULT_COLUMNS: Final = 80
DEFAULT_ROWS: Final = 24
# No screen is larger, and a player asked for four billion columns takes its browser
# with it. The recording keeps what was really said.
MOST_COLUMNS: Final = 500
MOST_ROWS: Final = 200

_BEFORE_SIZE: Final = frozenset({EventKind.OPEN, EventKind.MARK, EventKind.FILE})
_HEADER_NAMES: Final = {"person", "asset", "account", "session"}


def cast_lines(
    events: Iterable[Event],
    *,
    header: Mapping[str, str],
    channel: int | None = None,
    include_input: bool = False,
) -> Iterator[str]:
    """Yield the lines of the export, each with its line feed.

    `channel` chooses one channel (and what concerns none, channel 0); None merges all.
    `header` is the recording's own. Raises: LayoutError for a malformed payload;
    whatever `events` raises.
    """
    screen = _Screen(include_input=include_input)
    first_line_sent = False
    for event in events:
        if channel is not None and event.channel not in (0, channel):
            continue
        sized = screen.resized_by(event)
        if not first_line_sent:
            if not sized and event.kind in _BEFORE_SIZE:
                # These may come before the window's size is known.
                screen.hold(event)
                continue
            yield _first_line(header, screen)
            first_line_sent = True
            yield from screen.release_held()
            if sized:
                continue
        yield from screen.lines_of(event, sized=sized)
    if not first_line_sent:
        yield _first_line(header, screen)
        yield from screen.release_held()
    yield from screen.unfinished_characters()


def first_terminal(events: Iterable[Event]) -> int | None:
    """Return the number of the first channel opened with a pty, None without one."""
    for event in events:
        if event.kind is EventKind.OPEN and decode_open(event.data).has_pty:
            return event.channel
    return None


class _Screen:
    """Window size, and one decoder per stream, since chunks split characters."""

    def __init__(self, *, include_input: bool) -> None:
        self.columns = DEFAULT_COLUMNS
        self.rows = DEFAULT_ROWS
        self._include_input = include_input
        self._decoders: dict[
            tuple[int, EventKind], tuple[codecs.BufferedIncrementalDecoder, str]
        ] = {}
        self._held: list[Event] = []
        self._files: set[int] = set()
        self._microseconds = 0

    def resized_by(self, event: Event) -> bool:
        """Take the window size from an event; True when it says one that a player
        can show (0 by 0 means unknown, RFC 4254 section 6.2)."""
        if event.kind is EventKind.RESIZE:
            columns, rows = decode_resize(event.data)
        elif event.kind is EventKind.OPEN:
            opened = decode_open(event.data)
            if opened.kind == "sftp":
                self._files.add(event.channel)
            columns, rows = opened.columns, opened.rows
        else:
            return False
        if columns <= 0 or rows <= 0:
            return False
        self.columns = min(columns, MOST_COLUMNS)
        self.rows = min(rows, MOST_ROWS)
        return True

    def hold(self, event: Event) -> None:
        """Keep an event back until the first line is out."""
        self._held.append(event)

    def release_held(self) -> Iterator[str]:
        """Yield the lines of what was held."""
        held, self._held = self._held, []
        for event in held:
            yield from self.lines_of(event, sized=False)

    def lines_of(self, event: Event, *, sized: bool) -> Iterator[str]:
        """Yield the lines for an event, none or one."""
        kind = event.kind
        self._microseconds = event.microseconds
        if sized:
            yield _line(event.microseconds, "r", f"{self.columns}x{self.rows}")
        elif kind in TERMINAL_KINDS:
            if event.channel in self._files:
                # Packets of a file transfer are nothing to look at.
                return
            if kind is not EventKind.INPUT or self._include_input:
                yield from self._stream_line(event)
        elif kind is EventKind.NOTICE:
            yield _line(event.microseconds, "o", event.data.decode("utf-8", "replace"))
        elif kind is EventKind.FILE:
            yield _line(event.microseconds, "m", sentence(decode_note(event.data)))
        elif kind is EventKind.MARK:
            yield _line(event.microseconds, "m", event.data.decode("utf-8", "replace"))

    def _stream_line(self, event: Event) -> Iterator[str]:
        stream = (event.channel, event.kind)
        if stream not in self._decoders:
            code = "i" if event.kind is EventKind.INPUT else "o"
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoders[stream] = (decoder, code)
        decoder, code = self._decoders[stream]
        text = decoder.decode(event.data)
        if text:
            yield _line(event.microseconds, code, text)

    def unfinished_characters(self) -> Iterator[str]:
        """Yield what the streams still owe when all events are through."""
        for decoder, code in self._decoders.values():
            text = decoder.decode(b"", final=True)
            if text:
                yield _line(self._microseconds, code, text)


def _first_line(header: Mapping[str, str], screen: _Screen) -> str:
    first: dict[str, object] = {
        "version": 2,
        "width": screen.columns,
        "height": screen.rows,
    }
    if "started_at" in header:
        first["timestamp"] = int(
            datetime.fromisoformat(header["started_at"]).timestamp()
        )
    title = " ".join(
        f"{name} {header[name]}" for name in sorted(_HEADER_NAMES & header.keys())
    )
    if title:
        first["title"] = title
    return json.dumps(first, ensure_ascii=False) + "\n"


def _line(microseconds: int, code: str, text: str) -> str:
    return json.dumps([microseconds / 1_000_000, code, text], ensure_ascii=False) + "\n"
