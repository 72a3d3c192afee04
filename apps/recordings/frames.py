"""The byte layout of a recording file, "SLREC 1": constants, structs, events.

A file is a header, then segments, then a seal::

    header   MAGIC, u32 length, canonical JSON (strings only)
    segment  fixed header (SegmentHeader), ciphertext, 32-byte chain hash
    seal     SEAL_MAGIC, u32 length, canonical JSON, 64-byte Ed25519 signature,
             trailer (u64 offset of SEAL_MAGIC in the file, END_MAGIC)

All integers are big-endian and unsigned. A segment's ciphertext is AES-256-GCM over
the bytes that one zstd stream gave for some whole events; a stream (a *frame*) covers
about 1 MB of events or 30 seconds and decodes without the frames before it.
Pure: the standard library only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

MAGIC: Final = b"SLREC1\r\n"
SEGMENT_MAGIC: Final = b"SEG1"
SEAL_MAGIC: Final = b"SEAL"
END_MAGIC: Final = b"END1"

HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TAG_BYTES: Final = 16
"""What AES-GCM adds to the compressed bytes."""

FRAME_BYTES: Final = 1 << 20
"""A frame ends once it holds this many bytes of encoded events."""

FRAME_MICROSECONDS: Final = 30_000_000
"""A frame ends once it spans this long."""

MAX_EVENT_BYTES: Final = 1 << 20
MAX_HEADER_BYTES: Final = 1 << 16
MAX_SEGMENT_BYTES: Final = 4 << 20
"""Ceiling for both lengths in a segment header; writers stay well under it."""
MAX_SEAL_BYTES: Final = 64 << 20

SEGMENT_TYPE_EVENTS: Final = 1
FRAME_START: Final = 1
"""The segment begins a zstd frame: a reader may start here."""
FRAME_END: Final = 2
"""The segment completes its zstd frame, so the next one must start a frame."""

LENGTH: Final = struct.Struct(">I")
TRAILER: Final = struct.Struct(">Q4s")
_SEGMENT: Final = struct.Struct(">4sBBHQIIQQI")
_EVENT: Final = struct.Struct(">BIQI")
_SIZE: Final = struct.Struct(">II")

SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
EVENT_HEADER_BYTES: Final = _EVENT.size


class LayoutError(ValueError):
    """Bytes that cannot be part of a recording; the text says which rule they break."""


class EventKind(IntEnum):
    """What happened; the number is what the file holds. Append only, never reuse."""

    INPUT = 1
    """Bytes from the person to the asset. Passwords typed at prompts are in here."""
    OUTPUT = 2
    """Bytes from the asset's terminal or standard output to the person."""
    STDERR = 3
    """Bytes from the asset's standard error to the person."""
    RESIZE = 4
    """The window changed: columns and rows (`encode_resize`)."""
    OPEN = 5
    """A channel was opened (`encode_open`)."""
    CLOSE = 6
    """A channel was closed (`encode_close`)."""
    SIGNAL = 7
    """The person sent a signal: its name without SIG, UTF-8 (RFC 4254, 6.9)."""
    NOTICE = 8
    """What Sluice told the person, as the bytes put on the screen, UTF-8."""
    MARK = 9
    """A point worth finding again: its label, UTF-8."""
    FILE = 10
    """What became of a file (`manifest.encode_note`)."""
    FORWARD_INPUT = 20
    """Bytes of a forward, from the person's side to the destination."""
    FORWARD_OUTPUT = 21
    """Bytes of a forward, from the destination to the person's side."""


INPUT_KINDS: Final = (EventKind.INPUT, EventKind.FORWARD_INPUT)
OUTPUT_KINDS: Final = (EventKind.OUTPUT, EventKind.STDERR, EventKind.FORWARD_OUTPUT)
"""Kinds that count as carried in, and as carried out."""

TERMINAL_KINDS: Final = frozenset({EventKind.INPUT, EventKind.OUTPUT, EventKind.STDERR})
"""Kinds that a screen shows or was typed at."""

STREAM_KINDS: Final = frozenset({*INPUT_KINDS, *OUTPUT_KINDS})
"""Kinds whose payload is a piece of a byte stream and may be cut anywhere."""


