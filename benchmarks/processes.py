"""Processes of a benchmark: started under a keeper, ended by pid, read in /proc.

The keeper is the demo's: it kills everything below it when the pipe to its standard
input closes, so nothing stays behind even after `kill -9` of the benchmark.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jumpserver.demo import keeper

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LOG_CHARACTERS = 3000


class BenchmarkError(RuntimeError):
    """The benchmark cannot go on; the message says why."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def greets(port: int) -> bool:
    """Return whether an SSH server answers on `port` (RFC 4253 section 4.2)."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            return connection.recv(8).startswith(b"SSH-2.0-")
    except OSError:
        return False


def wait_until(
    condition: Callable[[], bool], what: str, *, seconds: float = 30.0
) -> None:
    """Return when `condition()` is true. Raises: BenchmarkError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


class KeptProcess:
    """A server below a keeper of its own; a context manager."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment or os.environ),
                cwd=ROOT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_until(self, condition: Callable[[], bool], *, seconds: float) -> None:
        """Return when `condition()` is true.

        Raises: BenchmarkError with the end of its log when it ends or is too slow.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"it did not start:\n{self.end_of_log()}")
            time.sleep(_POLL_SECONDS)

    def stop(self, pid: int, *, seconds: float = _STOP_SECONDS) -> None:
        """Send SIGTERM to `pid`, a process of this one, and wait for the end of all."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(seconds)

    def close(self) -> None:
        """End it and everything it started, at once."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def end_of_log(self) -> str:
        """Return the last lines it wrote."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-_LOG_CHARACTERS:]
        return ""


def cpu_seconds(pid: int) -> float:
    """Return user plus system time of `pid` so far (resolution 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # proc(5): utime and stime are fields 14 and 15; the rest begins with field 3.
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process, in MB (10^6 bytes)."""

    resident: float
    peak: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return what `pid` holds now, and the most it ever held."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes = {
            name: int(rest.split()[0]) * 1024 / 1e6
            for name, _, rest in (line.partition(":") for line in lines)
            if name in {"VmRSS", "VmHWM"}
        }
        return cls(resident=sizes["VmRSS"], peak=sizes["VmHWM"])


@dataclass(frozen=True, slots=True)
class MachineTime:
    """What all processors of the machine have done since boot, in seconds."""

    busy: float
    stolen: float

    @classmethod
    def now(cls) -> Self:
        """Read /proc/stat. `busy` is everybody's work and stolen time.

        Interrupts are left out: those of loopback traffic are the benchmark's own, but
        no process is charged with them.
        """
        first = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, _idle, _wait, _irq, _soft_irq, steal = (
            int(field) / _TICKS_PER_SECOND for field in first.split()[1:9]
        )
        return cls(busy=user + nice + system + steal, stolen=steal)
