"""One person's SSH client: OpenSSH on a pty, or paramiko where there is none.

The one-time code is typed at the gateway's prompt like a person does, where it is asked
for: not within the grace after a full sign-in. The gateway's host key is the only one
trusted; no configuration or agent of the caller is used.
"""

import fcntl
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import paramiko

from jumpserver.demo import leash
from jumpserver.demo.one_time_codes import CodeBook
from jumpserver.demo.people_file import PersonCard
from jumpserver.demo.processes import RunningDemo
from jumpserver.demo.transcript import Transcript

PROMPT = "One-time code: "
TERM = "xterm-256color"
_SIGN_IN_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_SSH_FAILED = 255
_PIECE = 65536
Size = tuple[int, int]


class SshRefusedError(AssertionError):
    """The connection did not come to be; the message is what the client was told."""


class SshChannel(ABC):
    """One shell or command, while it runs and after it."""

    def __init__(self) -> None:
        self.transcript = Transcript()

    @abstractmethod
    def type(self, keys: str) -> None:
        """Send keys as typed."""

    @abstractmethod
    def resize(self, columns: int, rows: int) -> None:
        """Change the window, as dragging its corner does."""

    @abstractmethod
    def exit_status(self, *, seconds: float = 20) -> int:
        """Wait for the end and return the exit status; -1 or 255 when it was cut."""

    @abstractmethod
    def close(self) -> None:
        """End it from this side, if it still goes on."""


class SshConnection(ABC):
    """A signed-in connection to one asset through the gateway."""

    @abstractmethod
    def open(self, command: str = "", *, size: Size | None = None) -> SshChannel:
        """Open a shell, or run a command; with `size` (columns, rows) on a terminal.

        Raises: SshRefusedError.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""


class SshClient:
    """What one person has: key, app, and the gateway's host key."""

    def __init__(
        self, demo: RunningDemo, card: PersonCard, codes: CodeBook, directory: Path
    ) -> None:
        """`directory` is private, short and for this client's files alone."""
        self.demo, self.card, self.codes = demo, card, codes
        self.directory = directory
        self.binary = shutil.which("ssh")
        self._count = 0

    @property
    def name(self) -> str:
        """Return which client this is, for people."""
        if self.binary is None:
            return f"paramiko {paramiko.__version__} (no ssh on this machine)"
        told = subprocess.run(  # noqa: S603 - the ssh of this machine
            [self.binary, "-V"], capture_output=True, check=False, timeout=10
        )
        return told.stderr.decode(errors="replace").strip()

    def connect(self, target: str) -> SshConnection:
        """Return a connection as `me@target`; nothing is sent before its first open."""
        user = f"{self.card.username}@{target}"
        self._count += 1
        if self.binary is None:
            return _ParamikoConnection(self, user)
        return _OpenSshConnection(self, user, self.binary, f"c{self._count}")


def _read_into(transcript: Transcript, descriptor: int) -> None:
    """Read until the other end of the pty is closed (EIO)."""
    try:
        while piece := os.read(descriptor, _PIECE):
            transcript.add(piece)
    except OSError:
        pass
    finally:
        transcript.end()


class _OpenSshConnection(SshConnection):
    """The first channel's process is the master; later ones go through its socket."""

    def __init__(
        self, client: SshClient, user: str, binary: str, socket_name: str
    ) -> None:
        self._client, self._user, self._binary = client, user, binary
        self._socket = client.directory / socket_name
        self._channels: list[_OpenSshChannel] = []

    def open(self, command: str = "", *, size: Size | None = None) -> SshChannel:
        is_master = not self._channels
        channel = _OpenSshChannel(
            [
                *self._options(is_master=is_master),
                "-tt" if size else "-T",
                f"{self._user}@{self._client.demo.ssh_host}",
                *([command] if command else []),
            ],
            size,
        )
        self._channels.append(channel)
        if is_master:
            self._sign_in(channel)
        return channel

    def close(self) -> None:
        # The master last: the others go through it.
        while self._channels:
            self._channels.pop().close()

    def _sign_in(self, channel: "_OpenSshChannel") -> None:
        """Type the code where one is asked for, and return when that is done."""
        transcript = channel.transcript
        deadline = time.monotonic() + _SIGN_IN_SECONDS
        # The master makes its socket once it has signed in, with a code or without.
        while not self._socket.exists():
            if PROMPT in transcript.text:
                channel.type(f"{self._client.codes.next_code()}\n")
                return
            if transcript.ended_at is not None:
                break
            if time.monotonic() > deadline:
                self.close()
                raise SshRefusedError(f"no sign-in: {transcript.text.strip()}")
            time.sleep(_LOOK_SECONDS)
        if transcript.ended_at is not None and channel.exit_status() == _SSH_FAILED:
            self.close()
            raise SshRefusedError(transcript.text.strip())

    def _options(self, *, is_master: bool) -> list[str]:
        demo, directory = self._client.demo, self._client.directory
        known_hosts = directory / "known_hosts"
        known_hosts.write_text(
            f"[{demo.ssh_host}]:{demo.ssh_port} {demo.ssh_host_key}\n"
        )
        return [
            self._binary,
            "-F/dev/null",
            f"-oUserKnownHostsFile={known_hosts}",
            "-oGlobalKnownHostsFile=/dev/null",
            "-oStrictHostKeyChecking=yes",
            "-oIdentityAgent=none",
            "-oIdentitiesOnly=yes",
            "-oConnectTimeout=10",
            f"-i{self._client.card.ssh_private_key}",
            f"-S{self._socket}",
            *(["-M"] if is_master else []),
            f"-p{demo.ssh_port}",
        ]


