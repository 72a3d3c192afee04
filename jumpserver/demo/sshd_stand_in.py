"""A stand-in for `scada-01` where no sshd is usable: asyncssh with a real /bin/sh.

It checks certificates against the same CA and principal files as sshd would, at every
authentication, and says in its banner what it is. It knows no revoked keys: a
certificate lives until its end or until its CA is withdrawn.
"""

import asyncio
import contextlib
import os
import pty
import signal
import struct
import termios
from collections.abc import Coroutine
from fcntl import ioctl
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from jumpserver.demo.hmi_screen import clamp_size
from jumpserver.demo.ssh_target import (
    MODERN_ALGORITHMS,
    TargetProcess,
    TrackedServer,
    end_all,
    listen,
)
from jumpserver.demo.sshd import NAME, PRINCIPAL, ScadaFiles, calling_user

BANNER = "scada-01: stand-in, OpenSSH's sshd is not usable on this machine\n"
PASSED_ON = ("LANG", "LOGNAME", "PATH", "SHELL", "USER")
CHUNK = 65536
END_OF_INPUT = b"\x04"  # Ctrl-D, termios VEOF
LAST_OUTPUT_SECONDS = 1.0
SIGNALS = ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2")


class ScadaStandIn:
    """The target: certificates in, /bin/sh out."""

    name = NAME

    def __init__(self, directory: Path) -> None:
        self._files = ScadaFiles(directory)
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._port = 0

    async def start(self, wanted_port: int) -> int:
        """Listen; return the port."""
        self._acceptor = await listen(
            wanted_port,
            lambda: _StandInServer(self._connections, self._files),
            asyncssh.read_private_key(self._files.host_key),
            password_auth=False,
            kbdint_auth=False,
            **MODERN_ALGORITHMS,
        )
        self._port = self._acceptor.get_port()
        return self._port

    async def stop(self) -> None:
        """End every session; their shells get SIGKILL."""
        await end_all(self._acceptor, self._connections)

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""
        return self._files.describe(self._port, is_stand_in=True)


class _StandInServer(TrackedServer):
    """One connection to the stand-in."""

    def __init__(
        self, connections: set[asyncssh.SSHServerConnection], files: ScadaFiles
    ) -> None:
        super().__init__(connections)
        self._files = files

    def begin_auth(self, username: str) -> bool:
        """Load the trusted CAs of this moment, limited to the mapped principal."""
        self.connection.send_auth_banner(BANNER)
        self.connection.set_authorized_keys(
            trusted_authorities(self._files.user_ca, self._files.principals)
            if username == calling_user()
            else asyncssh.SSHAuthorizedKeys()
        )
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def session_requested(self) -> TargetProcess:
        return TargetProcess(partial(serve_shell, home=self._files.home))


def trusted_authorities(user_ca: Path, principals: Path) -> asyncssh.SSHAuthorizedKeys:
    """Return the CA keys in `user_ca`, each limited to the listed principals.

    An empty or unreadable file trusts nobody.
    """
    names = ",".join(principals.read_text().split()) or PRINCIPAL
    lines = [
        f'cert-authority,principals="{names}" {line}'
        for line in user_ca.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    try:
        return asyncssh.import_authorized_keys("\n".join(lines))
    except ValueError:
        return asyncssh.SSHAuthorizedKeys()


async def serve_shell(process: asyncssh.SSHServerProcess[bytes], *, home: Path) -> None:
    """Run /bin/sh, or one command in it, with a terminal if one was asked for."""
    arguments = ["/bin/sh"]
    if process.command is not None:
        arguments += ["-c", process.command]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment["HOME"] = str(home)
    environment |= {
        name: value
        for name, value in process.env.items()
        if name == "LANG" or name.startswith("LC_")
    }
    try:
        if process.term_type is None:
            await _run_on_pipes(process, arguments, environment)
        else:
            environment["TERM"] = process.term_type
            await _run_on_terminal(process, arguments, environment)
    except (OSError, asyncssh.ConnectionLost):
        process.close()


async def _run_on_pipes(
    process: asyncssh.SSHServerProcess[bytes],
    arguments: list[str],
    environment: dict[str, str],
) -> None:
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        cwd=Path.home(),
        start_new_session=True,
    )
    if shell.stdin is None or shell.stdout is None or shell.stderr is None:
        raise BrokenPipeError("no pipes to the shell")
    await _attend(
        process,
        shell,
        feeding=_feed(process, shell.stdin, terminal=None),
        showing=[
            _show(shell.stdout, process.stdout),
            _show(shell.stderr, process.stderr),
        ],
    )


