"""The gateway's end of an SSH connection to an asset.

It opens channels, the asset opens none; it signs in only when it is given a credential.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import asyncssh
from asyncssh.auth import _ClientPublicKeyAuth
from asyncssh.constants import (
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
)
from asyncssh.packet import SSHPacket, SSHPacketHandler
from asyncssh.public_key import load_keypairs

from apps.gateway.asset_channel import AssetChannel
from apps.gateway.device_sign_in import DeviceSignIn
from apps.gateway.fastpath import ClientConnection

STRICT_KEX_SERVER: Final = b"kex-strict-s-v00@openssh.com"
KEEPALIVE_SECONDS: Final = 30
KEEPALIVE_COUNT: Final = 4


class _Nobody(SSHPacketHandler):
    """Takes what a device sends to a channel that has gone: RFC 4254 5.3 forbids it,
    OpenSSH's client does not mind."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:  # noqa: ARG002
        """Take it and do nothing."""
        return True

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing."""


class _Channels(dict[int, Any]):
    """Channels by number; a number that is not there is nobody's, not an error."""

    def __missing__(self, number: int) -> Any:
        return _Nobody()


@dataclass(frozen=True, slots=True)
class SignInWays:
    """How to sign in to an asset: exactly the lease's way, and no other."""

    login: str
    methods: tuple[str, ...]
    """SSH's methods (RFC 4252) in order; none for a device that asks on a terminal."""
    key: Any = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


class _SignedAtOnce(_ClientPublicKeyAuth):
    """Public key authentication without the question before it (RFC 4252 7)."""

    async def _start(self) -> None:
        self._keypair = await self._conn.public_key_auth_requested()
        if self._keypair is None:
            self._conn.try_next_auth(next_method=True)
        else:
            await self._send_signed_request()


class UpstreamConnection(ClientConnection):
    """A connection to an asset; it opens channels, the asset opens none.

    Devices may ignore keepalives or answer them wrongly, so only one that has answered
    before is given up for its silence; a device that has vanished is noticed by TCP.
    """

    strict_kex_required = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._channels = _Channels()
        self.answers_keepalives = False
        self.new_sign_in: Callable[[], DeviceSignIn | None] = lambda: None
        """Makes what answers a new shell's questions, for a device that has some."""
        self.on_refused_channel: Callable[[str], None] | None = None
        self.kex_problem: asyncssh.KeyExchangeFailed | None = None
        self._may_sign_in = False

    def sign_in(self, ways: SignInWays) -> None:
        """Sign in, now that there is a credential; until then nothing is tried.

        With a key the first message is the signature: asking which methods there are,
        and then whether the key would do, costs two answers, and sshd holds each of
        them back for five to nine milliseconds.
        """
        self._username = ways.login
        self._preferred_auth = [method.encode("ascii") for method in ways.methods]
        self._disable_trivial_auth = ways.methods != ()
        self._password = ways.password
        self._may_sign_in = True
        if ways.key is None:
            self.try_next_auth()
            return
        self._client_keys = [*load_keypairs([ways.key])]
        self._auth_methods = [b"publickey"]
        self._auth = _SignedAtOnce(self, b"publickey")

    def try_next_auth(self, *, next_method: bool = False) -> None:
        """Wait for the credential after the key exchange, then do as asyncssh does."""
        if self._may_sign_in:
            super().try_next_auth(next_method=next_method)

    def _choose_alg(
        self, alg_type: str, local_algs: Sequence[bytes], remote_algs: Sequence[bytes]
    ) -> bytes:
        """Require strict key exchange unless the profile is a weak one (R34)."""
        if (
            alg_type == "key exchange"
            and not self._session_id
            and self.strict_kex_required
            and STRICT_KEX_SERVER not in remote_algs
        ):
            raise asyncssh.KeyExchangeFailed("the asset has no strict key exchange")
        try:
            chosen: bytes = super()._choose_alg(alg_type, local_algs, remote_algs)
        except asyncssh.KeyExchangeFailed as error:
            # The asset comes to the same end and may close before this is reported.
            self.kex_problem = error
            raise
        return chosen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have TCP notice a device that has vanished, whatever it answers."""
        end = transport.get_extra_info("socket")
        if end is not None:
            _watch_by_tcp(end)
        super().connection_made(transport)

    def new_session_channel(self, *, window: int, max_pktsize: int) -> AssetChannel:
        """Return an unopened session channel; the caller runs its `start`."""
        self._update_recv_pktlen(max_pktsize)
        return AssetChannel(
            self, self._loop, "strict", None, "strict", window, max_pktsize
        )

    async def _make_keepalive_request(self) -> None:
        await super()._make_keepalive_request()
        self.answers_keepalives = True

    def _keepalive_timer_callback(self) -> None:
        if not self.answers_keepalives:
            self._keepalive_count = 0
            if len(self._global_request_waiters) >= KEEPALIVE_COUNT:
                # It never answers; TCP goes on to see whether it is there.
                return
        super()._keepalive_timer_callback()

    def _process_global_answer(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Take an answer; one that nobody waits for means nothing."""
        if self._global_request_waiters:
            self._process_global_response(pkttype, pktid, packet)

    def _process_channel_open(
        self, _pkttype: int, _pktid: int, packet: SSHPacket
    ) -> None:
        """Refuse whatever the asset opens: agent, X11, forwarded ports, sessions."""
        kind = packet.get_string().decode("ascii", "replace")
        sender = packet.get_uint32()
        self.send_channel_open_failure(
            sender,
            OPEN_ADMINISTRATIVELY_PROHIBITED,
            "assets open no channels here",
            "",
        )
        if self.on_refused_channel is not None:
            self.on_refused_channel(kind)

    _packet_handlers = {
        **ClientConnection._packet_handlers,
        asyncssh.constants.MSG_CHANNEL_OPEN: _process_channel_open,
        MSG_REQUEST_SUCCESS: _process_global_answer,
        MSG_REQUEST_FAILURE: _process_global_answer,
    }


def _watch_by_tcp(end: socket.socket) -> None:
    """Give up after two and a half minutes without any sign of the other side."""
    seconds = KEEPALIVE_SECONDS * (KEEPALIVE_COUNT + 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", seconds * 1000),
    ):
        # Not every system has each of them.
        with suppress(AttributeError, OSError):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class WeakProfileConnection(UpstreamConnection):
    """For profiles whose ciphers Terrapin does not touch."""

    strict_kex_required = False
