"""Reading recordings: from the start, from a time, while they grow, after a crash.

Every segment read is checked against the hash of the one before and authenticated by
the cipher. Whether the seal's signature is genuine is the verifier's question.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from apps.recordings.frames import (
    END_MAGIC,
    HASH_BYTES,
    INPUT_KINDS,
    LENGTH,
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_SEAL_BYTES,
    OUTPUT_KINDS,
    SEAL_MAGIC,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    SIGNATURE_BYTES,
    TRAILER,
    Event,
    EventKind,
    LayoutError,
    SegmentHeader,
    decode_header_body,
    unpack_segment_header,
)
from apps.recordings.hashchain import first_link, next_link
from apps.recordings.seal import Seal, decode_seal
from apps.recordings.segments import SegmentDecoder

_MAGIC_BYTES: Final = len(SEAL_MAGIC)
_READ_NEW_BYTES: Final = 4 << 20


class RecordingBrokenError(Exception):
    """The file is not what a writer wrote."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path.name}: at byte {offset}: {reason}")
        self.offset = offset
        """Where in the file the trouble begins."""
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class SealRecord:
    """A seal as found in a file."""

    seal: Seal
    seal_json: bytes
    signature: bytes
    offset: int
    """Where it begins in the file; all segments end here."""


@dataclass(frozen=True, kw_only=True)
class RecoveredRecording:
    """What a scan of a whole file found, up to the last intact segment."""

    header: dict[str, str]
    seal: SealRecord | None
    segments: int
    root_hash: bytes
    intact_bytes: int
    """Size of header and intact segments together."""
    dropped_bytes: int
    """Bytes behind them that are no complete segment and no seal."""
    damaged: bool
    """True when an intact segment or a seal's end lies behind the damage: no crash
    does that, so nothing may be cut off."""
    duration_microseconds: int
    index: tuple[tuple[int, int, int], ...]
    bytes_in: int | None
    """Payload bytes in each direction; None when no key was given."""
    bytes_out: int | None