class _OpenSshChannel(SshChannel):
    """An ssh process on a pty of its own, which is its controlling terminal."""

    def __init__(self, command: Sequence[str], size: Size | None) -> None:
        super().__init__()
        self._terminal, inside = pty.openpty()
        try:
            # Keys reach a command as they are, and are not shown twice.
            tty.setraw(inside)
            self._set_size(*(size or (80, 24)))
            self._process = subprocess.Popen(  # noqa: S603 - the ssh of this machine
                [
                    sys.executable,
                    "-I",
                    "-S",
                    leash.__file__,
                    str(os.getpid()),
                    leash.TERMINAL,
                    *command,
                ],
                stdin=inside,
                stdout=inside,
                stderr=inside,
                env=_plain_environment(),
            )
        finally:
            os.close(inside)
        self._reader = threading.Thread(
            target=_read_into, args=(self.transcript, self._terminal), daemon=True
        )
        self._reader.start()

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self._set_size(columns, rows)
        self._process.send_signal(signal.SIGWINCH)

    def exit_status(self, *, seconds: float = 20) -> int:
        status = self._process.wait(seconds)
        # What it wrote last is still being read.
        self.transcript.wait_for_end(seconds=seconds)
        return status

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(10)
        self._reader.join(5)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _set_size(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)


def _plain_environment() -> dict[str, str]:
    """Return what ssh needs; nothing that would steer it or ask in a window."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"TERM": TERM, "LANG": "C.UTF-8"}


class _ParamikoConnection(SshConnection):
    """The same by a second library, for machines without OpenSSH's client."""

    def __init__(self, client: SshClient, user: str) -> None:
        self._client, self._user = client, user
        self._transport: paramiko.Transport | None = None

    def open(self, command: str = "", *, size: Size | None = None) -> SshChannel:
        try:
            if self._transport is None:
                self._transport = self._sign_in()
            channel = self._transport.open_session(timeout=_SIGN_IN_SECONDS)
            if size is not None:
                channel.get_pty(TERM, *size)
            if command:
                # The story's own words, run on the demo plant.
                channel.exec_command(command)  # nosec B601
            else:
                channel.invoke_shell()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise SshRefusedError(str(error)) from error
        return _ParamikoChannel(channel)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _sign_in(self) -> paramiko.Transport:
        demo, card = self._client.demo, self._client.card
        # The plain one asks for the service again before the second factor.
        transport: paramiko.Transport = paramiko.ServiceRequestingTransport(  # type: ignore[attr-defined]  # unknown to its stubs
            socket.create_connection((demo.ssh_host, demo.ssh_port), timeout=10)
        )
        transport.start_client(timeout=_SIGN_IN_SECONDS)
        told = transport.get_remote_server_key()
        if f"{told.get_name()} {told.get_base64()}" != demo.ssh_host_key.strip():
            transport.close()
            raise SshRefusedError("another host key than the gateway's")
        key = paramiko.Ed25519Key.from_private_key_file(str(card.ssh_private_key))
        if transport.auth_publickey(self._user, key):
            # Something is missing still: no full sign-in a moment ago covers this one.
            transport.auth_interactive(self._user, self._answer)
        return transport

    def _answer(
        self, _title: str, _instructions: str, prompts: list[tuple[str, bool]]
    ) -> list[str]:
        if [text for text, _ in prompts] != [PROMPT]:
            raise SshRefusedError(f"the gateway asks for something else: {prompts}")
        return [self._client.codes.next_code()]


class _ParamikoChannel(SshChannel):
    """A paramiko channel, read by a thread."""

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__()
        self._channel = channel
        channel.set_combine_stderr(True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while piece := self._channel.recv(_PIECE):
                self.transcript.add(piece)
        finally:
            self.transcript.end()

    def type(self, keys: str) -> None:
        self._channel.sendall(keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self._channel.resize_pty(columns, rows)

    def exit_status(self, *, seconds: float = 20) -> int:
        self.transcript.wait_for_end(seconds=seconds)
        return int(self._channel.recv_exit_status())

    def close(self) -> None:
        self._channel.close()