class Event(NamedTuple):
    """One thing that happened in a session."""

    kind: EventKind
    channel: int
    """Number of the channel within the session; 0 when no channel is meant."""
    microseconds: int
    """Since the recording started, on the monotonic clock."""
    data: bytes
    """The payload; for the stream kinds it may split a UTF-8 code point."""


class ChannelOpened(NamedTuple):
    """Payload of an OPEN event."""

    kind: str
    """`shell`, `exec`, `sftp`...: what was asked for on the channel."""
    command: str | None = None
    """Command of an exec; bytes that are not UTF-8 are lone surrogates (PEP 383)."""
    columns: int = 0
    rows: int = 0
    """Window as sent in pty-req; 0 by 0 when the channel has no pty."""
    term: str | None = None
    """TERM as sent in pty-req; None when the channel has no pty."""

    @property
    def has_pty(self) -> bool:
        """True when a terminal was asked for."""
        return self.term is not None


class ChannelClosed(NamedTuple):
    """Payload of a CLOSE event."""

    exit_status: int | None = None
    exit_signal: str | None = None
    """Both None when the asset told neither."""
    bytes_in: int = 0
    bytes_out: int = 0
    """What the channel carried, recorded or not."""


class SegmentHeader(NamedTuple):
    """The fixed header of one segment; also the cipher's associated data."""

    number: int
    """From 0, without gaps."""
    flags: int
    """FRAME_START, FRAME_END."""
    plain_length: int
    """Bytes of encoded events before compression."""
    cipher_length: int
    """Bytes of ciphertext that follow, authentication tag included."""
    first_microseconds: int
    last_microseconds: int
    frame: int
    """Number of the zstd frame, from 0."""

    @property
    def starts_frame(self) -> bool:
        """True when decoding may start at this segment."""
        return bool(self.flags & FRAME_START)

    @property
    def ends_frame(self) -> bool:
        """True when this segment completes its frame."""
        return bool(self.flags & FRAME_END)

    @property
    def total_length(self) -> int:
        """Bytes of the whole segment in the file: header, ciphertext, chain hash."""
        return SEGMENT_HEADER_BYTES + self.cipher_length + HASH_BYTES

    def pack(self) -> bytes:
        """Return the header as it stands in the file."""
        return _SEGMENT.pack(
            SEGMENT_MAGIC,
            SEGMENT_TYPE_EVENTS,
            self.flags,
            0,
            self.number,
            self.plain_length,
            self.cipher_length,
            self.first_microseconds,
            self.last_microseconds,
            self.frame,
        )


def unpack_segment_header(raw: bytes) -> SegmentHeader:
    """Return the header in `raw`, exactly SEGMENT_HEADER_BYTES long.

    Raises: LayoutError for anything a writer never writes.
    """
    magic, kind, flags, reserved, number, plain, cipher, first, last, frame = (
        _SEGMENT.unpack(raw)
    )
    if magic != SEGMENT_MAGIC:
        raise LayoutError("no segment begins here")
    if kind != SEGMENT_TYPE_EVENTS or reserved or flags & ~(FRAME_START | FRAME_END):
        raise LayoutError("segment of an unknown type")
    if not 0 < plain <= MAX_SEGMENT_BYTES:
        raise LayoutError("segment with an impossible plain length")
    if not TAG_BYTES < cipher <= MAX_SEGMENT_BYTES:
        raise LayoutError("segment with an impossible cipher length")
    if first > last:
        raise LayoutError("segment that ends before it starts")
    return SegmentHeader(number, flags, plain, cipher, first, last, frame)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one spelling of `value` that is hashed and signed: UTF-8 JSON.

    Raises: ValueError for text that is not UTF-8 (lone surrogates).
    """
    text = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode("utf-8")


def encode_header(header: Mapping[str, str]) -> bytes:
    """Return the file's first bytes for `header`, MAGIC included.

    Raises: ValueError when a name or value is not text, or it is too long.
    """
    for name, value in header.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"recording header: {name!r} must be text")
    body = canonical_json(header)
    if len(body) > MAX_HEADER_BYTES:
        raise ValueError("recording header is too long")
    return MAGIC + LENGTH.pack(len(body)) + body


def decode_header_body(body: bytes) -> dict[str, str]:
    """Return the header from its JSON bytes.

    Raises: LayoutError when it is not the canonical spelling of strings.
    """
    try:
        header = json.loads(body)
        canonical = isinstance(header, dict) and canonical_json(header) == body
    except (ValueError, RecursionError) as error:
        raise LayoutError("header is not canonical JSON") from error
    if not canonical or not all(isinstance(v, str) for v in header.values()):
        raise LayoutError("header is not canonical JSON")
    return dict(header)


def encode_event_header(
    kind: int, channel: int, microseconds: int, length: int
) -> bytes:
    """Return the 17 bytes before an event's payload."""
    return _EVENT.pack(kind, channel, microseconds, length)


