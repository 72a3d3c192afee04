"""`hmi-pump-01`: an SSH server whose shell is a full-screen pump-station HMI.

The account `operator` is shared, as on real HMIs, and logs in by public key. Its
`authorized_keys` is read at every authentication and lies in the home directory that
SFTP shows, so that a vault can rotate the key the way it would on a real host.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh

from jumpserver.demo.hmi_screen import (
    KeyReader,
    Page,
    clamp_size,
    draw,
    recognise_terminal,
)
from jumpserver.demo.plant_files import (
    load_or_create_key,
    make_private_directory,
    public_line,
    write_private,
)
from jumpserver.demo.pump_station import PumpStation
from jumpserver.demo.ssh_target import (
    LOOPBACK,
    MODERN_ALGORITHMS,
    TargetProcess,
    TrackedServer,
    end_all,
    listen,
)

LOGIN = "operator"
STEP_SECONDS = 1.0
COMMAND_NOT_FOUND = 127
LONGEST_SLEEP_SECONDS = 3600.0

_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[0m\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?25h\x1b[?1049l"
_GONE = (BrokenPipeError, ConnectionError, asyncssh.ConnectionLost)


class PumpHmi:
    """The target: one simulation shared by all sessions, and its SSH server."""

    name = "hmi-pump-01"

    def __init__(self, directory: Path) -> None:
        self._directory = make_private_directory(directory)
        self.home = make_private_directory(
            make_private_directory(directory / "home") / LOGIN
        )
        self.authorized_keys = self.home / ".ssh" / "authorized_keys"
        self._initial_key = directory / "operator_key"
        self._host_key = load_or_create_key(
            directory / "host_key", "ssh-ed25519", comment=self.name
        )
        self._provision()
        self.station = PumpStation(started_at=datetime.now(UTC))
        self._started = time.monotonic()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._simulation: asyncio.Task[None] | None = None
        self._port = 0

    def _provision(self) -> None:
        """Give the account its first key, once: a rotated key must stay dead."""
        done = self._directory / "provisioned"
        if done.exists():
            return
        make_private_directory(self.authorized_keys.parent)
        self._initial_key.unlink(missing_ok=True)
        key = load_or_create_key(self._initial_key, "ssh-ed25519", comment="initial")
        write_private(self.authorized_keys, f"{public_line(key)}\n".encode())
        write_private(done, b"")

    async def start(self, wanted_port: int) -> int:
        """Listen and let the water run; return the port."""
        self._acceptor = await listen(
            wanted_port,
            lambda: _HmiServer(self._connections, self),
            self._host_key,
            password_auth=False,
            kbdint_auth=False,
            **MODERN_ALGORITHMS,
        )
        self._port = self._acceptor.get_port()
        self._simulation = asyncio.create_task(self._simulate())
        return self._port

    async def stop(self) -> None:
        """Stop the simulation and end every session."""
        if self._simulation is not None:
            self._simulation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._simulation
        await end_all(self._acceptor, self._connections)

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return {
            "name": self.name,
            "kind": "hmi",
            "address": LOOPBACK,
            "port": self._port,
            "host_key": public_line(self._host_key),
            "crypto_profile": "modern",
            "authorized_keys_file": str(self.authorized_keys),
            "accounts": [
                {
                    "login": LOGIN,
                    "principal": None,
                    "credential_kind": "key",
                    "secret_file": str(self._initial_key),
                }
            ],
        }

    @property
    def uptime_seconds(self) -> float:
        """How long this HMI has been up."""
        return time.monotonic() - self._started

    async def _simulate(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            self.station.step(STEP_SECONDS, now=datetime.now(UTC))


class _HmiServer(TrackedServer):
    """One connection to the HMI."""

    def __init__(
        self, connections: set[asyncssh.SSHServerConnection], hmi: PumpHmi
    ) -> None:
        super().__init__(connections)
        self._hmi = hmi

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Accept what `authorized_keys` says this very moment."""
        if username != LOGIN:
            return False
        address = self.connection.get_extra_info("peername")[0]
        return is_key_authorized(
            self._hmi.authorized_keys, key, address=address, now=datetime.now(UTC)
        )

    def session_requested(self) -> TargetProcess:
        return TargetProcess(
            functools.partial(serve_session, self._hmi),
            sftp_factory=self._serve_sftp,
        )

    def _serve_sftp(
        self, channel: asyncssh.SSHServerChannel[bytes]
    ) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=bytes(self._hmi.home))


