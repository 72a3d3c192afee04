"""What is measured, each on all systems in turns.

Every function yields samples `(metric, system, value)`; a round holds one of each
system, and the order changes from round to round, so that what else happens on the
machine falls on all of them alike.
"""

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from benchmarks.processes import BenchmarkError
from benchmarks.product import Product
from benchmarks.systems import OpenConnection, System, log_in, pause, start

T = TypeVar("T")

MEGABYTE: Final = 1_000_000
METRICS: Final = ("login", "echo", "download", "upload", "flood")

_TRANSFER_SECONDS = 120.0
_ECHO_BLOCK = 25
_ECHO_PAUSE_SECONDS = 0.004
_ECHO_WARM_UP = 20
_READY = b"echo-ready"
# Raw: each byte comes back by itself, from the program and not from the terminal.
_ECHO = "stty raw -echo && printf echo-ready && exec cat"
_KEYS = b"abcdefghijklmnopqrstuvwxyz"
# One line of a log, 80 bytes with its end; a terminal makes it 81. `ssh -tt` without a
# terminal of its own asks for one with everything switched off.
_FLOOD = "stty sane && yes '{line}' | head -c {size}"
_LINE = (
    "2026-01-01 00:00:00 pump station 3: level 2.41 m, inflow 118 l/s, pump A on. ok"
)


class Sample(NamedTuple):
    """One measured value."""

    metric: str
    system: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything. Rounds count samples per system; sizes are MB."""

    login_rounds: int = 30
    echo_rounds: int = 3
    echo_keys: int = 500
    transfer_rounds: int = 5
    zeros: int = 500
    random: int = 200
    flood: int = 100

    def rounds(self, metric: str) -> int:
        """Return how many rounds `metric` takes."""
        return {"login": self.login_rounds, "echo": self.echo_rounds}.get(
            metric, self.transfer_rounds
        )

    def people(self, metrics: Sequence[str]) -> int:
        """Return how many people have to sign in to the gateway, each once."""
        login = self.login_rounds + 1 if "login" in metrics else 0
        return login + sum(1 for metric in metrics if metric != "login")


QUICK: Final = Sizes(
    login_rounds=3,
    echo_rounds=1,
    echo_keys=100,
    transfer_rounds=2,
    zeros=30,
    random=20,
    flood=10,
)


def in_turn(systems: Sequence[T], number: int) -> list[T]:
    """Return `systems` beginning with another one in each round."""
    first = number % len(systems)
    return [*systems[first:], *systems[:first]]


def login(systems: Sequence[System], sizes: Sizes) -> Iterator[Sample]:
    """Milliseconds from starting `ssh` to the prompt of the shell on the target."""
    for system in systems:
        log_in(system)
        pause()
    for number in range(sizes.login_rounds):
        for system in in_turn(systems, number):
            yield Sample("login_ms", system.name, log_in(system) * 1000)
            pause()


def echo(systems: Sequence[System], sizes: Sizes) -> Iterator[Sample]:
    """Milliseconds from typing a key to its coming back, on open connections."""
    with ExitStack() as stack:
        terminals = {}
        for system in systems:
            terminal = stack.enter_context(start(system, "-tt", "--", _ECHO))
            terminal.wait_for(_READY)
            terminals[system.name] = terminal
            for position in range(_ECHO_WARM_UP):
                terminal.echo(_key(position))
        blocks = sizes.echo_rounds * sizes.echo_keys // _ECHO_BLOCK
        for number in range(blocks):
            for system in in_turn(systems, number):
                for position in range(_ECHO_BLOCK):
                    # As in life, the machine has gone idle before the next key.
                    time.sleep(_ECHO_PAUSE_SECONDS)
                    taken = terminals[system.name].echo(_key(position))
                    yield Sample("echo_ms", system.name, taken * 1000)


def _key(position: int) -> bytes:
    return _KEYS[position % len(_KEYS) :][:1]


class Transfers:
    """Bulk in both directions, over connections that are open already."""

    def __init__(
        self,
        systems: Sequence[System],
        sizes: Sizes,
        *,
        directory: Path,
        product: Product,
    ) -> None:
        self._systems = systems
        self._sizes = sizes
        self._directory = directory
        self._product = product
        self._random = directory / "random"
        self._zeros = directory / "zeros"
        write_random(self._random, sizes.random * MEGABYTE)
        with self._zeros.open("wb") as file:
            file.truncate(sizes.zeros * MEGABYTE)

    def download(self) -> Iterator[Sample]:
        """MB/s of a command's output, and the product's processor time for it."""
        zeros = f"head -c {self._sizes.zeros * MEGABYTE} /dev/zero"
        kinds = (
            ("", zeros, self._sizes.zeros),
            ("random_", f"cat '{self._random}'", self._sizes.random),
        )
        with self._connections("download") as connections:
            for connection in connections:
                self._check_download(connection)
            for number in range(self._sizes.transfer_rounds):
                for kind, command, size in kinds:
                    for connection in in_turn(connections, number):
                        cpu = self._product.cpu_seconds()
                        speed = size / timed(connection, command)
                        name = connection.system.name
                        yield Sample(f"download_{kind}mb_s", name, speed)
                        if name == "sluice":
                            cpu = self._product.cpu_seconds() - cpu
                            metric = f"cpu_{kind}s_per_gb"
                            yield Sample(metric, name, cpu * 1000 / size)

    def upload(self) -> Iterator[Sample]:
        """MB/s into a command's input."""
        kinds = (
            ("", self._zeros, self._sizes.zeros),
            ("random_", self._random, self._sizes.random),
        )
        with self._connections("upload") as connections:
            for connection in connections:
                self._check_upload(connection)
            for number in range(self._sizes.transfer_rounds):
                for kind, source, size in kinds:
                    for connection in in_turn(connections, number):
                        taken = timed(connection, "cat >/dev/null", source=source)
                        speed = size / taken
                        name = connection.system.name
                        yield Sample(f"upload_{kind}mb_s", name, speed)

    def flood(self) -> Iterator[Sample]:
        """MB/s of text that a command writes to a terminal."""
        size = self._sizes.flood
        text = _FLOOD.format(line=_LINE, size=size * MEGABYTE)
        with self._connections("flood") as connections:
            for connection in connections:
                self._check_flood(connection)
            for number in range(self._sizes.transfer_rounds):
                for connection in in_turn(connections, number):
                    taken = timed(connection, text, "-tt")
                    yield Sample("flood_mb_s", connection.system.name, size / taken)

    def _connections(self, name: str) -> "_Connections":
        return _Connections(self._systems, self._directory / name)

    def _check_download(self, connection: OpenConnection) -> None:
        """Warm up; what arrives must be what was sent."""
        got = _run(connection.command(f"cat '{self._random}'"))
        if hashlib.sha256(got).digest() != _digest(self._random):
            raise BenchmarkError(f"{connection.system.name} altered a download")

    def _check_upload(self, connection: OpenConnection) -> None:
        got = _run(connection.command("sha256sum"), source=self._random)
        if got.split()[0].decode() != _digest(self._random).hex():
            raise BenchmarkError(f"{connection.system.name} altered an upload")

    def _check_flood(self, connection: OpenConnection) -> None:
        lines = 20_000
        text = _FLOOD.format(line=_LINE, size=lines * (len(_LINE) + 1))
        got = _run(connection.command(text, "-tt"))
        if got != f"{_LINE}\r\n".encode() * lines:
            raise BenchmarkError(f"{connection.system.name} lost terminal output")


