"""An asset that is a strict recorder: it answers "did anything arrive?"."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from jumpserver.demo.ssh_target import TrackedServer, end_all, listen
from tests.targets import LOGIN, Target

SFTP_VERSION_FRAME = b"\x00\x00\x00\x05\x02\x00\x00\x00\x03"
FLOOD_PIECE = bytes(1 << 16)


@dataclass
class RecordingTarget(Target):
    """What reached it: sign-ins, what was asked for, and bytes."""

    sign_ins: int = 0
    asked: list[str] = field(default_factory=list)
    ended: int = 0
    deaf: bool = False
    """Read nothing from channels that open from now on."""
    admits: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: sign-ins wait."""

    @property
    def untouched(self) -> bool:
        """Say whether no channel was opened and no byte arrived."""
        return not self.asked and not self.received


class _Channel(asyncssh.SSHServerSession[bytes]):
    """Says yes to everything and echoes; a subsystem answers as SFTP does."""

    def __init__(self, target: RecordingTarget) -> None:
        self._target = target
        self._channel: Any = None
        self._sftp = False

    def connection_made(self, chan: Any) -> None:
        self._channel = chan
        if self._target.deaf:
            asyncio.get_running_loop().call_soon(chan.pause_reading)

    def pty_requested(self, *_: Any) -> bool:
        return True

    def shell_requested(self) -> bool:
        self._target.asked.append("shell")
        return True

    def exec_requested(self, command: str) -> bool:
        self._target.asked.append(f"exec {command}")
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._target.asked.append(f"subsystem {subsystem}")
        self._sftp = True
        return True

    def session_started(self) -> None:
        if self._target.deaf:
            # asyncssh begins to read after this.
            asyncio.get_running_loop().call_soon(self._channel.pause_reading)

    def data_received(self, data: bytes, _: Any) -> None:
        self._target.received += data
        self._channel.write(SFTP_VERSION_FRAME if self._sftp else data)

    def connection_lost(self, _: Exception | None) -> None:
        self._target.ended += 1


class _Forward(_Channel, asyncssh.SSHTCPSession[bytes]):
    """The same for a forward, which goes nowhere from here."""


class _Server(TrackedServer):
    def __init__(
        self,
        connections: set[asyncssh.SSHServerConnection],
        target: RecordingTarget,
    ) -> None:
        super().__init__(connections)
        self._target = target

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        self._target.connections += 1

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        await self._target.admits.wait()
        right = username == LOGIN and password == self._target.password
        self._target.sign_ins += right
        return right

    def session_requested(self) -> Any:
        return _Channel(self._target)

    def connection_requested(self, dest_host: str, dest_port: int, *_: Any) -> Any:
        self._target.asked.append(f"forward {dest_host} {dest_port}")
        return _Forward(self._target)


@asynccontextmanager
async def recording_asset() -> AsyncIterator[RecordingTarget]:
    """Run one; its methods and fields belong to its own loop's thread."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    target = RecordingTarget(
        port=0,
        host_key=key.export_public_key("openssh").decode().strip(),
        password=secrets.token_urlsafe(12),
    )
    target.admits.set()
    connections: set[asyncssh.SSHServerConnection] = set()
    acceptor = await listen(0, lambda: _Server(connections, target), key)
    target.port = acceptor.get_port()
    try:
        yield target
    finally:
        target.admits.set()
        await end_all(acceptor, connections)