def is_key_authorized(
    path: Path, key: asyncssh.SSHKey, *, address: str, now: datetime
) -> bool:
    """Return whether the `authorized_keys` file at `path` lets `key` in at `now`.

    Understands `from=` and `expiry-time=` (sshd(8), AUTHORIZED_KEYS FILE FORMAT). A
    missing or empty file or an unreadable time lets nobody in.
    """
    try:
        entries = asyncssh.import_authorized_keys(path.read_text())
    except (OSError, ValueError):
        return False
    options = entries.validate(key, address, address)
    if options is None:
        return False
    expiry = options.get("expiry-time")
    if expiry is None:
        return True
    times = expiry if isinstance(expiry, list) else [expiry]
    return all(_is_before(now, str(time_)) for time_ in times)


def _is_before(now: datetime, expiry: str) -> bool:
    """Compare with YYYYMMDD[HHMM[SS]][Z]; without Z it is local time."""
    digits = expiry.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    if form is None:
        return False
    try:
        moment = datetime.strptime(digits, form)  # noqa: DTZ007 - zone set below
    except ValueError:
        return False
    zoned = moment.replace(tzinfo=UTC) if expiry.endswith("Z") else moment.astimezone()
    return now < zoned


async def serve_session(
    hmi: PumpHmi, process: asyncssh.SSHServerProcess[bytes]
) -> None:
    """Run one shell (the HMI screen) or one fixed command to its end."""
    try:
        if process.command is not None:
            await _run_command(hmi, process, process.command)
        elif process.term_type is None:
            process.stderr.write(b"The HMI needs a terminal: use ssh -t\n")
            process.exit(1)
        else:
            await HmiScreen(hmi.station, process).run()
    except _GONE:
        process.close()


class HmiScreen:
    """One operator's screen: keys in, changed rows out.

    Only the painter writes, and it waits for the client after each frame, so a slow
    client costs frames and not memory.
    """

    def __init__(
        self, station: PumpStation, process: asyncssh.SSHServerProcess[bytes]
    ) -> None:
        self._station = station
        self._process = process
        self._page = Page.OVERVIEW
        self._kind = recognise_terminal(process.term_type, dict(process.env))
        self._size = clamp_size(*process.term_size[:2])
        self._shown: list[bytes] = []
        self._wake = asyncio.Event()
        self._keys = KeyReader()

    async def run(self) -> None:
        """Show the HMI until the operator logs out, then restore the terminal."""
        self._process.stdout.write(_ENTER)
        try:
            async with asyncio.TaskGroup() as tasks:
                painter = tasks.create_task(self._paint())
                await self._read_keys()
                painter.cancel()
        except* _GONE as gone:
            raise ConnectionError from gone
        self._process.stdout.write(_LEAVE + b"Logged out of PUMP STATION 3.\r\n")
        self._process.exit(0)

    async def _read_keys(self) -> None:
        """Return when the operator wants to leave or the input ends."""
        while True:
            try:
                received = await self._process.stdin.read(4096)
            except asyncssh.TerminalSizeChanged as change:
                self._size = clamp_size(change.width, change.height)
                self._shown = []
                self._wake.set()
                continue
            except asyncssh.BreakReceived:
                continue
            except asyncssh.SignalReceived:
                return
            if not received:
                return
            for key in self._keys.feed(received):
                if key in ("q", "Q", "F10", "^C"):
                    return
                self._press(key)
            self._wake.set()

    def _press(self, key: str) -> None:
        if key in ("1", "2", "3"):
            self._station.toggle_pump(int(key), by=LOGIN)
        elif key in ("a", "A", "F8"):
            self._station.acknowledge_oldest(by=LOGIN)
        elif key in ("t", "T", "F2"):
            self._turn_to(Page.TRENDS)
        elif key in ("?", "F1"):
            self._turn_to(Page.HELP)
        elif key == "^L":
            self._shown = []

    def _turn_to(self, page: Page) -> None:
        self._page = Page.OVERVIEW if self._page is page else page

    async def _paint(self) -> None:
        while True:
            self._wake.clear()
            self._process.stdout.write(self._frame(datetime.now(UTC)))
            await self._process.stdout.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STEP_SECONDS):
                    await self._wake.wait()

    def _frame(self, now: datetime) -> bytes:
        """Return the bytes that bring the terminal to the current picture."""
        columns, rows = self._size
        canvas = draw(self._station, self._page, columns=columns, rows=rows, now=now)
        wanted = canvas.encode(
            is_ascii=self._kind.is_ascii, has_colour=self._kind.has_colour
        )
        # The terminal may already have re-wrapped its rows after a resize.
        pieces = [] if self._shown else [b"\x1b[0m\x1b[2J"]
        for row, content in enumerate(wanted):
            if row >= len(self._shown) or self._shown[row] != content:
                pieces.append(b"\x1b[%d;1H" % (row + 1) + content)
        self._shown = wanted
        return b"".join(pieces)