class _Connections:
    """One open connection of each system; a context manager."""

    def __init__(self, systems: Sequence[System], directory: Path) -> None:
        self._systems = systems
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> list[OpenConnection]:
        self._directory.mkdir(mode=0o700)
        try:
            return [
                self._stack.enter_context(OpenConnection(system, self._directory))
                for system in self._systems
            ]
        except BaseException:
            self._stack.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def timed(
    connection: OpenConnection, command: str, *options: str, source: Path | None = None
) -> float:
    """Run `command` to its end, output to /dev/null; return the seconds it took.

    Raises: BenchmarkError when it does not end with status 0 in time.
    """
    what = f"{command!r} on {connection.system.name}"
    with (source or Path("/dev/null")).open("rb") as given:
        started = time.perf_counter()
        try:
            done = subprocess.run(
                connection.command(command, *options),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_TRANSFER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(
                f"{what} took over {_TRANSFER_SECONDS:.0f} s"
            ) from None
        taken = time.perf_counter() - started
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-500:] + connection.heard()
        raise BenchmarkError(f"{what} ended with {done.returncode}: {said}")
    return taken


def _run(command: Sequence[str], *, source: Path | None = None) -> bytes:
    with (source or Path("/dev/null")).open("rb") as given:
        return subprocess.run(
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            timeout=_TRANSFER_SECONDS,
            check=True,
        ).stdout


def write_random(path: Path, size: int) -> None:
    """Write `size` bytes that no compression makes smaller."""
    with Path("/dev/urandom").open("rb") as source, path.open("wb") as file:
        left = size
        while left:
            left -= file.write(source.read(min(left, 1 << 20)))


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
