"""What a client of a terminal has been sent, readable while it still arrives."""

import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pyte

_Found = TypeVar("_Found")


class NeverHappenedError(AssertionError):
    """What was waited for did not come; the message shows what came instead."""


class Transcript:
    """Bytes of one terminal or command, put in by a reading thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._received = bytearray()
        self._ended_at: float | None = None

    def add(self, piece: bytes) -> None:
        """Put in what has just arrived."""
        with self._changed:
            self._received += piece
            self._changed.notify_all()

    def end(self) -> None:
        """Note that nothing more comes."""
        with self._changed:
            if self._ended_at is None:
                self._ended_at = time.monotonic()
            self._changed.notify_all()

    @property
    def received(self) -> bytes:
        """Return everything up to now."""
        with self._changed:
            return bytes(self._received)

    @property
    def text(self) -> str:
        """Return everything up to now as text."""
        return self.received.decode("utf-8", "replace")

    @property
    def ended_at(self) -> float | None:
        """Return the monotonic time of the end, None while it goes on."""
        return self._ended_at

    def wait_for(self, pattern: str, *, seconds: float = 20) -> re.Match[str]:
        """Return the first match of a regular expression in what came or will come.

        Raises: NeverHappenedError.
        """
        found = self._wait(lambda: re.search(pattern, self.text), seconds)
        if found is None:
            raise NeverHappenedError(
                f"{pattern!r} never came; at the end came {self.text[-300:]!r}"
            )
        return found

    def wait_for_end(self, *, seconds: float) -> float:
        """Return the monotonic time of the end. Raises: NeverHappenedError."""
        ended_at = self._wait(lambda: self._ended_at, seconds)
        if ended_at is None:
            raise NeverHappenedError(f"it did not end within {seconds:.0f} s")
        return ended_at

    def _wait(self, look: Callable[[], _Found | None], seconds: float) -> _Found | None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = look()
                left = deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                if self._ended_at is not None:
                    return look()
                self._changed.wait(left)

    def screen(self, columns: int, rows: int) -> str:
        """Return what a terminal of this size shows now, lines joined by LF."""
        screen = pyte.Screen(columns, rows)
        pyte.ByteStream(screen).feed(self.received)
        return "\n".join(line.rstrip() for line in screen.display)