class RecordingFile:
    """The bytes of one recording, without its key; shared by all that read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.header_bytes = self._read_header()
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes at `offset`, fewer only at the file's end."""
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            length -= len(part)
            offset += len(part)
        return b"".join(parts)

    def size(self) -> int:
        """Return the file's size now, in bytes."""
        return os.fstat(self._fd).st_size

    def broken(self, offset: int, reason: str) -> RecordingBrokenError:
        """Return the error that says what is wrong where."""
        return RecordingBrokenError(self.path, offset, reason)

    @property
    def header(self) -> dict[str, str]:
        """What the writer stated about the recording before it began."""
        return decode_header_body(self.header_bytes[len(MAGIC) + LENGTH.size :])

    def _read_header(self) -> bytes:
        start = len(MAGIC) + LENGTH.size
        head = self.read(start, 0)
        if len(head) < start or not head.startswith(MAGIC):
            raise self.broken(0, "this is not a recording")
        (length,) = LENGTH.unpack_from(head, len(MAGIC))
        if length > MAX_HEADER_BYTES:
            raise self.broken(len(MAGIC), "header is too long")
        body = self.read(length, start)
        if len(body) < length:
            raise self.broken(start, "header is cut off")
        try:
            decode_header_body(body)
        except LayoutError as error:
            raise self.broken(start, str(error)) from error
        return head + body

    def seal_at(self, offset: int) -> SealRecord | None:
        """Return the seal record at `offset`, or None when it is cut off there.

        Raises: RecordingBrokenError when it is complete but no seal of this file.
        """
        start = offset + _MAGIC_BYTES + LENGTH.size
        head = self.read(start - offset, offset)
        if not head.startswith(SEAL_MAGIC):
            raise self.broken(offset, "no seal begins here")
        if offset + len(head) < start:
            return None
        (length,) = LENGTH.unpack_from(head, _MAGIC_BYTES)
        if length > MAX_SEAL_BYTES:
            raise self.broken(offset, "seal is too long")
        rest = self.read(length + SIGNATURE_BYTES + TRAILER.size, start)
        if len(rest) < length + SIGNATURE_BYTES + TRAILER.size:
            return None
        if TRAILER.unpack_from(rest, length + SIGNATURE_BYTES) != (offset, END_MAGIC):
            raise self.broken(offset, "seal does not end as it should")
        if start + len(rest) != self.size():
            raise self.broken(start + len(rest), "bytes behind the seal")
        try:
            seal = decode_seal(rest[:length])
        except LayoutError as error:
            raise self.broken(start, str(error)) from error
        signature = rest[length : length + SIGNATURE_BYTES]
        return SealRecord(
            seal=seal, seal_json=rest[:length], signature=signature, offset=offset
        )

    def find_seal(self) -> SealRecord | None:
        """Return the seal by the file's trailer, or None for an unsealed file."""
        if not self.ends_like_sealed():
            return None
        end = self.size() - TRAILER.size
        offset, _ = TRAILER.unpack(self.read(TRAILER.size, end))
        if self.read(_MAGIC_BYTES, offset) != SEAL_MAGIC:
            return None
        return self.seal_at(offset)

    def ends_like_sealed(self) -> bool:
        """Return whether the file's last bytes are the trailer of some seal."""
        end = self.size() - TRAILER.size
        if end < len(self.header_bytes):
            return False
        offset, magic = TRAILER.unpack(self.read(TRAILER.size, end))
        return bool(magic == END_MAGIC and len(self.header_bytes) <= offset < end)

    def linked_segment_behind(self, offset: int) -> bool:
        """Return whether any whole segment, true to its own chain hash, lies behind."""
        with mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ) as whole:
            while (offset := whole.find(SEGMENT_MAGIC, offset + 1)) >= 0:
                body = offset + SEGMENT_HEADER_BYTES
                head = whole[offset:body]
                if len(head) < SEGMENT_HEADER_BYTES:
                    break
                try:
                    header = unpack_segment_header(head)
                except LayoutError:
                    continue
                end = body + header.cipher_length
                stored = whole[end : end + HASH_BYTES]
                previous = whole[offset - HASH_BYTES : offset]
                if next_link(previous, head, whole[body:end]) == stored:
                    return True
        return False


class _Cursor:
    """Walks segments in order and checks each against the one before."""

    def __init__(self, file: RecordingFile) -> None:
        self._file = file
        self.offset = len(file.header_bytes)
        self.number = 0
        self.link = first_link(file.header_bytes)
        self.at_seal = False
        self._frame = -1
        self._must_start = True
        self._microseconds = 0

    def jump(self, *, offset: int, number: int) -> None:
        """Continue at the segment `number`, which starts a frame, at `offset`."""
        if number:
            self.link = self._file.read(HASH_BYTES, offset - HASH_BYTES)
        self.offset, self.number, self._frame = offset, number, -1
        self._must_start = True

    def next_header(self) -> tuple[bytes, SegmentHeader] | None:
        """Return the next segment's header, packed and parsed; None: not there (yet).

        Raises: RecordingBrokenError when something else is there.
        """
        head = self._file.read(SEGMENT_HEADER_BYTES, self.offset)
        magic = head[:_MAGIC_BYTES]
        if magic == SEAL_MAGIC:
            self.at_seal = True
            return None
        if not SEGMENT_MAGIC.startswith(magic) and not SEAL_MAGIC.startswith(magic):
            raise self._file.broken(self.offset, "no segment begins here")
        if len(head) < SEGMENT_HEADER_BYTES:
            return None
        try:
            header = unpack_segment_header(head)
        except LayoutError as error:
            raise self._file.broken(self.offset, str(error)) from error
        self._check_order(header)
        return head, header

    def next(self) -> tuple[bytes, SegmentHeader, bytes] | None:
        """Return the next segment and step over it; None: not complete, or no more.

        Raises: RecordingBrokenError when its hash or its place is wrong.
        """
        found = self.next_header()
        if found is None:
            return None
        head, header = found
        rest = self._file.read(
            header.cipher_length + HASH_BYTES, self.offset + SEGMENT_HEADER_BYTES
        )
        if len(rest) < header.cipher_length + HASH_BYTES:
            return None
        ciphertext = rest[: header.cipher_length]
        link = next_link(self.link, head, ciphertext)
        if link != rest[header.cipher_length :]:
            raise self._file.broken(
                self.offset, f"hash of segment {header.number} does not match"
            )
        self.step_over(header, link)
        return head, header, ciphertext

    def step_over(self, header: SegmentHeader, link: bytes) -> None:
        """Move behind the segment with this header, whose chain hash is `link`."""
        self.offset += header.total_length
        self.number += 1
        self.link = link
        self._frame = header.frame
        self._must_start = header.ends_frame
        self._microseconds = header.last_microseconds

    def _check_order(self, header: SegmentHeader) -> None:
        if header.number != self.number:
            reason = f"segment {header.number} where {self.number} belongs"
        elif header.first_microseconds < self._microseconds:
            reason = "segment goes back in time"
        elif self._must_start and not header.starts_frame:
            reason = "segment continues a frame that has ended"
        elif self._frame >= 0 and header.frame != self._frame + header.starts_frame:
            reason = "segment belongs to another frame"
        else:
            return
        raise self._file.broken(self.offset, reason)


