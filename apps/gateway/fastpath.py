"""asyncssh connection and channel classes with bounded memory and a faster data path.

asyncssh is bound by Python work per packet and lets a peer that stops reading fill
the gateway's memory. Everything that depends on its internals is in this module and
its siblings `fastpath_*`, as subclasses used by the gateway only: asyncssh used
elsewhere in the process (a target, a proof that a credential is dead) is untouched.

Two groups of changes:

* **Bounds, always on.** A full transport pauses the channels that feed it; a receive
  window is credited only for bytes that were handed on; nothing is taken from a
  channel's buffer while keys are exchanged; replies, deferred packets, unparsed input
  and the length of a key exchange have limits.
* **Speed, only when this asyncssh is the one it was written for.** No MSG_IGNORE
  before each packet (kept for CBC, where it closes the RFC 4251 9.3.1 attack), no
  formatting of packet logs, one AES-GCM object per key, all complete packets of a
  read decrypted where the kernel put them and delivered in one go, all packets of a
  write sealed in one place and sent in one go, TCP_QUICKACK while the peer still has
  Nagle's algorithm on (OpenSSH sets TCP_NODELAY only once a terminal is open).

`fastpath_status.verify` compares the version and the source of each method that is
replaced or relied on; `fastpath_self_test` runs both kinds against each other. When
either disagrees, connections run asyncssh's own data path and `status` says so.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Any, Final, cast

from asyncssh.channel import SSHChannel, SSHClientChannel, SSHServerChannel
from asyncssh.connection import (
    SSHClientConnection,
    SSHConnection,
    SSHServerConnection,
)
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_IGNORE,
)
from asyncssh.encryption import GCMEncryption
from asyncssh.misc import (
    ConnectionLost,
    DisconnectError,
    MACError,
    ProtocolError,
)
from asyncssh.packet import SSHPacket, String, UInt32
from cryptography.exceptions import InvalidTag

from apps.gateway.fastpath_cipher import GCM_TAG, RECEIVE_BYTES, SCRATCH, FastGCM
from apps.gateway.fastpath_status import (
    VERIFIED_VERSION,
    FastPathStatus,
    disable,
    enable,
    status,
    verify,
)

__all__ = [
    "VERIFIED_VERSION",
    "ClientChannel",
    "ClientConnection",
    "FastPathStatus",
    "ServerChannel",
    "ServerConnection",
    "disable",
    "enable",
    "status",
    "verify",
]

TRANSPORT_HIGH_WATER: Final = 1 << 20
"""Bytes written but not accepted by the kernel before channels are paused."""

TRANSPORT_LIMIT: Final = 24 << 20
"""Bytes above which the peer is not slow but hostile: channel data stops at the high
water plus what the windows of ten channels hold; only replies can reach this."""

INPUT_LIMIT: Final = 1 << 20
"""Unparsed bytes before the socket is no longer read (an answer is being computed)."""

DEFERRED_LIMIT: Final = 4096
"""Packets that may wait for the end of a key exchange."""

PACKETS_A_TURN: Final = 512
"""Packets of one channel sealed in one go: 16 MB of the largest, a millisecond or two
of the smallest."""

KEX_SECONDS: Final = 60.0
"""Longest key exchange after the first; that one is under the login timeout."""

QUICKACK_READS: Final = 40
"""Reads after which the peer's Nagle algorithm no longer matters."""

_SEQ_MASK: Final = 0xFFFFFFFF
_LARGEST_WINDOW: Final = 0xFFFFFFFF
"""RFC 4254 5.2."""
_ADJUSTMENT: Final = struct.Struct(">II")


class _Reader(asyncio.BufferedProtocol):
    """Has the kernel put what arrives where it is parsed, instead of into new strings.

    An object of its own, because asyncio (and uvloop) ask the type of a protocol how
    it wants to be read.
    """

    def __init__(self, connection: _ConnectionBase) -> None:
        self.get_buffer = connection.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = connection.buffer_updated  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]


