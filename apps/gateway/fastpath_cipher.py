"""AES-GCM for the fast path: one key schedule per key, packets sealed in place."""

from __future__ import annotations

import struct
import threading
from typing import Final

from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GCM_TAG: Final = 16
"""Bytes of an authentication tag (RFC 5647 6.1)."""

DATA_OVERHEAD: Final = 14 + 19 + GCM_TAG
"""Bytes a data packet takes beside its data, with the longest padding."""

SEND_BYTES: Final = (1 << 18) + 4096
"""Sealed bytes that go to the kernel in one piece: eight of OpenSSH's packets."""

RECEIVE_BYTES: Final = 1 << 18
"""Bytes that are taken from the kernel in one piece."""

_COUNTER_MASK: Final = 0xFFFFFFFFFFFFFFFF
_DATA_HEADER: Final = struct.Struct(">IBBII")
_PADDING: Final = tuple(bytes(size) for size in range(32))


class Scratch(threading.local):
    """Memory that all connections of a thread use in turn, each within one call.

    It stays in the processor's cache, and an idle connection holds none of its own.
    """

    def __init__(self) -> None:
        self.received = memoryview(bytearray(RECEIVE_BYTES))
        self.sealed = memoryview(bytearray(SEND_BYTES))

    def give_sealed_away(self) -> None:
        """Leave the memory for sealed packets to whoever still sends from it."""
        self.sealed = memoryview(bytearray(SEND_BYTES))


SCRATCH: Final = Scratch()


class FastGCM(GCMEncryption):
    """AES-GCM (RFC 5647): key schedule done once, look-ahead of one packet."""

    def __init__(self, stock: GCMEncryption) -> None:
        cipher = stock._cipher
        super().__init__(cipher)
        self.aead = AESGCM(cipher._key)
        self._fixed = cipher._iv[:4]
        self._invocation = int.from_bytes(cipher._iv[4:], "big")
        self.peeked: bytes | None = None

    def nonce(self) -> bytes:
        """Return the nonce of the next packet without using it up."""
        return self._fixed + self._invocation.to_bytes(8, "big")

    def advance(self) -> None:
        """Use up one nonce."""
        self._invocation = (self._invocation + 1) & _COUNTER_MASK

    def peek(self, sealed: memoryview, header: memoryview) -> bytes:
        """Return the next packet without using up its nonce. Raises: InvalidTag."""
        return self.aead.decrypt(
            self._fixed + self._invocation.to_bytes(8, "big"), sealed, header
        )

    def encrypt_packet(
        self,
        seq: int,  # noqa: ARG002 - GCM counts by itself
        header: bytes,
        packet: bytes,
    ) -> tuple[bytes, bytes]:
        """Return header, ciphertext and tag as one string, and no separate MAC."""
        sealed = self.aead.encrypt(self.nonce(), packet, header)
        self.advance()
        return header + sealed, b""

    def decrypt_packet(
        self,
        seq: int,  # noqa: ARG002
        first: bytes,
        rest: bytes,
        header_len: int,
        mac: bytes,
    ) -> bytes | None:
        """Return the plain packet, or None when the tag is wrong."""
        plain = self.peeked
        if plain is not None:
            self.peeked = None
        else:
            sealed = first[header_len:] + rest + mac
            try:
                plain = self.aead.decrypt(self.nonce(), sealed, first[:header_len])
            except InvalidTag:
                return None
        self.advance()
        return plain

    def seal_one(self, channel: int, data: bytes) -> bytes:
        """Return `data` as one CHANNEL_DATA packet ready for the wire.

        Layout: length (additional data), padding length, type, recipient channel,
        string length, data, padding to 16 bytes (RFC 4253 6, RFC 5647 7).
        """
        size = len(data)
        padding = 22 - (size & 15)
        if padding >= 20:
            padding -= 16
        header = _DATA_HEADER.pack(
            10 + size + padding, padding, MSG_CHANNEL_DATA, channel, size
        )
        length = header[:4]
        invocation = self._invocation
        self._invocation = (invocation + 1) & _COUNTER_MASK
        return length + self.aead.encrypt(
            self._fixed + invocation.to_bytes(8, "big"),
            b"".join((header[4:], data, _PADDING[padding])),
            length,
        )

    def seal_into(
        self, wire: memoryview, channel: int, data: memoryview, packet_size: int
    ) -> tuple[int, int, int]:
        """Seal a head of `data` into `wire` as CHANNEL_DATA packets.

        Returns how many bytes of `data` were taken, how many of `wire` are filled, and
        the number of packets. Strings of this size cost more to allocate than to
        encrypt, so nothing is returned that would have to be joined.
        """
        end = len(data)
        room = len(wire)
        fixed, invocation = self._fixed, self._invocation
        encrypt_into, pack, join = self.aead.encrypt_into, _DATA_HEADER.pack, b"".join
        offset = position = packets = 0
        while offset < end:
            size = min(packet_size, end - offset)
            if size > room - position - DATA_OVERHEAD:
                if packets:
                    break
                size = room - DATA_OVERHEAD
            padding = 22 - (size & 15)
            if padding >= 20:
                padding -= 16
            header = pack(10 + size + padding, padding, MSG_CHANNEL_DATA, channel, size)
            length = header[:4]
            sealed = position + 14 + size + padding + GCM_TAG
            wire[position : position + 4] = length
            encrypt_into(
                fixed + invocation.to_bytes(8, "big"),
                join((header[4:], data[offset : offset + size], _PADDING[padding])),
                length,
                wire[position + 4 : sealed],
            )
            invocation = (invocation + 1) & _COUNTER_MASK
            position = sealed
            offset += size
            packets += 1
        self._invocation = invocation
        return offset, position, packets
