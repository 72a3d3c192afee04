"""Odd SSH targets for tests: silent, closing, flooding, deaf, and a plain echo.

Each is an async context manager that yields a `Target`. `in_background` runs one from
a test that is not async.
"""

import asyncio
import contextlib
import secrets
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

import asyncssh

from jumpserver.demo.ssh_target import (
    LOOPBACK,
    Program,
    TargetProcess,
    TrackedServer,
    end_all,
    listen,
)

LOGIN = "tester"
FLOOD_PIECE = bytes(range(32, 127)) * 300


@dataclass
class Target:
    """A running target: where it is, how to log in, and what it saw.

    `host_key` is the public line it shows. `sign_ins` counts connections on which
    somebody was named, `sessions` programs started and
    `received` is what the echo target read from its standard input.
    """

    port: int
    host_key: str = ""
    login: str = LOGIN
    password: str = ""
    client_key: asyncssh.SSHKey | None = None
    address: str = LOOPBACK
    connections: int = 0
    sign_ins: int = 0
    sessions: int = 0
    received: bytearray = field(default_factory=bytearray)
    signals: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    open_now: set[asyncssh.SSHServerConnection] = field(default_factory=set)


class _Server(TrackedServer):
    """Let in `tester` with the password or key of this target."""

    def __init__(
        self,
        connections: set[asyncssh.SSHServerConnection],
        target: Target,
        program: Callable[[Target, asyncssh.SSHServerProcess[bytes]], Awaitable[None]],
    ) -> None:
        super().__init__(connections)
        self._target = target
        self._program = program

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        self._target.connections += 1

    def begin_auth(self, username: str) -> bool:
        self._target.sign_ins += 1
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return username == LOGIN and password == self._target.password

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        known = self._target.client_key
        return (
            username == LOGIN
            and known is not None
            and key.public_data == known.public_data
        )

    def session_requested(self) -> TargetProcess:
        self._target.sessions += 1

        async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
            with contextlib.suppress(OSError, asyncssh.ConnectionLost):
                await self._program(self._target, process)

        program: Program = run
        return TargetProcess(program)


@asynccontextmanager
async def ssh_target(
    program: Callable[[Target, asyncssh.SSHServerProcess[bytes]], Awaitable[None]],
    *,
    host_key: asyncssh.SSHKey | None = None,
    port: int = 0,
    **options: object,
) -> AsyncIterator[Target]:
    """Serve `program` to every session; `options` go to asyncssh.listen."""
    key = host_key or asyncssh.generate_private_key("ssh-ed25519")
    target = Target(
        port=0,
        host_key=key.export_public_key("openssh").decode().strip(),
        password=secrets.token_urlsafe(12),
        client_key=asyncssh.generate_private_key("ssh-ed25519"),
    )
    connections: set[asyncssh.SSHServerConnection] = set()
    acceptor = await listen(
        port, lambda: _Server(connections, target, program), key, **options
    )
    target.port, target.open_now = acceptor.get_port(), connections
    try:
        yield target
    finally:
        await end_all(acceptor, connections)


def reset(
    connection: asyncssh.SSHClientConnection | asyncssh.SSHServerConnection,
) -> None:
    """Close a connection as a machine does that lost its power: with a reset."""
    transport = connection.get_extra_info("socket")
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.abort()


def echo_target(
    *, host_key: asyncssh.SSHKey | None = None, port: int = 0, **options: object
) -> AbstractAsyncContextManager[Target]:
    """An ordinary target. For a wrong host key pin another than `Target.host_key`.

    Commands: `stdout TEXT`, `stderr TEXT`, `both` (out on one, err on the other),
    `exit N`, `signal NAME` (ends by it), `await-signal` (prints the one it got), `env`,
    `die` (the target's socket is reset),
    `size`, `flood N` (N bytes), `cat`; a shell echoes its input.
    """
    return ssh_target(_echo, host_key=host_key, port=port, **options)


def flooding_target() -> AbstractAsyncContextManager[Target]:
    """Every session prints as fast as it is read, for ever."""
    return ssh_target(_flood)


def deaf_target() -> AbstractAsyncContextManager[Target]:
    """Every session never reads: a window's worth of input goes in and then none."""
    return ssh_target(_be_deaf)


@asynccontextmanager
async def hanging_target() -> AsyncIterator[Target]:
    """Accept TCP and send nothing, not even a version line."""

    async def hang(target: Target, reader: asyncio.StreamReader) -> None:
        while await reader.read(65536):
            pass

    async with _tcp_target(hang) as target:
        yield target


@asynccontextmanager
async def closing_target() -> AsyncIterator[Target]:
    """Accept TCP and close at once."""

    async def close(target: Target, reader: asyncio.StreamReader) -> None:
        return

    async with _tcp_target(close) as target:
        yield target


@contextmanager
def in_background(context: AbstractAsyncContextManager[Target]) -> Iterator[Target]:
    """Run `context` on an event loop in a thread, for a test that is not async."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="target", daemon=True)
    thread.start()
    try:
        target = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(20)
        try:
            yield target
        finally:
            asyncio.run_coroutine_threadsafe(
                context.__aexit__(None, None, None), loop
            ).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@asynccontextmanager
async def _tcp_target(
    behave: Callable[[Target, asyncio.StreamReader], Awaitable[None]],
) -> AsyncIterator[Target]:
    target = Target(port=0)
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target.connections += 1
        open_writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                await behave(target, reader)
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()
        for writer in list(open_writers):
            writer.transport.abort()
        await server.wait_closed()


async def _flood(_: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
    while True:
        process.stdout.write(FLOOD_PIECE)
        await process.stdout.drain()


async def _be_deaf(_: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
    process.channel.pause_reading()
    process.stdout.write(b"I am not listening\r\n")
    await process.channel.wait_closed()


async def _echo(target: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
    name, _, argument = (process.command or "cat").partition(" ")
    out, err = process.stdout, process.stderr
    if name in ("stdout", "both"):
        out.write((argument or "out").encode() + b"\n")
    if name in ("stderr", "both"):
        err.write((argument or "err").encode() + b"\n")
    if name == "die":
        reset(cast(asyncssh.SSHServerConnection, process.channel.get_connection()))
        return
    if name == "signal":
        process.exit_with_signal(argument)
        return
    if name == "await-signal":
        assert isinstance(process, TargetProcess)
        out.write(b"waiting\n")
        target.signals.append(await process.signalled)
        out.write(target.signals[-1].encode() + b"\n")
    if name == "env":
        for key, value in sorted(process.env.items()):
            out.write(f"{key}={value}\n".encode())
    if name == "size":
        out.write(b"%dx%d\n" % process.term_size[:2])
    if name == "flood":
        left = int(argument)
        while left > 0:
            out.write(FLOOD_PIECE[:left])
            left -= len(FLOOD_PIECE)
            await out.drain()
    if name == "cat":
        await _cat(target, process)
    process.exit(int(argument) if name == "exit" else 0)


async def _cat(target: Target, process: asyncssh.SSHServerProcess[bytes]) -> None:
    while True:
        try:
            received = await process.stdin.read(65536)
        except asyncssh.TerminalSizeChanged as change:
            target.sizes.append((change.width, change.height))
            continue
        except asyncssh.SignalReceived as signal:
            target.signals.append(signal.signal)
            continue
        except asyncssh.BreakReceived:
            target.signals.append("BREAK")
            continue
        if not received:
            return
        target.received += received
        process.stdout.write(received)
        await process.stdout.drain()
