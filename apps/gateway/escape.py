"""In-band commands: an escape character at the start of a line, then one letter. Pure.

Whatever is no command passes untouched. A pasted block is never one: the escape counts
only alone in its packet and not at once after a long one, and the letter only alone.
Clients send each key in a packet of its own: RFC 4254 does not ask it, but they do.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LONG_PACKET: Final = 16
"""Bytes; more were not typed."""

QUIET_SECONDS: Final = 0.05
"""Between a long packet and an escape that is not a piece of the same paste."""

LETTER_SECONDS: Final = 2.0
"""How long the letter may take; then the escape is passed on."""

COMMANDS: Final = {
    "?": "this help",
    "t": "how much time is left",
    "e": "ask for more time",
    "w": "who watches",
    "h": "hand the typing to somebody who watches",
    "b": "take the typing back",
    ".": "end the session",
}


class Typed(NamedTuple):
    """What became of a packet."""

    passed: bytes
    command: str | None = None


def parse_escape(text: str) -> int | None:
    """Return the byte of an escape as settings write it, such as `^]`; `off` is none.

    Raises: ValueError.
    """
    if text == "off":
        return None
    if len(text) == 2 and text[0] == "^" and "[" < text[1] <= "_":
        return ord(text[1]) - 0x40
    raise ValueError(f"{text!r} is no escape: write ^] or off")


def escape_name(escape: int) -> str:
    """Return how people call an escape."""
    return f"Ctrl-{chr(escape + 0x40)}"


class EscapeParser:
    """Finds the commands in what one terminal types. `at` are monotonic seconds."""

    def __init__(self, escape: int | None) -> None:
        self._escape = b"" if escape is None else bytes([escape])
        self._line_start = True
        self._long_at = float("-inf")
        self.waiting = False
        """An escape is held back until its letter comes."""

    def passes(self, data: bytes) -> bool:
        """Take one packet that cannot matter here; False when `feed` has to look."""
        if self.waiting or len(data) > LONG_PACKET or data == self._escape:
            return False
        self._pass(data)
        return True

    def feed(
        self, data: bytes, at: float, *, enabled: bool = True, anywhere: bool = False
    ) -> Typed:
        """Take one packet. `anywhere`: not only at the start of a line."""
        by_hand = at - self._long_at >= QUIET_SECONDS
        if len(data) > LONG_PACKET:
            self._long_at = at
        if self.waiting:
            return self._letter(data)
        if (
            enabled
            and self._escape
            and data == self._escape
            and (self._line_start or anywhere)
            and by_hand
        ):
            self.waiting = True
            return Typed(b"")
        return Typed(self._pass(data))

    def _letter(self, data: bytes) -> Typed:
        self.waiting = False
        if data == self._escape:
            return Typed(self._pass(data))
        letter = data.decode("ascii", "replace")
        if letter in COMMANDS:
            return Typed(b"", letter)
        return Typed(self._pass(self._escape + data))

    def _pass(self, data: bytes) -> bytes:
        if data:
            self._line_start = data[-1:] in b"\r\n"
        return data

    def give_up(self) -> bytes:
        """Return the escape whose letter did not come, to be passed on."""
        if not self.waiting:
            return b""
        self.waiting = False
        return self._pass(self._escape)


class LineReader:
    """Reads one line that is typed to Sluice, not to the asset; bounded."""

    def __init__(self, *, limit: int, echoes: bool) -> None:
        self._limit = limit
        self._echoes = echoes
        self._text = ""
        self._bytes = b""
        self.cancelled = False

    def feed(self, data: bytes) -> tuple[bytes, str | None]:
        """Take one packet; return what to show, and the line when it is complete.

        What follows the end of the line in the same packet is dropped. Ctrl-C, Ctrl-G
        and ESC cancel.
        """
        shown, line = "", None
        for char in self._decode(data):
            if char in "\r\n":
                line, self._text = self._text, ""
                shown += "\r\n"
                break
            if char in "\x03\x07\x1b":
                self._text, self.cancelled = "", True
                break
            shown += self._key(char)
        return shown.encode() if self._echoes else b"", line

    def _key(self, char: str) -> str:
        if char in "\x7f\x08":
            had, self._text = bool(self._text), self._text[:-1]
            return "\b \b" if had else ""
        if char == "\x15":
            shown, self._text = "\b \b" * len(self._text), ""
            return shown
        if char.isprintable() and len(self._text) < self._limit:
            self._text += char
            return char
        return ""

    def _decode(self, data: bytes) -> str:
        data = self._bytes + data
        for cut in range(min(4, len(data) + 1)):
            try:
                text = data[: len(data) - cut].decode()
            except UnicodeDecodeError:
                continue
            self._bytes = data[len(data) - cut :]
            return text
        self._bytes = b""
        return data.decode("utf-8", "replace")
