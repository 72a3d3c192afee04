"""What is measured, each on all systems in turns.

Every function yields samples `(metric, system, value)`; a round holds one of each
system, and the order changes from round to round, so that what else happens on the
machine falls on all of them alike.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.fleet import logins_per_second
from benchmarks.processes import BenchmarkError
from benchmarks.product import Product
from benchmarks.samples import MEGABYTE, Sample, Sizes, in_turn
from benchmarks.systems import (
    OpenConnection,
    SluiceSystem,
    System,
    log_in,
    pause,
    start,
)

_TRANSFER_SECONDS = 120.0
_CHECK_SECONDS = 30.0
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

Drop = Callable[[System, BenchmarkError], None]
"""Told of a system that cannot do what is measured; it is then left out."""


def usable(
    systems: Sequence[System], attempt: Callable[[System], object], drop: Drop
) -> list[System]:
    """Return those systems that `attempt` works with."""
    found = []
    for system in systems:
        try:
            attempt(system)
        except BenchmarkError as error:
            drop(system, error)
        else:
            found.append(system)
    return found


def login(systems: Sequence[System], sizes: Sizes, drop: Drop) -> Iterator[Sample]:
    """Milliseconds from starting `ssh` to the prompt of the shell on the target."""
    systems = usable(systems, log_in, drop)
    pause()
    for number in range(sizes.login_rounds):
        for system in in_turn(systems, number):
            if number < max(1, sizes.login_rounds * system.share):
                yield Sample("login_ms", system.name, log_in(system) * 1000)
                pause()


def logins(systems: Sequence[System], sizes: Sizes, drop: Drop) -> Iterator[Sample]:
    """Log-ins a second of eight clients at the same time."""
    systems = usable(systems, log_in, drop)
    for number in range(min(3, sizes.transfer_rounds)):
        for system in in_turn(systems, number):
            if number < max(1, 3 * system.share):
                count = max(8, round(sizes.parallel_logins * system.share))
                rate = logins_per_second(system, count)
                yield Sample("logins_per_s", system.name, rate)
                pause()


def echo(systems: Sequence[System], sizes: Sizes, drop: Drop) -> Iterator[Sample]:
    """Milliseconds from typing a key to its coming back, on open connections."""
    with ExitStack() as stack:
        terminals = {}

        def open_terminal(system: System) -> None:
            terminal = stack.enter_context(start(system, "-tt", "--", _ECHO))
            terminal.wait_for(_READY)
            terminals[system.name] = terminal
            for position in range(_ECHO_WARM_UP):
                terminal.echo(_key(position))

        systems = usable(systems, open_terminal, drop)
        blocks = sizes.echo_rounds * sizes.echo_keys // _ECHO_BLOCK
        for number in range(blocks):
            for system in in_turn(systems, number):
                if number >= max(1, blocks * system.share):
                    continue
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
        source_port: int,
        drop: Drop,
    ) -> None:
        self._systems = systems
        self._sizes = sizes
        self._directory = directory
        self._source_port = source_port
        self._drop = drop
        self._random = directory / "random"
        self._zeros = directory / "zeros"
        self._file = directory / "file"
        write_random(self._random, sizes.random * MEGABYTE)
        write_random(self._file, sizes.sftp * MEGABYTE)
        with self._zeros.open("wb") as file:
            file.truncate(sizes.zeros * MEGABYTE)

    def download(self) -> Iterator[Sample]:
        """MB/s of a command's output, and the product's processor time for it."""
        return self._rounds("download", self._check_download, self._download)

    def _download(self, connection: OpenConnection, share: float) -> Iterator[Sample]:
        name = connection.system.name
        kinds = (
            ("", "head -c {size} /dev/zero", self._sizes.zeros),
            ("random_", f"head -c {{size}} '{self._random}'", self._sizes.random),
        )
        for kind, command, whole in kinds:
            size = max(1, round(whole * share))
            product = _product_of(connection.system)
            cpu = product.cpu_seconds() if product else 0.0
            taken = timed(connection, command.format(size=size * MEGABYTE))
            yield Sample(f"download_{kind}mb_s", name, size / taken)
            if product is not None:
                cpu = product.cpu_seconds() - cpu
                yield Sample(f"cpu_{kind}s_per_gb", name, cpu * 1000 / size)

    def upload(self) -> Iterator[Sample]:
        """MB/s into a command's input."""
        return self._rounds("upload", self._check_upload, self._upload)

    def _upload(self, connection: OpenConnection, share: float) -> Iterator[Sample]:
        kinds = (
            ("", self._zeros, self._sizes.zeros),
            ("random_", self._random, self._sizes.random),
        )
        for kind, source, whole in kinds:
            size = max(1, round(whole * share))
            part = source
            if size != whole:
                part = source.with_name(f"{source.name}-{size}")
                if not part.exists():
                    part.write_bytes(source.read_bytes()[: size * MEGABYTE])
            taken = timed(connection, "cat >/dev/null", source=part)
            yield Sample(f"upload_{kind}mb_s", connection.system.name, size / taken)

    def flood(self) -> Iterator[Sample]:
        """MB/s of text that a command writes to a terminal."""
        return self._rounds("flood", self._check_flood, self._flood)

    def _flood(self, connection: OpenConnection, share: float) -> Iterator[Sample]:
        size = max(1, round(self._sizes.flood * share))
        text = _FLOOD.format(line=_LINE, size=size * MEGABYTE)
        taken = timed(connection, text, "-tt")
        yield Sample("flood_mb_s", connection.system.name, size / taken)

    def sftp(self) -> Iterator[Sample]:
        """MB/s of a file fetched and put by OpenSSH's `sftp`."""
        return self._rounds("sftp", self._check_sftp, self._sftp)

    def _sftp(self, connection: OpenConnection, share: float) -> Iterator[Sample]:
        size = self._sizes.sftp
        name = connection.system.name
        local = self._directory / "fetched"
        for metric, order in (
            ("sftp_get_mb_s", f'get "{self._file}" "{local}"'),
            ("sftp_put_mb_s", f'put "{self._file}" "{self._directory / "put"}"'),
        ):
            if share < 1 and name != "sshmitm":
                continue
            started = time.perf_counter()
            _sftp(connection, order)
            yield Sample(metric, name, size / (time.perf_counter() - started))

    def forward(self) -> Iterator[Sample]:
        """MB/s through a forwarded TCP connection, from a server on the target."""
        return self._rounds("forward", self._check_forward, self._forward)

    def _forward(self, connection: OpenConnection, share: float) -> Iterator[Sample]:
        size = max(1, round(self._sizes.zeros * share))
        started = time.perf_counter()
        got = _forwarded(connection, self._source_port, size * MEGABYTE)
        taken = time.perf_counter() - started
        if got != size * MEGABYTE:
            raise BenchmarkError(f"{got} bytes came through a forward")
        yield Sample("forward_mb_s", connection.system.name, size / taken)

    def _rounds(
        self,
        name: str,
        check: Callable[[OpenConnection], None],
        measure: Callable[[OpenConnection, float], Iterator[Sample]],
    ) -> Iterator[Sample]:
        rounds = self._sizes.transfer_rounds
        folder = self._directory / name
        folder.mkdir(mode=0o700)
        with ExitStack() as stack:
            connections: dict[str, OpenConnection] = {}

            def attempt(system: System) -> None:
                connection = OpenConnection(system, folder)
                try:
                    check(connection)
                except (OSError, subprocess.SubprocessError, BenchmarkError) as error:
                    connection.close()
                    raise BenchmarkError(str(error)) from error
                stack.callback(connection.close)
                connections[system.name] = connection

            systems = usable(self._systems, attempt, self._drop)
            for number in range(rounds):
                for system in in_turn(systems, number):
                    if number < max(1, rounds * system.share):
                        yield from measure(connections[system.name], system.share)

    def _check_download(self, connection: OpenConnection) -> None:
        """Warm up; what arrives must be what was sent."""
        size = min(20, self._sizes.random) * MEGABYTE
        got = _run(connection.command(f"head -c {size} '{self._random}'"))
        if hashlib.sha256(got).digest() != _digest(self._random, size):
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

    def _check_sftp(self, connection: OpenConnection) -> None:
        local = self._directory / "checked"
        _sftp(connection, f'get "{self._random}" "{local}"', seconds=_CHECK_SECONDS)
        if _digest(local) != _digest(self._random):
            raise BenchmarkError(f"{connection.system.name} altered a file")

    def _check_forward(self, connection: OpenConnection) -> None:
        if _forwarded(connection, self._source_port, MEGABYTE) != MEGABYTE:
            raise BenchmarkError(f"{connection.system.name} forwards nothing")


def _product_of(system: System) -> Product | None:
    return system.product if isinstance(system, SluiceSystem) else None


def _sftp(
    connection: OpenConnection, order: str, *, seconds: float = _TRANSFER_SECONDS
) -> None:
    done = subprocess.run(
        connection.sftp(),
        input=f"{order}\n",
        text=True,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"sftp {order}: {done.stderr[-300:].strip()}")


def _forwarded(connection: OpenConnection, port: int, size: int) -> int:
    """Return how many of `size` bytes come through a forward."""
    with subprocess.Popen(
        connection.forward(port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pipesize=1 << 20,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError("no pipes")
        process.stdin.write(f"{size}\n".encode())
        process.stdin.flush()
        got = 0
        while got < size and (piece := os.read(process.stdout.fileno(), 1 << 20)):
            got += len(piece)
        process.stdin.close()
        process.terminate()
    return got


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


def _digest(path: Path, size: int = -1) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).digest()