class RecordingReader:
    """Events of one recording, sealed, growing or torn.

    Not for use by several threads at once.
    """

    def __init__(self, path: Path, data_key: bytes) -> None:
        """Open the recording.

        Raises: OSError, RecordingBrokenError, ValueError for a key of a wrong length.
        """
        self._data_key = data_key
        self._file = RecordingFile(path)
        try:
            self.header = self._file.header
            self._seal = self._file.find_seal()
            self._new_cursor = _Cursor(self._file)
            self._new_decoder = self._decoder()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def seal(self) -> Seal | None:
        """The seal, or None while the recording has none."""
        if self._seal is None:
            self._seal = self._file.find_seal()
        return self._seal.seal if self._seal else None

    @property
    def duration(self) -> timedelta:
        """How long the recording runs; without a seal, up to its last event so far."""
        seal = self.seal
        if seal is not None:
            return timedelta(microseconds=seal.duration_microseconds)
        last = 0
        for header, _ in self._headers():
            last = header.last_microseconds
        return timedelta(microseconds=last)

    @property
    def frames(self) -> tuple[tuple[int, int, int], ...]:
        """Seek points: first segment's number, its offset, its first microseconds."""
        seal = self.seal
        if seal is not None:
            return seal.index
        return tuple(
            (header.number, offset, header.first_microseconds)
            for header, offset in self._headers()
            if header.starts_frame
        )

    def events(
        self, start_microseconds: int = 0, channel: int | None = None
    ) -> Iterator[Event]:
        """Yield the events at or after a time, of one channel or of all.

        Holds one segment in memory. An unsealed file ends at its last whole segment.
        Raises: RecordingBrokenError.
        """
        cursor, decoder = _Cursor(self._file), self._decoder()
        if start_microseconds > 0:
            self._seek(cursor, start_microseconds)
        while segment := cursor.next():
            for event in self._decode(decoder, cursor, segment):
                if event.microseconds >= start_microseconds and (
                    channel is None or event.channel == channel
                ):
                    yield event
        self._check_end(cursor)

    def read_new(self, max_bytes: int = _READ_NEW_BYTES) -> list[Event]:
        """Return the events written since the last call, from the start at first.

        At most one segment more than `max_bytes` at a time, so call until it returns
        nothing; then wait for the writer, or stop if `seal` is set.
        Raises: RecordingBrokenError.
        """
        found: list[Event] = []
        size = 0
        while size < max_bytes and (segment := self._new_cursor.next()):
            found += self._decode(self._new_decoder, self._new_cursor, segment)
            size += segment[1].plain_length
        if not found and self._new_cursor.at_seal:
            self._check_end(self._new_cursor)
        return found

    def _decoder(self) -> SegmentDecoder:
        return SegmentDecoder(header=self._file.header_bytes, data_key=self._data_key)

    def _decode(
        self,
        decoder: SegmentDecoder,
        cursor: _Cursor,
        segment: tuple[bytes, SegmentHeader, bytes],
    ) -> list[Event]:
        try:
            return decoder.decode(*segment)
        except LayoutError as error:
            offset = cursor.offset - segment[1].total_length
            raise self._file.broken(offset, str(error)) from error

    def _headers(self) -> Iterator[tuple[SegmentHeader, int]]:
        """Yield header and offset of each complete segment, reading nothing else."""
        cursor, size = _Cursor(self._file), self._file.size()
        while found := cursor.next_header():
            header, offset = found[1], cursor.offset
            if offset + header.total_length > size:
                return
            yield header, offset
            cursor.step_over(header, b"")

    def _seek(self, cursor: _Cursor, microseconds: int) -> None:
        best: tuple[int, int, int] | None = None
        for entry in self.frames:
            # Events of the same microsecond may end the frame before: begin there.
            if entry[2] >= microseconds:
                break
            best = entry
        if best is None or best[0] == 0:
            return
        number, offset, _ = best
        if not len(self._file.header_bytes) < offset < self._file.size():
            raise self._file.broken(offset, "the index points outside the recording")
        cursor.jump(offset=offset, number=number)

    def _check_end(self, cursor: _Cursor) -> None:
        """Raise unless the walk ended where the seal, if any, says it must."""
        seal = self.seal
        if seal is None:
            if cursor.at_seal and self._file.seal_at(cursor.offset) is not None:
                raise self._file.broken(cursor.offset, "seal does not end the file")
            return
        if not cursor.at_seal or seal.segments != cursor.number:
            raise self._file.broken(cursor.offset, "segments are missing")
        if seal.root_hash != cursor.link:
            raise self._file.broken(cursor.offset, "seal is of other segments")