async def _run_on_terminal(
    process: asyncssh.SSHServerProcess[bytes],
    arguments: list[str],
    environment: dict[str, str],
) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = pty.openpty()
    _set_size(ours, *process.term_size[:2])
    # Both transports close their file at the end, so each gets its own descriptor.
    to_shell, flow = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(os.dup(ours), "wb", buffering=0)
    )
    reader = asyncio.StreamReader()
    from_shell, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader),
        os.fdopen(os.dup(ours), "rb", buffering=0),
    )
    writer = asyncio.StreamWriter(to_shell, flow, None, loop)
    try:
        shell = await asyncio.create_subprocess_exec(
            *arguments,
            env=environment,
            cwd=Path.home(),
            pass_fds=[theirs],
            preexec_fn=lambda: os.login_tty(theirs),
        )
        os.close(theirs)
        theirs = -1
        await _attend(
            process,
            shell,
            feeding=_feed(process, writer, terminal=ours),
            showing=[_show(reader, process.stdout)],
        )
    finally:
        to_shell.abort()
        from_shell.close()
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


async def _attend(
    process: asyncssh.SSHServerProcess[bytes],
    shell: asyncio.subprocess.Process,
    *,
    feeding: Coroutine[Any, Any, None],
    showing: list[Coroutine[Any, Any, None]],
) -> None:
    """Relay until `shell` ends and its output is sent; SIGKILL it if the line drops."""
    ended = asyncio.create_task(shell.wait())
    dropped = asyncio.create_task(process.wait_closed())
    fed = asyncio.create_task(feeding)
    shown = [asyncio.create_task(pump) for pump in showing]
    waits: set[asyncio.Future[Any]] = {ended, dropped}
    if isinstance(process, TargetProcess):
        waits.add(process.signalled)
    try:
        while not ended.done():
            done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if dropped in done:
                return
            if isinstance(process, TargetProcess) and process.signalled in done:
                _pass_on(process.signalled.result(), shell)
        # A background job may hold the output open; sshd does not wait for it long.
        await asyncio.wait(shown, timeout=LAST_OUTPUT_SECONDS)
        status = ended.result()
        if status >= 0:
            process.exit(status)
        else:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    finally:
        if shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        tasks = [ended, dropped, fed, *shown]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pass_on(name: str, shell: asyncio.subprocess.Process) -> None:
    if name in SIGNALS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.Signals[f"SIG{name}"])


async def _feed(
    process: asyncssh.SSHServerProcess[bytes],
    writer: asyncio.StreamWriter,
    *,
    terminal: int | None,
) -> None:
    """Pass input to the shell, window sizes to `terminal` (its descriptor)."""
    while True:
        try:
            received = await process.stdin.read(CHUNK)
        except asyncssh.TerminalSizeChanged as change:
            if terminal is not None:
                _set_size(terminal, change.width, change.height)
            continue
        except (asyncssh.BreakReceived, asyncssh.SignalReceived):
            continue
        if not received:
            break
        writer.write(received)
        await writer.drain()
    if terminal is None:
        writer.close()
    else:
        writer.write(END_OF_INPUT)


async def _show(
    reader: asyncio.StreamReader, writer: asyncssh.SSHWriter[bytes]
) -> None:
    """Pass output on until it ends; a terminal ends with EIO, see pty(7)."""
    while True:
        try:
            produced = await reader.read(CHUNK)
        except OSError:
            return
        if not produced:
            return
        writer.write(produced)
        await writer.drain()


def _set_size(terminal: int, columns: int, rows: int) -> None:
    columns, rows = clamp_size(columns, rows)
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
