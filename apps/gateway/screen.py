"""What the output to a terminal says about its screen, without drawing it. Pure.

Only what is needed to put a line of ours on the screen without harm: whether the output
stands between two characters and outside of any control sequence, at the start of a
line, and whether a full-screen program has the screen. The cost is that of looking for
ESC in a piece; an ESC begins anew in every state of a terminal's parser (ECMA-48, DEC
STD 070), so that what comes before the last one does not matter.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

CANCEL: Final = b"\x18"
"""CAN: ends a control sequence that was begun, without doing it."""

_ESC: Final = b"\x1b"
_CARRY: Final = 32
"""Bytes of an unfinished sequence that are kept; a longer one is none of ours."""

_CSI_END: Final = re.compile(rb"[\x18\x1a\x40-\x7e\x80-\xff]")
_OSC_END: Final = re.compile(rb"[\x07\x18\x1a]")
_STRING_END: Final = re.compile(rb"[\x18\x1a]")
_SAVE_CURSOR: Final = re.compile(rb"\x1b7|\x1b\[s")
_PLACE: Final = re.compile(rb"\x1b\[[0-9;]*[Hf]")
_MODE: Final = re.compile(
    rb"\x1b(?:\[\?([0-9;]*)([hl])|(\[[0-9;]*[Hf])|7|\[s)",
)
"""A private mode, a place for the cursor, or a cursor that is saved."""
_ALTERNATE: Final = frozenset({b"47", b"1047", b"1049"})


class _State(Enum):
    GROUND = auto()
    ESCAPE = auto()
    CSI = auto()
    OSC = auto()
    STRING = auto()


_AFTER_ESCAPE: Final = {
    0x5B: _State.CSI,
    0x5D: _State.OSC,
    **dict.fromkeys(b"PX^_", _State.STRING),
}


class ScreenTracker:
    """Follows the output of one terminal."""

    def __init__(self) -> None:
        self._state = _State.GROUND
        self._carry = b""
        self._tail = b"\r\n"
        self._alternate = False
        self._hidden = self._placed = False
        self.saves_cursor = False
        """True when that program has used the terminal's one place for a cursor."""

    @property
    def full_screen(self) -> bool:
        """Say whether a program has the screen: the alternate one, or, as `top` does,
        the only one, with the cursor hidden and put to places."""
        return self._alternate or (self._hidden and self._placed)

    @property
    def at_boundary(self) -> bool:
        """Say whether something else may be shown here: nothing is half-way."""
        return self._state is _State.GROUND and not _is_cut(self._tail)

    @property
    def at_line_start(self) -> bool:
        """Say whether a line was ended and nothing shown since."""
        return self._state is _State.GROUND and self._tail[-2:] in {b"\r\n", b"\n\r"}

    def feed(self, data: bytes) -> None:
        """Take the next piece of output."""
        last = data.rfind(_ESC)
        if last < 0:
            if self._state is _State.GROUND:
                self._tail = (self._tail + data[-3:])[-3:]
            else:
                self._carry = (self._carry + data)[:_CARRY]
                self._follow_modes(self._carry)
                self._continue(data)
            return
        self._follow_modes(self._carry + data)
        self._state, self._tail = _State.ESCAPE, b""
        self._carry = data[last : last + _CARRY]
        self._continue(data[last + 1 :])

    def _continue(self, rest: bytes) -> None:
        """Go on from the state with bytes that hold no ESC."""
        at = 0
        if self._state is _State.ESCAPE:
            at = self._after_escape(rest)
        if self._state is _State.GROUND:
            self._tail = (self._tail + rest[at:][-3:])[-3:]
            self._carry = b""
            return
        end = {
            _State.CSI: _CSI_END,
            _State.OSC: _OSC_END,
            _State.STRING: _STRING_END,
        }.get(self._state)
        found = end.search(rest, at) if end is not None else None
        if found is not None:
            self._state, self._carry = _State.GROUND, b""
            self._tail = rest[found.end() :][-3:]

    def _after_escape(self, rest: bytes) -> int:
        """Read what follows ESC; return how many bytes of `rest` that took."""
        for at, byte in enumerate(rest):
            if byte in {0x18, 0x1A} or byte >= 0x30:
                self._state = _AFTER_ESCAPE.get(byte, _State.GROUND)
                return at + 1
        return len(rest)

    def _follow_modes(self, data: bytes) -> None:
        if b"\x1b[?" in data:
            for found in _MODE.finditer(data):
                self._follow_mode(found)
            return
        after = 0
        if self._hidden and not self._placed and (place := _PLACE.search(data)):
            self._place()
            after = place.end()
        if not self.saves_cursor and _SAVE_CURSOR.search(data, after):
            self.saves_cursor = True

    def _follow_mode(self, found: re.Match[bytes]) -> None:
        """Take one sequence of those that count, in the order they came."""
        private, on, place = found[1], found[2] == b"h", found[3]
        if private is None:
            if place is None:
                self.saves_cursor = True
            elif self._hidden and not self._placed:
                self._place()
            return
        modes = private.split(b";")
        if b"25" in modes:
            self._hidden, self._placed = not on, False
        if not _ALTERNATE.isdisjoint(modes):
            self._alternate, self.saves_cursor = on, False
        elif on and b"1048" in modes:
            self.saves_cursor = True

    def _place(self) -> None:
        self._placed = True
        if not self._alternate:
            self.saves_cursor = False


def _is_cut(tail: bytes) -> bool:
    """Say whether UTF-8 (RFC 3629) that ends in `tail` lacks bytes."""
    for count, byte in enumerate(reversed(tail), start=1):
        if 0x80 <= byte <= 0xBF:
            continue
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC2 else 1
        return byte <= 0xF4 and needed > count
    return False