def recover(path: Path, data_key: bytes | None = None) -> RecoveredRecording:
    """Scan a recording to its last intact segment; changes nothing.

    With the key every segment is decrypted as well and the payload bytes are counted.
    Raises: OSError; RecordingBrokenError when not even the header is whole, or the seal
    does not fit, or the key does not.
    """
    file = RecordingFile(path)
    try:
        return _scan(file, data_key)
    finally:
        file.close()


def _scan(file: RecordingFile, data_key: bytes | None) -> RecoveredRecording:
    decoder = None
    if data_key is not None:
        decoder = SegmentDecoder(header=file.header_bytes, data_key=data_key)
    cursor = _Cursor(file)
    index: list[tuple[int, int, int]] = []
    counts = dict.fromkeys(EventKind, 0)
    last = offset = 0
    damaged = False
    try:
        while segment := cursor.next():
            header = segment[1]
            offset = cursor.offset - header.total_length
            if header.starts_frame:
                index.append((header.number, offset, header.first_microseconds))
            last = header.last_microseconds
            if decoder is not None:
                for event in decoder.decode(*segment):
                    counts[event.kind] += len(event.data)
    except LayoutError as error:
        # Its hash is right, so it is not torn: the key is wrong.
        raise file.broken(offset, str(error)) from error
    except RecordingBrokenError:
        damaged = file.linked_segment_behind(cursor.offset)
    seal = file.seal_at(cursor.offset) if cursor.at_seal else None
    if seal is not None and (
        seal.seal.root_hash != cursor.link or seal.seal.segments != cursor.number
    ):
        raise file.broken(cursor.offset, "seal is of other segments")
    if seal is None and file.ends_like_sealed():
        damaged = True  # A torn file has no trailer: this one was sealed once.
    known = decoder is not None
    return RecoveredRecording(
        header=file.header,
        seal=seal,
        segments=cursor.number,
        root_hash=cursor.link,
        intact_bytes=cursor.offset,
        dropped_bytes=0 if seal else file.size() - cursor.offset,
        damaged=damaged,
        duration_microseconds=last,
        index=tuple(index),
        bytes_in=sum(counts[kind] for kind in INPUT_KINDS) if known else None,
        bytes_out=sum(counts[kind] for kind in OUTPUT_KINDS) if known else None,
    )
