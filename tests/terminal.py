"""A terminal for tests: a program on a pty, its screen as pyte sees it."""

import time
from collections.abc import Callable
from typing import cast

import pexpect
import pyte


class Terminal:
    """A program on a pty of `columns` times `rows` and the screen it draws."""

    def __init__(
        self,
        command: list[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.process = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(rows, columns),
            env=environment,
            timeout=20,
        )
        self.received = b""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)

    def text(self) -> str:
        """Return the screen, lines joined by LF."""
        return "\n".join(self.screen.display)

    def wait_for(self, condition: Callable[[str], bool], *, seconds: float = 15) -> str:
        """Read until `condition` holds for the screen's text, and return the text.

        Raises: AssertionError, showing the screen, when it does not come true.
        """
        deadline = time.monotonic() + seconds
        while not condition(self.text()):
            if time.monotonic() > deadline:
                raise AssertionError(f"never came true; the screen:\n{self.text()}")
            self._read()
        return self.text()

    def type(self, keys: str) -> None:
        """Send `keys` as typed."""
        self.process.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window, as dragging its corner does."""
        self.screen.resize(rows, columns)
        self.screen.reset()
        self.process.setwinsize(rows, columns)

    def wait_until_ended(self) -> int:
        """Read to the end and return the program's exit status."""
        while self._read():
            pass
        self.process.wait()
        status = self.process.exitstatus
        assert status is not None, f"ended by signal {self.process.signalstatus}"
        return int(status)

    def close(self) -> None:
        """End the program if it still runs."""
        self.process.close(force=True)

    def _read(self) -> bool:
        try:
            # Bytes, as no encoding was given; the stubs know only text.
            piece = cast(bytes, self.process.read_nonblocking(65536, timeout=0.2))
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.received += piece
        self._stream.feed(piece)
        return True