def encode_event(event: Event) -> bytes:
    """Return `event` as it stands in a segment before compression."""
    head = encode_event_header(
        event.kind, event.channel, event.microseconds, len(event.data)
    )
    return head + event.data


def decode_events(plain: bytes) -> Iterator[Event]:
    """Yield the events of one segment.

    Raises: LayoutError when `plain` is not whole events of known kinds.
    """
    offset = 0
    while offset < len(plain):
        body = offset + EVENT_HEADER_BYTES
        if body > len(plain):
            raise LayoutError("event header is cut off")
        number, channel, microseconds, length = _EVENT.unpack_from(plain, offset)
        offset = body + length
        if offset > len(plain):
            raise LayoutError("event payload is cut off")
        try:
            kind = EventKind(number)
        except ValueError as error:
            raise LayoutError(f"event of unknown kind {number}") from error
        yield Event(kind, channel, microseconds, plain[body:offset])


def encode_resize(columns: int, rows: int) -> bytes:
    """Return the payload of a RESIZE event: columns, rows as sent in window-change."""
    return _SIZE.pack(columns, rows)


def decode_resize(payload: bytes) -> tuple[int, int]:
    """Return (columns, rows) of a RESIZE event. Raises: LayoutError."""
    if len(payload) != _SIZE.size:
        raise LayoutError("resize payload has the wrong length")
    columns, rows = _SIZE.unpack(payload)
    return columns, rows


def encode_open(
    kind: str,
    *,
    command: str | bytes | None = None,
    columns: int = 0,
    rows: int = 0,
    term: str | None = None,
) -> bytes:
    """Return the payload of an OPEN event; `term` not None means: with a pty.

    Called once per channel, so JSON is affordable here.
    """
    if isinstance(command, bytes):
        command = command.decode("utf-8", "surrogateescape")
    opened = ChannelOpened(kind, command, columns, rows, term)
    return json.dumps(opened._asdict(), separators=(",", ":")).encode("ascii")


def decode_open(payload: bytes) -> ChannelOpened:
    """Return what an OPEN event says; unknown members are ignored.

    Raises: LayoutError.
    """
    value = _json_object(payload)
    kind, command, term = value.get("kind"), value.get("command"), value.get("term")
    columns, rows = value.get("columns", 0), value.get("rows", 0)
    if (
        not isinstance(kind, str)
        or not isinstance(command, str | None)
        or not isinstance(term, str | None)
        or not isinstance(columns, int)
        or not isinstance(rows, int)
    ):
        raise LayoutError("open payload is malformed")
    return ChannelOpened(kind, command, columns, rows, term)


def encode_close(
    *,
    exit_status: int | None = None,
    exit_signal: str | None = None,
    bytes_in: int = 0,
    bytes_out: int = 0,
) -> bytes:
    """Return the payload of a CLOSE event."""
    closed = ChannelClosed(exit_status, exit_signal, bytes_in, bytes_out)
    return json.dumps(closed._asdict(), separators=(",", ":")).encode("ascii")


def decode_close(payload: bytes) -> ChannelClosed:
    """Return what a CLOSE event says; unknown members are ignored.

    Raises: LayoutError.
    """
    value = _json_object(payload)
    status, signal = value.get("exit_status"), value.get("exit_signal")
    bytes_in, bytes_out = value.get("bytes_in", 0), value.get("bytes_out", 0)
    if (
        not isinstance(status, int | None)
        or not isinstance(signal, str | None)
        or not isinstance(bytes_in, int)
        or not isinstance(bytes_out, int)
    ):
        raise LayoutError("close payload is malformed")
    return ChannelClosed(status, signal, bytes_in, bytes_out)


def _json_object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise LayoutError("payload is not JSON") from error
    if not isinstance(value, dict):
        raise LayoutError("payload is not a JSON object")
    return value
