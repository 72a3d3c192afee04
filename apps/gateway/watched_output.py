"""What an asset prints, made fit for the terminal of somebody who only looks. Pure.

The screen must look the same; but a watcher's terminal is asked nothing, answers
nothing, and is told nothing beside what to draw: no clipboard, no title, no printer, no
files. Whoever watches a broken-in asset with more rights than it has must not be
reachable through the picture. What a terminal would answer goes nowhere anyway, unless
somebody's typing has been handed over.

Control sequences are those of ECMA-48 and xterm. Text is UTF-8; other bytes become the
replacement character.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum, auto
from typing import Final

SEQUENCE_LIMIT: Final = 256
"""Characters of one control sequence; a longer one is dropped."""

RESET: Final = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l"
    b"\x1b[?25h\x1b[0m\x1b(B\x0f"
)
"""Sets back what a program that still runs may have left on: mouse, paste, colours."""

LEAVE_SCREEN: Final = b"\x1b[?1049l"
"""Leaves a program's own screen. Elsewhere it would move the cursor."""

_SPECIAL: Final = re.compile("[\x05\x1b\x80-\x9f]")
_STRINGS: Final = "]PX^_"
_ASKS: Final = re.compile(
    r"""
    [^\x40-\x7e]*[cnxtyi]   # device attributes, status, reports, windows, tests, print
    | .*\$[pwu] | .*&u | .*\*y | .*'[|]  # modes, states, checksums, the mouse
    | [>=?].*[qumS]         # version, keyboard, colours, graphics: asked for
    """,
    re.VERBOSE | re.DOTALL,
)


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()
    SEQUENCE = auto()
    STRING = auto()
    STRING_ESCAPE = auto()


class OutputFilter:
    """Takes the output of one channel in any pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = _State.TEXT
        self._held = ""

    def feed(self, data: bytes) -> bytes:
        """Return what of `data`, and of what was held, may be shown."""
        text = self._decoder.decode(data)
        if self._state is _State.TEXT and _SPECIAL.search(text) is None:
            return text.encode()
        return "".join(self._take(char) for char in text).encode()

    def _take(self, char: str) -> str:
        if char == "\x05" or "\x80" <= char <= "\x9f":
            # ENQ asks for an answer; the 8-bit controls have 7-bit forms.
            return ""
        if char in "\x18\x1a" and self._state is not _State.TEXT:
            self._state, self._held = _State.TEXT, ""
            return ""
        match self._state:
            case _State.TEXT:
                return self._in_text(char)
            case _State.ESCAPE:
                return self._after_escape(char)
            case _State.SEQUENCE:
                return self._in_sequence(char)
            case _State.STRING:
                return self._in_string(char)
            case _State.STRING_ESCAPE:
                self._state = _State.TEXT
                return "" if char == "\\" else self._begin(char)

    def _in_text(self, char: str) -> str:
        if char == "\x1b":
            self._state, self._held = _State.ESCAPE, char
            return ""
        return char

    def _begin(self, char: str) -> str:
        self._state, self._held = _State.ESCAPE, "\x1b"
        return self._after_escape(char)

    def _after_escape(self, char: str) -> str:
        if char == "\x1b":
            self._held = char
            return ""
        if char == "[" and self._held == "\x1b":
            self._state, self._held = _State.SEQUENCE, ""
            return ""
        if char in _STRINGS and self._held == "\x1b":
            self._state, self._held = _State.STRING, ""
            return ""
        if char < " ":
            # Controls inside a sequence are carried out at once.
            return char
        held = self._held + char
        if char <= "/" and len(held) < SEQUENCE_LIMIT:
            self._held = held
            return ""
        self._state, self._held = _State.TEXT, ""
        # ESC Z asks who is there; what is no sequence at all is dropped.
        return "" if held == "\x1bZ" or not "0" <= char <= "~" else held

    def _in_sequence(self, char: str) -> str:
        if char == "\x1b":
            self._state, self._held = _State.ESCAPE, char
            return ""
        if char < " ":
            return char
        self._held += char
        if not "@" <= char <= "~":
            if len(self._held) > SEQUENCE_LIMIT or char > "~":
                self._state, self._held = _State.TEXT, ""
            return ""
        sequence, self._held = self._held, ""
        self._state = _State.TEXT
        return "" if _ASKS.fullmatch(sequence) else f"\x1b[{sequence}"

    def _in_string(self, char: str) -> str:
        if char == "\x07":
            self._state = _State.TEXT
        elif char == "\x1b":
            self._state = _State.STRING_ESCAPE
        return ""
