"""A program on a terminal of its own, as a person has it, with the time of each event.

The program is started through `setsid --ctty` (util-linux), which makes the terminal
its controlling one: that is where `ssh` asks for a one-time code.
"""

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Sequence
from typing import Self

from benchmarks.processes import BenchmarkError

COLUMNS, ROWS = 80, 24

_PIECE = 65536
_END_SECONDS = 10.0


class Terminal:
    """A running program and the master side of its terminal; a context manager."""

    def __init__(self, command: Sequence[str]) -> None:
        setsid = shutil.which("setsid")
        if setsid is None:
            raise BenchmarkError("there is no setsid on this machine (util-linux)")
        self._master, inside = pty.openpty()
        self._unread = b""
        try:
            tty.setraw(inside)
            size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
            fcntl.ioctl(inside, termios.TIOCSWINSZ, size)
            self._poll = select.poll()
            self._poll.register(self._master, select.POLLIN)
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                [setsid, "--ctty", *command],
                stdin=inside,
                stdout=inside,
                stderr=inside,
            )
        finally:
            os.close(inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for(self, text: bytes, *, seconds: float = 30.0) -> float:
        """Read until `text` has come; return when (`time.perf_counter`).

        What comes after `text` stays for the next call. Raises: BenchmarkError with
        what the program said instead.
        """
        deadline = time.perf_counter() + seconds
        while text not in self._unread:
            left = deadline - time.perf_counter()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise BenchmarkError(f"no {text!r} within {seconds:.0f} s{self._said}")
            try:
                piece = os.read(self._master, _PIECE)
            except OSError:
                piece = b""
            if not piece:
                raise BenchmarkError(f"ended before {text!r}{self._said}")
            self._unread += piece
        now = time.perf_counter()
        _, _, self._unread = self._unread.partition(text)
        return now

    def heard(self) -> str:
        """Return what it said that nobody has waited for."""
        while self._poll.poll(0):
            try:
                piece = os.read(self._master, _PIECE)
            except OSError:
                break
            self._unread += piece
        return self._unread.decode(errors="replace").strip()

    @property
    def _said(self) -> str:
        return f"; it said: {self._unread.decode(errors='replace').strip()!r}"

    def type(self, keys: bytes) -> None:
        """Type `keys`."""
        os.write(self._master, keys)

    def echo(self, key: bytes, *, seconds: float = 10.0) -> float:
        """Type one byte, wait for it to come back; return how long, in seconds."""
        started = time.perf_counter()
        os.write(self._master, key)
        if not self._poll.poll(seconds * 1000):
            raise BenchmarkError(f"a key did not come back within {seconds:.0f} s")
        answer = os.read(self._master, _PIECE)
        taken = time.perf_counter() - started
        if answer != key:
            raise BenchmarkError(f"typed {key!r}, but {answer!r} came back")
        return taken

    def close(self) -> None:
        """End the program and its terminal."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
