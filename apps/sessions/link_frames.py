"""Frames between the portal and a gateway, on a Unix or TCP stream. Pure.

A frame is a 32-bit length (of type and payload), one type byte, the payload; numbers
are big-endian. The portal opens the stream and sends one TICKET; the gateway answers
READY or ERROR. After READY of a terminal, INPUT and OUTPUT flow; after READY of a
watch, EVENT flows, and INPUT counts between a TYPING that allows it and one that does
not. Whoever is slow simply does not read: the stream's own flow
control is the only one, so that one stream carries one terminal.

    portal to gateway   TICKET, INPUT, RESIZE, EOF, SIGNAL
    gateway to portal   READY, ERROR, OUTPUT, STDERR, NOTICE, EVENT, EXIT, TYPING
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

MAX_PAYLOAD: Final = 1 << 20
"""Bytes; a longer frame is a broken peer."""

_HEAD: Final = struct.Struct(">IB")
_LENGTH_BYTES: Final = 4
_SIZE: Final = struct.Struct(">HH")
_EVENT: Final = struct.Struct(">QBIQ")


class FrameType(IntEnum):
    """What a frame is; the number is what the stream holds."""

    TICKET = 1
    """JSON: ticket, columns, rows, term. First frame, once."""
    READY = 2
    """JSON: session_id, session (short form), asset, account, deadline (ISO 8601)."""
    ERROR = 3
    """UTF-8, one line for the person; the stream ends after it."""
    INPUT = 4
    """Bytes typed."""
    OUTPUT = 5
    """Bytes of the terminal; may split a code point."""
    STDERR = 6
    """Bytes of standard error."""
    RESIZE = 7
    """Columns, rows: two 16-bit numbers."""
    EOF = 8
    """No more input, or no more output."""
    SIGNAL = 9
    """UTF-8 name without SIG (RFC 4254 6.10)."""
    NOTICE = 10
    """UTF-8, one line from Sluice about the session, to show beside the terminal."""
    EXIT = 11
    """JSON: status (number or null), signal (text or null), message (text or null)."""
    EVENT = 12
    """One event of a watched session: see `WatchedEvent`."""
    TYPING = 13
    """JSON: allowed. Of a watch: whether INPUT passes from now on."""


class Frame(NamedTuple):
    """One frame off the stream."""

    type: FrameType
    payload: bytes


class WatchedEvent(NamedTuple):
    """An event of a recording, numbered from 0 without gaps within one watch.

    `kind` is a number of `recordings.frames.EventKind`; `microseconds` are since the
    recording began, so that a watch can be joined to a replay.
    """

    number: int
    kind: int
    channel: int
    microseconds: int
    data: bytes


class LinkError(ValueError):
    """The peer sent something that is no frame."""


def encode_frame(kind: FrameType, payload: bytes = b"") -> bytes:
    """Return one frame.

    Raises: ValueError when the payload is over MAX_PAYLOAD.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError("frame payload is too long")
    return _HEAD.pack(len(payload) + 1, kind) + payload


def encode_json(kind: FrameType, value: Mapping[str, Any]) -> bytes:
    """Return a frame whose payload is `value` as JSON."""
    return encode_frame(kind, json.dumps(value).encode())


def decode_json(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in a payload.

    Raises: LinkError.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise LinkError("payload is not JSON") from error
    if not isinstance(value, dict):
        raise LinkError("payload is not a JSON object")
    return value


def encode_size(columns: int, rows: int) -> bytes:
    """Return the payload of RESIZE; each number is cut to 0..65535."""
    return _SIZE.pack(min(max(columns, 0), 65535), min(max(rows, 0), 65535))


def decode_size(payload: bytes) -> tuple[int, int]:
    """Return (columns, rows) of RESIZE. Raises: LinkError."""
    if len(payload) != _SIZE.size:
        raise LinkError("resize has the wrong length")
    columns, rows = _SIZE.unpack(payload)
    return columns, rows


def encode_event(event: WatchedEvent) -> bytes:
    """Return the payload of EVENT."""
    head = _EVENT.pack(event.number, event.kind, event.channel, event.microseconds)
    return head + event.data


def decode_event(payload: bytes) -> WatchedEvent:
    """Return the event in a payload. Raises: LinkError."""
    if len(payload) < _EVENT.size:
        raise LinkError("event is cut off")
    number, kind, channel, microseconds = _EVENT.unpack_from(payload)
    return WatchedEvent(number, kind, channel, microseconds, payload[_EVENT.size :])


class FrameDecoder:
    """Cuts a byte stream into frames; holds at most one frame and what was fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames complete after `data`. Raises: LinkError."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if not 1 <= length <= MAX_PAYLOAD + 1:
                raise LinkError("frame of an impossible length")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            number = self._buffer[_LENGTH_BYTES]
            try:
                kind = FrameType(number)
            except ValueError as error:
                raise LinkError(f"frame of unknown type {number}") from error
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield Frame(kind, payload)
