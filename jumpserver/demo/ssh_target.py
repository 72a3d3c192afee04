"""What the asyncssh targets of the demo plant share: listening, tracking, sessions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import asyncssh

LOOPBACK = "127.0.0.1"
LOGIN_SECONDS = 30
STOP_SECONDS = 2.0
SFTP_VERSION = 3

MODERN_ALGORITHMS: dict[str, Any] = {
    "kex_algs": [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
    ],
    "encryption_algs": [
        "chacha20-poly1305@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "aes256-ctr",
    ],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
    "signature_algs": ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"],
}

Program = Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]


class PlantTarget(Protocol):
    """One asset of the demo plant that listens on loopback."""

    name: str

    async def start(self, wanted_port: int) -> int:
        """Listen on `wanted_port` if it is free, else on any; return the port."""

    async def stop(self) -> None:
        """Stop listening and end every connection."""

    def describe(self) -> dict[str, Any]:
        """Return what `state.json` says of this asset."""


class TrackedServer(asyncssh.SSHServer):
    """An SSH server side that its target can find again, to end it at stop."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    @property
    def connection(self) -> asyncssh.SSHServerConnection:
        """The connection this object serves; raises RuntimeError before it exists."""
        if self._connection is None:
            raise RuntimeError("no connection yet")
        return self._connection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, _: Exception | None) -> None:
        if self._connection is not None:
            self._connections.discard(self._connection)


class TargetProcess(asyncssh.SSHServerProcess[bytes]):
    """A session of a target: the kinds it allows, and signals as a future.

    asyncssh delivers signals as exceptions of a read; a program that is not reading
    (after end of input, or in `sleep`) awaits `signalled` instead.
    """

    def __init__(
        self,
        program: Program,
        *,
        allows_exec: bool = True,
        sftp_factory: Callable[[asyncssh.SSHServerChannel[bytes]], asyncssh.SFTPServer]
        | None = None,
    ) -> None:
        super().__init__(
            cast(Any, program), cast(Any, sftp_factory), SFTP_VERSION, allow_scp=False
        )
        self._allows_exec = allows_exec
        self._has_sftp = sftp_factory is not None
        self.signalled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def exec_requested(self, _: str) -> bool:
        return self._allows_exec

    def subsystem_requested(self, subsystem: str) -> bool:
        return self._has_sftp and subsystem == "sftp"

    def signal_received(self, signal: str) -> None:
        if not self.signalled.done():
            self.signalled.set_result(signal)
        super().signal_received(signal)


async def listen(
    wanted_port: int,
    server_factory: Callable[[], asyncssh.SSHServer],
    host_key: asyncssh.SSHKey | asyncssh.SSHKeyPair,
    **options: Any,
) -> asyncssh.SSHAcceptor:
    """Listen on loopback at `wanted_port`, or at a free port if that one is taken.

    Sessions carry bytes and asyncssh's own line editor is off: what a target prints
    and echoes is its own affair.
    """

    async def attempt(port: int) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            LOOPBACK,
            port,
            server_factory=server_factory,
            server_host_keys=[host_key],
            encoding=None,
            line_editor=False,
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=15,
            config=None,
            **options,
        )

    if wanted_port:
        try:
            return await attempt(wanted_port)
        except OSError:
            pass
    return await attempt(0)


async def end_all(
    acceptor: asyncssh.SSHAcceptor | None,
    connections: set[asyncssh.SSHServerConnection],
) -> None:
    """Stop listening, close every connection, and cut those that do not go."""
    if acceptor is not None:
        acceptor.close()
    open_connections = list(connections)
    for connection in open_connections:
        connection.close()
    waits = [
        asyncio.ensure_future(connection.wait_closed())
        for connection in open_connections
    ]
    if waits:
        _, late = await asyncio.wait(waits, timeout=STOP_SECONDS)
        if late:
            for connection in open_connections:
                connection.abort()
            await asyncio.wait(late, timeout=STOP_SECONDS)
    if acceptor is not None:
        await acceptor.wait_closed()
