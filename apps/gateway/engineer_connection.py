"""The SSH messages of an engineer's client that the gateway judges itself.

Subclasses of the fast path's server classes: limits on what may be piled up, strict key
exchange required, every channel kind but `session` and `direct-tcpip` refused with one
clear line.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Protocol, cast

import asyncssh
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_DISCONNECT,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
)
from asyncssh.packet import Byte, SSHPacket, String, UInt32

from apps.gateway.algorithms import STRICT_KEX_CLIENT, ciphers_for
from apps.gateway.authentication import Authentication, Stage
from apps.gateway.channel_kinds import FORWARD_TYPE, OPENABLE_TYPES
from apps.gateway.fastpath import ServerChannel, ServerConnection
from apps.gateway.fastpath_forward import ForwardChannel
from apps.gateway.forwarding import AskedForward
from apps.gateway.limits import Budget
from apps.gateway.relay import ENVIRONMENT_LIMIT, passes_environment
from apps.gateway.session_context import EngineerSide

PREFIX: Final = "Sluice: "

REQUEST_LIMIT: Final = 64
"""Channel requests that may wait for an answer."""

ENVIRONMENT_COUNT: Final = 32

GLOBAL_REQUEST_LIMIT: Final = 64
"""Global requests that may wait for an answer."""

STRANGER_PACKETS: Final = 200
"""Packets that may come before the sign-in is complete; twenty keys take fifty."""

CONTROL_BURST: Final = 2000.0
CONTROL_PER_SECOND: Final = 200.0
"""Packets that are neither data nor flow control: each costs the gateway more than its
sender. No client comes near this."""

REKEY_BURST: Final = 64.0
REKEY_PER_SECOND: Final = 1.0
"""Key exchanges the client may begin without having moved any data."""

REKEY_BYTES_EARN: Final = 1 << 16
REKEY_PACKETS_EARN: Final = 16
"""Sent bytes, or received packets, after which a key exchange is free."""


class EngineerChannel(ServerChannel):
    """A session channel with limits on what a client may pile up before it starts."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        """Keep TERM, LANG and LC_* only (R26)."""
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        if (
            not passes_environment(name)
            or len(name) > ENVIRONMENT_LIMIT
            or len(value) > ENVIRONMENT_LIMIT
            or len(self._env) >= ENVIRONMENT_COUNT
        ):
            return False
        self._env[name] = value
        return True

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Take a command in any encoding, as surrogates where it is not UTF-8."""
        command = packet.get_string().decode("utf-8", "surrogateescape")
        packet.check_end()
        return self._start_session(command=command)

    _starts_held = False

    def answer_start(self, *, success: bool, held: bool = False) -> None:
        """Answer the shell, exec or subsystem request that is waiting.

        `held`: nothing is read yet, which asyncssh would begin whatever was asked for.
        """
        if self._request_queue and self._session is not None:
            self._starts_held = held
            self._report_response(success)
            self._starts_held = False

    def resume_reading(self) -> None:
        """Deliver again, but not because a start was answered that is held."""
        if not self._starts_held:
            super().resume_reading()

    def _process_limited_request(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        if len(self._request_queue) >= REQUEST_LIMIT:
            raise asyncssh.ProtocolError("Too many channel requests")
        cast(EngineerConnection, self._connection()).spend_control()
        self._process_request(pkttype, pktid, packet)

    _packet_handlers = {
        **ServerChannel._packet_handlers,
        MSG_CHANNEL_REQUEST: _process_limited_request,
    }


class ConnectionOwner(EngineerSide, Protocol):
    """The engineer behind a connection: `server.Engineer`."""

    admitted: bool
    authentication: Authentication

    def forward_requested(
        self, asked: AskedForward
    ) -> tuple[ForwardChannel, Coroutine[Any, Any, asyncssh.SSHTCPSession[bytes]]]:
        """Return a channel for a forward, and what answers it.

        Raises: asyncssh.ChannelOpenError.
        """


class EngineerConnection(ServerConnection):
    """A connection from an engineer: two factors, then sessions."""

    channel_class = EngineerChannel
    engineer: ConnectionOwner

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hung_up = False
        self._stranger_packets = 0
        self._ignored_next = -1
        self._controls = Budget(CONTROL_BURST, CONTROL_PER_SECOND)
        self._rekeys = Budget(REKEY_BURST, REKEY_PER_SECOND)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the login gate before anything else is done."""
        super().connection_made(transport)
        self.engineer = cast(ConnectionOwner, self._owner)
        if not self.engineer.admitted:
            self.abort_transport()

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """Handle a packet that belongs to no channel, and count it."""
        if self._auth_complete and not self._is_chaff(pkttype, pktid):
            self.spend_control()
        return super().process_packet(pkttype, pktid, packet)

    def _is_chaff(self, pkttype: int, pktid: int) -> bool:
        """Say whether it is the one MSG_IGNORE that asyncssh puts before a packet."""
        if pkttype != MSG_IGNORE:
            return False
        is_single = pktid != self._ignored_next
        self._ignored_next = (pktid + 1) & 0xFFFFFFFF
        return is_single

    def hang_up(self, code: int, reason: str, *, stop: Callable[[], None]) -> bool:
        """Tell the client why and end the socket for writing, all in this very call.

        `stop` is called before and may write, too. Few calls of the kernel and no
        callback, for the moment at which hundreds go.
        `disconnect_now` does the rest later. False when the client does not take what
        it has been sent before.
        """
        transport = self._transport
        if transport is None or transport.get_write_buffer_size():
            return False
        end = transport.get_extra_info("socket")
        if end is None:
            return False
        with suppress(AttributeError, OSError):
            # The message and the end of the stream leave in one segment.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        stop()
        cipher = self.send_cipher_for_data()
        if cipher is None:
            self._send_disconnect(code, reason, "")
        else:
            self.send_one(cipher.encrypt_packet(0, *_last_packet(code, reason))[0])
        if not transport.get_write_buffer_size():
            with suppress(OSError):
                end.shutdown(socket.SHUT_WR)
        self._hung_up = True
        return True

    def disconnect_now(self, code: int, reason: str) -> None:
        """Tell the client why, unless that was done by `hang_up`, and close."""
        if self._hung_up:
            self.abort_transport()
        else:
            super().disconnect_now(code, reason)

    def spend_control(self) -> None:
        """Count a packet that is no data. Raises: DisconnectError above the limit."""
        if not self._controls.spend(self._loop.time()):
            raise asyncssh.DisconnectError(
                DISC_BY_APPLICATION, f"{PREFIX}too many requests"
            )

    def _finish_recv_packet(self, *args: Any, **kwargs: Any) -> None:
        """Count the packets of somebody who has not signed in yet (R18)."""
        super()._finish_recv_packet(*args, **kwargs)
        if not self._auth_complete:
            self._stranger_packets += 1
            if self._stranger_packets > STRANGER_PACKETS:
                self.disconnect_now(
                    DISC_BY_APPLICATION, f"{PREFIX}too much before the sign-in"
                )

    def _process_limited_global_request(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        if len(self._global_request_queue) >= GLOBAL_REQUEST_LIMIT:
            raise asyncssh.ProtocolError("Too many global requests")
        self._process_global_request(pkttype, pktid, packet)

    def _count_rekey(self) -> None:
        """Count a key exchange that the client begins in mid-session.

        Each costs milliseconds, so that one after the other would be a way to keep the
        gateway busy.
        """
        if not self._auth_complete or self._kexinit_sent:
            return
        moved = self._rekey_bytes_sent / REKEY_BYTES_EARN
        # Strict key exchange starts the count of packets anew each time.
        moved += self._recv_seq / REKEY_PACKETS_EARN
        self._rekeys.earn(min(moved, 1.0))
        if not self._rekeys.spend(self._loop.time()):
            raise asyncssh.DisconnectError(
                DISC_BY_APPLICATION, f"{PREFIX}too many key exchanges"
            )

    def _send_kexinit(self) -> None:
        """Offer the ciphers for this client; its version is known by now."""
        if not self._session_id:
            self._enc_algs = [
                name.encode("ascii") for name in ciphers_for(self._client_version)
            ]
        super()._send_kexinit()

    def _choose_alg(
        self, alg_type: str, local_algs: Sequence[bytes], remote_algs: Sequence[bytes]
    ) -> bytes:
        """Require strict key exchange of every client (R34)."""
        if (
            alg_type == "key exchange"
            and not self._session_id
            and STRICT_KEX_CLIENT not in remote_algs
        ):
            raise asyncssh.KeyExchangeFailed(
                "This client has no strict key exchange (CVE-2023-48795): update it"
            )
        chosen: bytes = super()._choose_alg(alg_type, local_algs, remote_algs)
        return chosen

    async def _process_client_kexinit(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Skip the packet that follows a wrong guess (RFC 4253 7.1).

        A guess is wrong when the first names of both sides differ, even if what is
        chosen then is what the client guessed. Dropbear guesses and goes by that;
        asyncssh would take the packet that Dropbear sends anew for a second one.
        """
        self._count_rekey()
        guess = _first_guess(packet.get_full_payload())
        await self._process_kexinit(pkttype, pktid, packet)
        if guess is not None:
            self._ignore_first_kex = guess != (
                self._kex_algs[0],
                (self._server_host_key_algs or [b""])[0],
            )

    async def validate_public_key(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes
    ) -> bool:
        """Check a key, and when it is signed with, count it (R4)."""
        if not await super().validate_public_key(username, key_data, msg, signature):
            return False
        if not msg:
            return True
        fingerprint = asyncssh.import_public_key(
            _public_line(key_data)
        ).get_fingerprint()
        authentication = self.engineer.authentication
        if not authentication.key_proved(username, fingerprint):
            return False
        await authentication.try_grace(username)
        return True

    async def send_userauth_success(self) -> None:
        """Succeed when all factors are there; else say that this one was right."""
        if self.engineer.authentication.stage is Stage.NOTHING:
            await super().send_userauth_success()
        else:
            self.send_userauth_failure(partial_success=True)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Refuse, and disconnect when the tries are used up."""
        if self.engineer.authentication.exhausted:
            self.disconnect(
                DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                f"{PREFIX}too many authentication failures",
            )
        else:
            super().send_userauth_failure(partial_success)

    async def attach_x11_listener(self, *args: Any, **kwargs: Any) -> str | None:  # noqa: ARG002
        """Refuse X11 forwarding."""
        self.engineer.refused("x11", "X11 forwarding is not allowed")
        return None

    async def create_agent_listener(self) -> bool:
        """Refuse agent forwarding."""
        self.engineer.refused("agent", "agent forwarding is not allowed")
        return False

    def _process_any_channel_open(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Leave `session` to asyncssh, open `direct-tcpip`, and refuse the others."""
        peek = SSHPacket(packet.get_full_payload())
        peek.get_byte()
        name = peek.get_string().decode("ascii", "backslashreplace")[:60]
        if name in OPENABLE_TYPES:
            if name == FORWARD_TYPE:
                self._process_forward_open(peek)
            else:
                self._process_channel_open(pkttype, pktid, packet)
            return
        sender = peek.get_uint32()
        reason = f"{name} channels are not allowed here"
        self.send_channel_open_failure(
            sender, OPEN_ADMINISTRATIVELY_PROHIBITED, PREFIX + reason, ""
        )
        self.engineer.refused(name, reason)

    def _process_forward_open(self, packet: SSHPacket) -> None:
        """Read a direct-tcpip message (RFC 4254 7.2) after its kind, and answer it."""
        sender, window, packet_size = (packet.get_uint32() for _ in range(3))
        host, port = packet.get_string(), packet.get_uint32()
        origin_host, origin_port = packet.get_string(), packet.get_uint32()
        packet.check_end()
        asked = AskedForward(host, port, origin_host, origin_port)
        try:
            if not packet_size:
                line = "a maximum packet size of 0 can carry nothing"
                self.engineer.refused_forward(line)
                raise asyncssh.ChannelOpenError(
                    OPEN_ADMINISTRATIVELY_PROHIBITED, f"{PREFIX}{line}"
                )
            channel, session = self.engineer.forward_requested(asked)
        except asyncssh.ChannelOpenError as error:
            self.send_channel_open_failure(sender, error.code, error.reason, "")
            return
        channel.process_open(sender, window, packet_size, session)

    def _process_service_requested(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Accept the same service again before the sign-in is complete.

        paramiko asks for it before each factor; OpenSSH's server allows that, too.
        """
        peek = SSHPacket(packet.get_full_payload())
        peek.get_byte()
        service = peek.get_string()
        if self._auth_in_progress and service == b"ssh-userauth":
            self.send_packet(MSG_SERVICE_ACCEPT, String(service))
        else:
            self._process_service_request(pkttype, pktid, packet)

    _packet_handlers = {
        **ServerConnection._packet_handlers,
        MSG_KEXINIT: _process_client_kexinit,
        MSG_CHANNEL_OPEN: _process_any_channel_open,
        MSG_GLOBAL_REQUEST: _process_limited_global_request,
        MSG_SERVICE_REQUEST: _process_service_requested,
    }


@lru_cache(maxsize=4)
def _last_packet(code: int, reason: str) -> tuple[bytes, bytes]:
    """Return length and rest of a DISCONNECT packet (RFC 4253 6 and 11.1), in clear.

    Padded to 16 bytes for AES-GCM, which leaves the length out (RFC 5647 7.3).
    """
    payload = b"".join((Byte(MSG_DISCONNECT), UInt32(code), String(reason), String("")))
    padding = 4 + -(5 + len(payload)) % 16
    return UInt32(1 + len(payload) + padding), b"".join(
        (Byte(padding), payload, bytes(padding))
    )


def _first_guess(kexinit: bytes) -> tuple[bytes, bytes] | None:
    """Return the key exchange and host key kind of a guess that follows, if any."""
    packet = SSHPacket(kexinit)
    packet.get_byte()
    packet.get_bytes(16)
    lists = [packet.get_namelist() for _ in range(10)]
    follows = packet.get_boolean()
    if not follows:
        return None
    return (lists[0] or [b""])[0], (lists[1] or [b""])[0]


def _public_line(key_data: bytes) -> str:
    key = asyncssh.public_key.decode_ssh_public_key(key_data)
    return key.export_public_key().decode("ascii")
