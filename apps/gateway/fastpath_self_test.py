"""Runs the fast path and asyncssh's own against each other, as the gateway starts."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

import asyncssh
from asyncssh.channel import SSHClientChannel
from asyncssh.connection import SSHClientConnection, SSHServerConnection
from asyncssh.session import SSHClientSession, SSHServerSession

from apps.gateway.fastpath import (
    ClientConnection,
    FastPathStatus,
    ServerConnection,
    disable,
    status,
)


class _EchoSession(SSHServerSession[bytes]):
    def connection_made(self, chan: Any) -> None:
        self._chan = chan

    def shell_requested(self) -> bool:
        return True

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._chan.write(data)

    def eof_received(self) -> bool:
        self._chan.exit(0)
        return True


class _EchoServer(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return False

    def session_requested(self) -> Any:
        return _EchoSession()


class _CollectSession(SSHClientSession[bytes]):
    def __init__(self, done: asyncio.Future[bytes]) -> None:
        self._done = done
        self._got = bytearray()

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._got += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            if exc is None:
                self._done.set_result(bytes(self._got))
            else:
                self._done.set_exception(exc)


async def echo_round_trip(
    chunks: Sequence[bytes],
    *,
    server: type[SSHServerConnection],
    client: type[SSHClientConnection],
    encryption: str = "aes256-gcm@openssh.com",
    rekey_bytes: int = 1 << 30,
) -> bytes:
    """Send `chunks` through an SSH echo on a socket pair; return what came back."""
    loop = asyncio.get_running_loop()
    key = asyncssh.generate_private_key("ssh-ed25519")
    common: dict[str, Any] = {
        "config": None,
        "encryption_algs": [encryption],
        "kex_algs": ["curve25519-sha256"],
        "compression_algs": None,
        "rekey_bytes": rekey_bytes,
    }
    accept_options = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=_EchoServer,
        server_host_keys=[key],
        line_editor=False,
        encoding=None,
        gss_host=None,
        **common,
    )
    connect_options = await asyncssh.SSHClientConnectionOptions.construct(
        host="127.0.0.1",
        username="selftest",
        known_hosts=([key.convert_to_public()], [], []),
        client_keys=None,
        agent_path=None,
        gss_host=None,
        **common,
    )
    connect_options.waiter = loop.create_future()
    near, far = socket.socketpair()
    accepted = server(loop, accept_options)
    connected = client(loop, connect_options, wait="auth")
    await loop.create_connection(lambda: accepted, sock=near)
    await loop.create_connection(lambda: connected, sock=far)
    try:
        await connect_options.waiter
        done: asyncio.Future[bytes] = loop.create_future()
        if isinstance(connected, ClientConnection):
            channel: SSHClientChannel[bytes] = connected.new_session_channel(
                window=1 << 21, max_pktsize=1 << 15
            )
            await channel.create(
                lambda: _CollectSession(done),
                command=None,
                subsystem=None,
                env={},
                request_pty=False,
                term_type=None,
                term_size=(0, 0),
                term_modes={},
                x11_forwarding=False,
                x11_display=None,
                x11_auth_path=None,
                x11_single_connection=False,
                agent_forwarding=False,
            )
        else:
            channel, _ = await connected.create_session(
                lambda: _CollectSession(done), encoding=None
            )
        for chunk in chunks:
            channel.write(chunk)
            await asyncio.sleep(0)
        channel.write_eof()
        return await done
    finally:
        connected.abort()
        accepted.abort()
        await connected.wait_closed()
        await accepted.wait_closed()


async def self_test(*, rounds: int = 24, rekey_bytes: int = 200_000) -> FastPathStatus:
    """Compare the fast with the stock path on random data, with rekeying on the way.

    Each end is stock once, so that sending and receiving are each judged by asyncssh.
    Any difference or error switches the fast path off for new connections. About
    0.2 s.
    """
    if not status().active:
        return status()
    chunks = [os.urandom(1 + secrets.randbelow(1 << 15)) for _ in range(rounds)]
    sent = b"".join(chunks)
    pairs: tuple[tuple[type[SSHServerConnection], type[SSHClientConnection]], ...] = (
        (ServerConnection, SSHClientConnection),
        (SSHServerConnection, ClientConnection),
        (ServerConnection, ClientConnection),
    )
    try:
        for server, client in pairs:
            async with asyncio.timeout(10):
                came_back = await echo_round_trip(
                    chunks, server=server, client=client, rekey_bytes=rekey_bytes
                )
            if came_back != sent:
                disable(f"self-test: {server.__name__} altered the data")
                break
    except (asyncssh.Error, OSError, TimeoutError) as error:
        disable(f"self-test failed: {error!r}")
    return status()