class _ConnectionBase(SSHConnection):
    """What server and client connections of the gateway share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fast = status().active
        self.transport_full = False
        self._input_held = False
        self._quick_socket: socket.socket | None = None
        self._quick_reads = 0
        self._held_before = 0
        self._heard_at = 0.0
        self._kex_timer: asyncio.TimerHandle | None = None
        super().__init__(*args, **kwargs)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the write limits and acknowledge at once, then go on as asyncssh does."""
        cast(asyncio.Transport, transport).set_write_buffer_limits(
            high=TRANSPORT_HIGH_WATER
        )
        if self.fast:
            self._quick_socket = transport.get_extra_info("socket")
            self._quick_reads = QUICKACK_READS
            self._acknowledge()
            if isinstance(transport, asyncio.Transport) and self._quick_socket:
                transport.set_protocol(_Reader(self))
        super().connection_made(transport)

    def _acknowledge(self) -> None:
        """Send the delayed ACK now; the option is not sticky (tcp(7))."""
        self._quick_reads -= 1
        try:
            if self._quick_socket is not None:
                self._quick_socket.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1
                )
        except (AttributeError, OSError):
            self._quick_reads = 0

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take what the socket had; stop reading it while too much is unparsed."""
        if self._quick_reads > 0:
            self._acknowledge()
        super().data_received(data, datatype)

    def pause_writing(self) -> None:
        """Pass the transport's back-pressure on to every channel."""
        self.transport_full = True
        self._tell_channels()

    def resume_writing(self) -> None:
        """Let the channels that are not full themselves go on."""
        self.transport_full = False
        self._tell_channels()

    def _tell_channels(self) -> None:
        for channel in list(self._channels.values()):
            if isinstance(channel, _ChannelBase):
                channel._pause_resume_writing()

    def abort_transport(self) -> None:
        """Close the socket now, in this very call, without any further message."""
        if self._transport is not None:
            self._transport.abort()
        self._force_close(None)

    def disconnect_now(self, code: int, reason: str) -> None:
        """Tell the peer why and close, without closing the channels one by one.

        OpenSSH leaves when its channel closes and would never show the reason.
        """
        if self._transport is not None:
            self._send_disconnect(code, reason, "")
            self._force_close(None)

    def _cleanup(self, exc: Exception | None) -> None:
        self._stop_kex_timer()
        super()._cleanup(exc)

    def _reset_keepalive_timer(self) -> None:
        self._heard_at = self._loop.time()
        # Whatever comes shows that the peer is there, not only the answer.
        self._keepalive_count = 0

    def _keepalive_timer_callback(self) -> None:
        quiet = self._loop.time() - self._heard_at
        interval = float(self._keepalive_interval)
        if quiet < interval:
            self._keepalive_timer = self._loop.call_later(
                interval - quiet, self._keepalive_timer_callback
            )
        else:
            super()._keepalive_timer_callback()

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        if self._auth_complete:
            self._stop_kex_timer()
            self._kex_timer = self._loop.call_later(KEX_SECONDS, self._kex_too_slow)

    def _kex_too_slow(self) -> None:
        self._kex_timer = None
        self._force_close(ConnectionLost("Key exchange took too long"))

    def _stop_kex_timer(self) -> None:
        if self._kex_timer is not None:
            self._kex_timer.cancel()
            self._kex_timer = None

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Finish a key exchange, then send what the channels kept back meanwhile."""
        super().send_newkeys(k, h)
        self._stop_kex_timer()
        for channel in list(self._channels.values()):
            if channel._send_buf:
                channel._flush_send_buf()

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send one packet, within the limits for what a peer leaves unread."""
        if pkttype == MSG_IGNORE and self.fast and not self._sends_cbc():
            return
        if self._over_limits():
            self._force_close(ConnectionLost("Peer does not read"))
            return
        if self.fast:
            self._cache_send_cipher()
        super().send_packet(pkttype, *args, handler=handler)

    def _sends_cbc(self) -> bool:
        algorithm = self._enc_alg_sc if self._server else self._enc_alg_cs
        return algorithm.endswith((b"-cbc", b"-cbc@ssh.com", b"lysator.liu.se"))

    def _over_limits(self) -> bool:
        if len(self._deferred_packets) > DEFERRED_LIMIT:
            return True
        return (
            self.transport_full
            and self._transport is not None
            and self._transport.get_write_buffer_size() > TRANSPORT_LIMIT
        )

    def _cache_send_cipher(self) -> None:
        encryption = self._send_encryption
        if type(encryption) is GCMEncryption:
            self._send_encryption = FastGCM(encryption)

    def send_cipher_for_data(self) -> FastGCM | None:
        """Return the cipher when packets may be sealed directly, else None.

        None while keys are exchanged or due, before authentication, with compression
        and with every cipher other than AES-GCM.
        """
        encryption = self._send_encryption
        if type(encryption) is not FastGCM:
            # `send_packet` makes it one.
            return None
        if (
            self._kex_complete
            and self._auth_complete
            and self._compressor is None
            and self._rekey_bytes_sent < self._rekey_bytes
            and not (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        ):
            return encryption
        return None

    def send_one(self, wire: bytes) -> None:
        """Write one sealed packet and account for it."""
        if self._transport is not None:
            self._transport.write(wire)
        self._send_seq = (self._send_seq + 1) & _SEQ_MASK
        self._rekey_bytes_sent += len(wire)

    def send_many(
        self, cipher: FastGCM, channel: int, data: memoryview, packet_size: int
    ) -> int:
        """Seal and write a head of `data`; return how many bytes of it were taken."""
        wire = SCRATCH.sealed
        taken, filled, packets = cipher.seal_into(wire, channel, data, packet_size)
        transport = self._transport
        if transport is not None:
            if transport.get_write_buffer_size():
                # It waits for its turn, so it needs memory of its own.
                self._send(bytes(wire[:filled]))
            else:
                # A transport takes any buffer; asyncssh only says bytes.
                self._send(cast(bytes, wire[:filled]))
                if transport.get_write_buffer_size():
                    SCRATCH.give_sealed_away()
        self._send_seq = (self._send_seq + packets) & _SEQ_MASK
        self._rekey_bytes_sent += filled
        return taken

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the kernel may put what comes next (`asyncio.BufferedProtocol`).

        The incomplete packet that came before stands in front of it.
        """
        received = SCRATCH.received
        held = len(self._inpbuf)
        if not held:
            self._held_before = 0
            return received
        if held > RECEIVE_BYTES // 2 or self._receive_cipher_for_batch() is None:
            self._held_before = 0
            return received
        self._held_before = held
        received[:held] = self._inpbuf
        return received[held:]

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` that were put where `get_buffer` said."""
        if self._quick_reads > 0:
            self._acknowledge()
        held = self._held_before
        received = SCRATCH.received[: held + nbytes]
        self._heard_at = self._loop.time()
        if self._inpbuf and not held:
            self._inpbuf += bytes(received)
            self._take_input()
        else:
            self._inpbuf = b""
            self._take(received)
        if self._inpbuf or self._input_held:
            self._hold_or_release_input()

    def _recv_data(self) -> None:
        if self.fast:
            self._reset_keepalive_timer()
            self._take_input()
        else:
            super()._recv_data()
        self._hold_or_release_input()

    def _hold_or_release_input(self) -> None:
        too_much = len(self._inpbuf) > INPUT_LIMIT
        if too_much == self._input_held:
            return
        transport = self._transport
        if transport is None:
            return
        self._input_held = too_much
        if too_much:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _take_input(self) -> None:
        buffer, self._inpbuf = self._inpbuf, b""
        self._take(memoryview(buffer))

    def _take(self, view: memoryview) -> None:
        """Parse what came; what is incomplete, or has to wait, goes to `_inpbuf`."""
        try:
            rest: memoryview | None = view
            while rest and self._transport is not None:
                cipher = self._receive_cipher_for_batch()
                if cipher is not None:
                    rest = self._parse_batches(cipher, rest)
                else:
                    rest = self._parse_stock(rest)
        except DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:  # noqa: BLE001 - the edge of the protocol's task
            self.internal_error()

    def _parse_stock(self, view: memoryview) -> memoryview | None:
        """Let asyncssh parse until packets can be parsed in batches; return the rest.

        None: the rest is in `_inpbuf`, for more has to come or an answer is computed.
        """
        self._inpbuf = bytes(view)
        while self._inpbuf and self._transport is not None:
            if not self._recv_handler():
                return None
            if self._receive_cipher_for_batch() is not None:
                rest, self._inpbuf = self._inpbuf, b""
                return memoryview(rest)
        return None

    def _receive_cipher_for_batch(self) -> FastGCM | None:
        encryption = self._recv_encryption
        if type(encryption) is not FastGCM:
            if type(encryption) is not GCMEncryption:
                return None
            encryption = self._recv_encryption = FastGCM(encryption)
        if (
            self._auth_complete
            and self._decompressor is None
            and self._recv_handler == self._recv_pkthdr
        ):
            return encryption
        return None

    def _parse_batches(self, cipher: FastGCM, view: memoryview) -> memoryview | None:
        """Handle the complete packets at the head of `view`; return what is left.

        All CHANNEL_DATA packets of one channel in a row are delivered in one piece.
        Any other kind of packet but a window adjustment is left, decrypted in
        `cipher.peeked`, to asyncssh's own parser, which keeps every rule about order
        and state in one place; the caller then looks anew. None: what is left is
        incomplete and in `_inpbuf`.
        """
        size, position, recipient = len(view), 0, -1
        parts: list[memoryview] = []
        while size - position >= 4:
            header = view[position : position + 4]
            length = int.from_bytes(header, "big")
            if length > self._max_recv_pktlen:
                raise ProtocolError("Max packet size exceeded")
            end = position + 4 + length + GCM_TAG
            if end > size:
                break
            try:
                plain = cipher.peek(view[position + 4 : end], header)
            except InvalidTag:
                raise MACError("MAC verification failed") from None
            count, channel = _channel_data(plain)
            if parts and (count < 0 or channel != recipient):
                self._deliver(recipient, b"".join(parts), len(parts))
                parts = []
                if self._transport is None:
                    return None
            if count >= 0:
                cipher.advance()
                if end == size and not parts:
                    # A key typed, a line of output: nothing else has come.
                    self._deliver(channel, plain[10 : 10 + count], 1)
                    return None
                recipient = channel
                parts.append(memoryview(plain)[10 : 10 + count])
            elif self._took_adjustment(plain):
                cipher.advance()
            else:
                rest = view[position:]
                return self._leave_to_stock(cipher, plain, rest, end - position)
            position = end
        if parts:
            self._deliver(recipient, b"".join(parts), len(parts))
        if position < size:
            self._inpbuf = bytes(view[position:])
        return None

    def _leave_to_stock(
        self, cipher: FastGCM, plain: bytes, view: memoryview, end: int
    ) -> memoryview | None:
        """Let asyncssh parse the packet at the head of `view`, decrypted already."""
        cipher.peeked = plain
        self._inpbuf = bytes(view[:end])
        # First the header, then the packet.
        if self._recv_handler() and self._recv_handler():
            return view[end:]
        # It answers later, and what comes after it has to wait.
        self._inpbuf += bytes(view[end:])
        return None

    def _deliver(self, recipient: int, data: bytes, packets: int) -> None:
        self._recv_seq = (self._recv_seq + packets) & _SEQ_MASK
        self._auth_final = True
        channel = self._channels.get(recipient)
        if channel is None:
            raise ProtocolError(f"Invalid channel number {recipient} received")
        if channel._recv_state != "open":
            raise ProtocolError("Channel not open for sending")
        if len(data) > channel._recv_window:
            raise ProtocolError("Window exceeded")
        channel._accept_data(data)

    def _took_adjustment(self, plain: bytes) -> bool:
        """Handle a well-formed CHANNEL_WINDOW_ADJUST, which comes every 100 KB.

        Return False for anything else.
        """
        if (
            len(plain) < 14
            or plain[1] != MSG_CHANNEL_WINDOW_ADJUST
            or len(plain) != 10 + plain[0]
        ):
            return False
        recipient, adjust = _ADJUSTMENT.unpack_from(plain, 2)
        channel = self._channels.get(recipient)
        if not isinstance(channel, _ChannelBase):
            return False
        self._recv_seq = (self._recv_seq + 1) & _SEQ_MASK
        self._auth_final = True
        channel.widen(adjust)
        return True

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Format nothing: contents never go to a log here."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Format nothing: contents never go to a log here."""


def _channel_data(plain: bytes) -> tuple[int, int]:
    """Return data length and recipient of a well-formed CHANNEL_DATA packet.

    The length is -1 for anything else. `plain` is padding length, type, recipient,
    string length, data, padding.
    """
    if len(plain) < 14 or plain[1] != MSG_CHANNEL_DATA:
        return -1, -1
    recipient, count = _ADJUSTMENT.unpack_from(plain, 2)
    return (count if 10 + count + plain[0] == len(plain) else -1), recipient


class _ChannelBase(SSHChannel[bytes]):
    """What server and client channels of the gateway share. Bytes only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._uncredited = 0
        self._goes_on_later = False
        self.torn = False
        """True when the channel went because its whole connection did."""
        super().__init__(*args, **kwargs)

    def _connection(self) -> _ConnectionBase | None:
        return cast("_ConnectionBase | None", self._conn)

    def _pause_resume_writing(self) -> None:
        """Tell the session about a full buffer or a full transport, once per change."""
        session = self._session
        connection = self._connection()
        if session is None or connection is None:
            return
        if self._send_paused:
            if (
                self._send_buf_len <= self._send_low_water
                and not connection.transport_full
            ):
                self._send_paused = False
                session.resume_writing()
        elif self._send_buf_len > self._send_high_water or connection.transport_full:
            self._send_paused = True
            session.pause_writing()

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """Hand data on, crediting the window for exactly that much."""
        self._uncredited += len(data)
        if self._uncredited >= self._init_recv_window // 2:
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(self._uncredited))
            self._recv_window += self._uncredited
            self._uncredited = 0
        if self._session is not None:
            self._session.data_received(data, datatype)

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """Take data: deliver it at once unless reading is paused."""
        if not data or self._send_state in {"close_pending", "closed"}:
            return
        self._recv_window -= len(data)
        if self._recv_paused:
            self._recv_buf.append((data, datatype))
        else:
            self._deliver_data(data, datatype)

    def process_connection_close(self, exc: Exception | None) -> None:
        """Deliver what was held back before the channel goes with its connection.

        A device that disconnects right after its last output must not lose the tail
        to a slow reader. Bounded by one receive window.
        """
        self.torn = True
        self._recv_paused = False
        while self._recv_buf and self._session is not None:
            data, datatype = self._recv_buf.pop(0)
            self._session.data_received(data, datatype)
        super().process_connection_close(exc)

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Queue `data` and send what the peer's window allows.

        Raises: BrokenPipeError when the channel is not open for sending.
        """
        if self._send_state != "open":
            raise BrokenPipeError("Channel not open for sending")
        size = len(data)
        if not size:
            return
        connection = self._connection()
        if (
            connection is not None
            and datatype is None
            and size <= self._send_pktsize
            and size <= self._send_window
            and not self._send_buf
            and self._send_chan is not None
        ):
            # A key typed, a line of output: one packet, at once.
            cipher = connection.send_cipher_for_data()
            if cipher is not None:
                connection.send_one(cipher.seal_one(self._send_chan, data))
                self._send_window -= size
                if connection.transport_full or self._send_paused:
                    self._pause_resume_writing()
                return
        self._queue(data, datatype)
        self._flush_send_buf()

    def widen(self, adjust: int) -> None:
        """Count a window adjustment and send what waited for it."""
        if self._recv_state not in {"open", "eof_pending", "eof"}:
            raise ProtocolError("Channel not open")
        if self._send_window + adjust > _LARGEST_WINDOW:
            raise ProtocolError("Window overflow")
        self._send_window += adjust
        self._flush_send_buf()

    def _process_widening(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        """Handle a window adjustment that came through asyncssh's own parser."""
        adjust = packet.get_uint32()
        packet.check_end()
        self.widen(adjust)

    def _queue(self, data: bytes | memoryview, datatype: int | None) -> None:
        # asyncssh declares bytearray because its own flush cuts in place; ours slices.
        self._send_buf.append((cast(bytearray, data), datatype))
        self._send_buf_len += len(data)

    def _flush_send_buf(self) -> None:
        """Send what window and key exchange allow, in as few writes as possible.

        A peer that takes a byte a packet gets some packets a turn: others wait, too."""
        connection = self._connection()
        if connection is None:
            return
        turn = self._send_pktsize * PACKETS_A_TURN
        while self._send_buf and self._send_window and connection._kex_complete:
            if turn <= 0:
                self._go_on_later()
                return
            data, datatype = self._send_buf[0]
            sent = self._send_some(connection, memoryview(data), datatype)
            if sent == len(data):
                del self._send_buf[0]
            else:
                rest = cast(bytearray, memoryview(data)[sent:])
                self._send_buf[0] = (rest, datatype)
            self._send_buf_len -= sent
            self._send_window -= sent
            turn -= sent
        self._pause_resume_writing()
        if not self._send_buf:
            if self._send_state == "eof_pending":
                self.send_packet(MSG_CHANNEL_EOF)
                self._send_state = "eof"
            elif self._send_state == "close_pending":
                self._close_send()

    def _go_on_later(self) -> None:
        if not self._goes_on_later:
            self._goes_on_later = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on_later = False
        self._flush_send_buf()

    def _send_some(
        self, connection: _ConnectionBase, data: memoryview, datatype: int | None
    ) -> int:
        """Send a head of `data`; return its length (> 0)."""
        turn = self._send_pktsize * PACKETS_A_TURN
        allowed = min(len(data), self._send_window, turn)
        cipher = connection.send_cipher_for_data() if datatype is None else None
        if cipher is not None and self._send_chan is not None:
            return connection.send_many(
                cipher, self._send_chan, data[:allowed], self._send_pktsize
            )
        allowed = min(allowed, self._send_pktsize)
        payload = String(bytes(data[:allowed]))
        if datatype is None:
            self.send_packet(MSG_CHANNEL_DATA, payload)
        else:
            self.send_packet(MSG_CHANNEL_EXTENDED_DATA, UInt32(datatype), payload)
        return allowed

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Format nothing: contents never go to a log here."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Format nothing: contents never go to a log here."""


class ServerChannel(_ChannelBase, SSHServerChannel[bytes]):
    """A session channel opened by an engineer's client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._client_closed = False
        super().__init__(*args, **kwargs)

    def _process_client_close(
        self, pkttype: int, pktid: int, packet: SSHPacket
    ) -> None:
        """Keep a close that comes after our end of output until we close, too.

        OpenSSH's client closes a channel of a shared connection when both directions
        have ended; asyncssh would answer at once, and the exit status, which comes when
        the command itself ends, could no longer be sent. sshd waits the same way.
        """
        if self._send_state != "eof":
            self._process_close(pkttype, pktid, packet)
            return
        packet.check_end()
        if self._client_closed:
            raise ProtocolError("Channel closed twice")
        self._client_closed = True

    def close(self) -> None:
        """Close after what was written; nothing more can come from a closed client."""
        if self._client_closed:
            self._recv_state = "close_pending"
        super().close()

    _packet_handlers = {
        **SSHServerChannel._packet_handlers,
        MSG_CHANNEL_WINDOW_ADJUST: _ChannelBase._process_widening,
        MSG_CHANNEL_CLOSE: _process_client_close,
    }


class ClientChannel(_ChannelBase, SSHClientChannel[bytes]):
    """A session channel opened by the gateway on an asset."""

    _packet_handlers = {
        **SSHClientChannel._packet_handlers,
        MSG_CHANNEL_WINDOW_ADJUST: _ChannelBase._process_widening,
    }


class ServerConnection(_ConnectionBase, SSHServerConnection):
    """A connection accepted from an engineer's client."""

    channel_class: type[ServerChannel] = ServerChannel

    def create_server_channel(
        self,
        encoding: str | None = None,
        errors: str = "strict",
        window: int = 0,
        max_pktsize: int = 0,
    ) -> SSHServerChannel[bytes]:
        """Return a channel of this module; `encoding` must be None (bytes only)."""
        if encoding is not None:
            raise ValueError("The gateway's channels carry bytes only")
        max_pktsize = max_pktsize or self._max_pktsize
        self._update_recv_pktlen(max_pktsize)
        return self.channel_class(
            self,
            self._loop,
            allow_pty=self._allow_pty,
            line_editor=False,
            line_echo=False,
            line_history=0,
            max_line_length=0,
            encoding=None,
            errors=errors,
            window=window or self._window,
            max_pktsize=max_pktsize,
        )

    async def reload_config(self) -> None:
        """Do nothing: the gateway reads no OpenSSH configuration files (R37)."""


class ClientConnection(_ConnectionBase, SSHClientConnection):
    """A connection opened to an asset."""

    def new_session_channel(self, *, window: int, max_pktsize: int) -> ClientChannel:
        """Return an unopened session channel; the caller runs its `create`."""
        self._update_recv_pktlen(max_pktsize)
        return ClientChannel(
            self, self._loop, "strict", None, "strict", window, max_pktsize
        )
