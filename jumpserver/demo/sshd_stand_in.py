"""A stand-in for `scada-01` on machines without sshd: asyncssh with a real /bin/sh.

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
from fcntl import ioctl
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

BANNER = "scada-01: stand-in, OpenSSH's sshd is not installed on this machine\n"
PASSED_ON = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER")
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
        return TargetProcess(serve_shell)


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


async def serve_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run /bin/sh, or one command in it, with a terminal if one was asked for."""
    arguments = ["/bin/sh"]
    if process.command is not None:
        arguments += ["-c", process.command]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {
        name: value
        for name, value in process.env.items()
        if name == "LANG" or name.startswith("LC_")
    }
    shell: asyncio.subprocess.Process | None = None
    try:
        if process.term_type is None:
            shell = await _spawn_on_pipes(process, arguments, environment)
        else:
            environment["TERM"] = process.term_type
            shell = await _spawn_on_terminal(process, arguments, environment)
        status = await _wait_for(shell, process)
        await process.stdout.drain()
        if status >= 0:
            process.exit(status)
        else:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    except (OSError, asyncssh.ConnectionLost):
        process.close()
    finally:
        if shell is not None and shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


async def _spawn_on_pipes(
    process: asyncssh.SSHServerProcess[bytes],
    arguments: list[str],
    environment: dict[str, str],
) -> asyncio.subprocess.Process:
    shell = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=Path.home(),
        start_new_session=True,
    )
    await process.redirect(shell.stdin, shell.stdout, shell.stderr, send_eof=False)
    return shell


async def _spawn_on_terminal(
    process: asyncssh.SSHServerProcess[bytes],
    arguments: list[str],
    environment: dict[str, str],
) -> asyncio.subprocess.Process:
    ours, theirs = pty.openpty()
    try:
        columns, rows = clamp_size(*process.term_size[:2])
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        shell = await asyncio.create_subprocess_exec(
            *arguments,
            env=environment,
            cwd=Path.home(),
            pass_fds=[theirs],
            preexec_fn=lambda: os.login_tty(theirs),
        )
        # asyncssh closes what it is given, and sets the size of a terminal itself.
        await process.redirect(os.dup(ours), os.dup(ours), send_eof=False)
    finally:
        os.close(theirs)
        os.close(ours)
    return shell


async def _wait_for(
    shell: asyncio.subprocess.Process, process: asyncssh.SSHServerProcess[bytes]
) -> int:
    """Return the status of `shell`, passing on signals; SIGKILL it if the line drops.

    Negative means ended by that signal, as asyncio has it.
    """
    ended = asyncio.ensure_future(shell.wait())
    dropped = asyncio.ensure_future(process.wait_closed())
    waits: set[asyncio.Future[Any]] = {ended, dropped}
    if isinstance(process, TargetProcess):
        waits.add(process.signalled)
    try:
        while not ended.done():
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            waits -= done
            if dropped in done:
                os.killpg(shell.pid, signal.SIGKILL)
            elif isinstance(process, TargetProcess) and process.signalled in done:
                name = process.signalled.result()
                if name in SIGNALS:
                    os.killpg(shell.pid, signal.Signals[f"SIG{name}"])
        return ended.result()
    finally:
        ended.cancel()
        dropped.cancel()