async def _run_command(
    hmi: PumpHmi, process: asyncssh.SSHServerProcess[bytes], line: str
) -> None:
    """Run one of the fixed commands; anything else is "command not found"."""
    name, _, argument = line.strip().partition(" ")
    # A pty turns LF into CR LF, as a real terminal driver does (termios ONLCR).
    line_end = b"\n" if process.term_type is None else b"\r\n"
    command = _COMMANDS.get(name)
    if command is None:
        shown = name.encode("utf-8", "replace")[:200]
        process.stderr.write(b"sh: " + shown + b": command not found" + line_end)
        process.exit(COMMAND_NOT_FOUND)
        return
    work = asyncio.ensure_future(command(hmi, process, argument.strip(), line_end))
    waits: set[asyncio.Future[Any]] = {work}
    if isinstance(process, TargetProcess):
        waits.add(process.signalled)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if isinstance(process, TargetProcess) and process.signalled.done():
            process.exit_with_signal(process.signalled.result())
        else:
            process.exit(work.result())
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, asyncssh.SignalReceived):
            await work


async def _uptime(
    hmi: PumpHmi, process: asyncssh.SSHServerProcess[bytes], _: str, line_end: bytes
) -> int:
    minutes, seconds = divmod(int(hmi.uptime_seconds), 60)
    process.stdout.write(b"up %d min %d s" % (minutes, seconds) + line_end)
    return 0


async def _tags(
    hmi: PumpHmi, process: asyncssh.SSHServerProcess[bytes], _: str, line_end: bytes
) -> int:
    for tag, value in hmi.station.tags().items():
        process.stdout.write(f"{tag:<18}{value}".encode() + line_end)
    return 0


async def _echo(
    _: PumpHmi,
    process: asyncssh.SSHServerProcess[bytes],
    argument: str,
    line_end: bytes,
) -> int:
    process.stdout.write(argument.encode() + line_end)
    return 0


async def _sleep(
    _: PumpHmi,
    process: asyncssh.SSHServerProcess[bytes],
    argument: str,
    line_end: bytes,
) -> int:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_SLEEP_SECONDS:
        process.stderr.write(b"sleep: seconds from 0 to 3600" + line_end)
        return 1
    await asyncio.sleep(seconds)
    return 0


async def _exit(
    _: PumpHmi,
    process: asyncssh.SSHServerProcess[bytes],
    argument: str,
    line_end: bytes,
) -> int:
    if not (argument.isascii() and argument.isdigit() and int(argument) < 256):
        process.stderr.write(b"exit: status from 0 to 255" + line_end)
        return 2
    return int(argument)


async def _cat(
    _: PumpHmi, process: asyncssh.SSHServerProcess[bytes], __: str, ___: bytes
) -> int:
    while True:
        try:
            received = await process.stdin.read(65536)
        except (asyncssh.TerminalSizeChanged, asyncssh.BreakReceived):
            continue
        if not received:
            return 0
        process.stdout.write(received)
        await process.stdout.drain()


_Command = Callable[
    [PumpHmi, asyncssh.SSHServerProcess[bytes], str, bytes],
    Coroutine[Any, Any, int],
]
_COMMANDS: dict[str, _Command] = {
    "uptime": _uptime,
    "tags": _tags,
    "echo": _echo,
    "sleep": _sleep,
    "exit": _exit,
    "cat": _cat,
}
