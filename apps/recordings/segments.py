"""Events to segments and back: framing, compression, encryption, chain.

No files, no threads: the writer and the reader bring the bytes. The recording's data
key is never used as it is; the cipher key is derived from it with the header's hash as
salt (HKDF, RFC 5869), so that the same data key under two headers gives two keys and
the numbered nonces can never meet.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from apps.recordings.frames import (
    EVENT_HEADER_BYTES,
    FRAME_BYTES,
    FRAME_END,
    FRAME_MICROSECONDS,
    FRAME_START,
    INPUT_KINDS,
    OUTPUT_KINDS,
    TAG_BYTES,
    Event,
    LayoutError,
    SegmentHeader,
    decode_events,
    encode_event_header,
)
from apps.recordings.hashchain import first_link, next_link

DATA_KEY_BYTES: Final = 32
_KEY_PURPOSE: Final = b"sluice recording segment key 1"
_NONCE = struct.Struct(">4xQ")

# Measured on text. A frame that begins with typing seldom grows beyond a small window:
# this holds 80 kB of memory per session instead of 800 and compresses as well.
_TYPING: Final = zstandard.ZstdCompressionParameters.from_level(
    3, window_log=16, hash_log=12, chain_log=12
)
_FLOOD: Final = zstandard.ZstdCompressionParameters.from_level(
    3, window_log=18, hash_log=15, chain_log=15
)
_FLOOD_BYTES: Final = 1 << 16

WHOLE_FRAME_BYTES: Final = 1 << 18
"""A piece of this size is a frame by itself: compressed in one go, without the copy
that a stream makes of everything, by a compressor that is made once for each thread
(making one costs as much as compressing zeros)."""
_WHOLE: Final = zstandard.ZstdCompressionParameters.from_level(
    1, window_log=18, hash_log=14, chain_log=14
)
_MAX_WINDOW_BYTES: Final = 1 << 23


class _Compressors(threading.local):
    """The compressor for whole frames of this thread: it may not be shared."""

    def __init__(self) -> None:
        self.whole = zstandard.ZstdCompressor(compression_params=_WHOLE)


_compressors: Final = _Compressors()


def _cipher(data_key: bytes, header: bytes) -> AESGCM:
    if len(data_key) != DATA_KEY_BYTES:
        raise ValueError("a recording's data key is 32 bytes")
    derive = HKDF(SHA256(), DATA_KEY_BYTES, salt=first_link(header), info=_KEY_PURPOSE)
    return AESGCM(derive.derive(data_key))


class SegmentEncoder:
    """Turns batches of events into segments, in the order of the file."""

    def __init__(self, *, header: bytes, data_key: bytes) -> None:
        self._cipher = _cipher(data_key, header)
        self._stream: zstandard.ZstdCompressionObj | None = None
        self._frame_bytes = 0
        self._frame_began = 0
        self._frames = 0
        self.root_hash = first_link(header)
        """Hash of the last segment given; of the header while there is none."""
        self.segments = 0
        self.size = len(header)
        """Bytes of the file so far: the offset of the next segment."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.last_microseconds = 0
        self.index: list[tuple[int, int, int]] = []
        """For each frame: number of its first segment, offset of that, microseconds."""

    def encode(
        self, events: Iterable[Event], *, final: bool = False
    ) -> Iterator[bytes]:
        """Yield the segments that hold `events`, none when there are no events.

        Times must not go backwards. With `final` the last frame is completed.
        """
        parts: list[bytes] = []
        size = first = last = 0
        for kind, channel, microseconds, data in events:
            if not parts:
                first = microseconds
                self._drop_old_frame(first)
            length = len(data)
            parts.append(encode_event_header(kind, channel, microseconds, length))
            parts.append(data)
            size += EVENT_HEADER_BYTES + length
            last = microseconds
            if kind in INPUT_KINDS:
                self.bytes_in += length
            elif kind in OUTPUT_KINDS:
                self.bytes_out += length
            if self._frame_bytes + size >= FRAME_BYTES:
                yield self._segment(b"".join(parts), first, last, end=True)
                parts, size = [], 0
        if parts:
            yield self._segment(b"".join(parts), first, last, end=final)

    def rest(self, microseconds: int) -> None:
        """Free the compressor's memory when its frame is too old to go on at this time.

        The frame's segments decode as they are; the next segment starts a new frame.
        """
        self._drop_old_frame(microseconds)

    def _drop_old_frame(self, microseconds: int) -> None:
        if microseconds - self._frame_began >= FRAME_MICROSECONDS:
            self._leave_frame()

    def _leave_frame(self) -> None:
        self._stream = None
        self._frame_bytes = 0

    def _segment(self, plain: bytes, first: int, last: int, *, end: bool) -> bytes:
        if len(plain) >= WHOLE_FRAME_BYTES:
            self._leave_frame()
            self._begin_frame(first)
            flags = FRAME_START | FRAME_END
            packed = _compressors.whole.compress(plain)
        else:
            flags, packed = self._stream_on(plain, first, end=end)
        head = SegmentHeader(
            number=self.segments,
            flags=flags,
            plain_length=len(plain),
            cipher_length=len(packed) + TAG_BYTES,
            first_microseconds=first,
            last_microseconds=last,
            frame=self._frames - 1,
        ).pack()
        return self._sealed(head, packed, last)

    def _begin_frame(self, first: int) -> None:
        self._frame_began = first
        self._frames += 1
        self.index.append((self.segments, self.size, first))

    def _stream_on(self, plain: bytes, first: int, *, end: bool) -> tuple[int, bytes]:
        """Return the flags and the compressed bytes of one more piece of a frame."""
        flags = FRAME_END if end else 0
        if self._stream is None:
            flags |= FRAME_START
            self._begin_frame(first)
            parameters = _FLOOD if len(plain) >= _FLOOD_BYTES else _TYPING
            compressor = zstandard.ZstdCompressor(compression_params=parameters)
            self._stream = compressor.compressobj()
        stream = self._stream
        packed = stream.compress(plain) + stream.flush(
            zstandard.COMPRESSOBJ_FLUSH_FINISH
            if end
            else zstandard.COMPRESSOBJ_FLUSH_BLOCK
        )
        self._frame_bytes += len(plain)
        if end:
            self._leave_frame()
        return flags, packed

    def _sealed(self, head: bytes, packed: bytes, last: int) -> bytes:
        ciphertext = self._cipher.encrypt(_NONCE.pack(self.segments), packed, head)
        self.root_hash = next_link(self.root_hash, head, ciphertext)
        segment = b"".join((head, ciphertext, self.root_hash))
        self.segments += 1
        self.size += len(segment)
        self.last_microseconds = last
        return segment


class SegmentDecoder:
    """Turns segments back into events; begins at any segment that starts a frame."""

    def __init__(self, *, header: bytes, data_key: bytes) -> None:
        self._cipher = _cipher(data_key, header)
        self._stream: zstandard.ZstdDecompressionObj | None = None

    def decode(
        self, head: bytes, header: SegmentHeader, ciphertext: bytes
    ) -> list[Event]:
        """Return the events of the segment whose packed and parsed header are given.

        Raises: LayoutError when it was not written with this key, is not the one that
        follows the segment decoded before, or does not hold what its header says.
        """
        try:
            packed = self._cipher.decrypt(_NONCE.pack(header.number), ciphertext, head)
        except InvalidTag as error:
            raise LayoutError("segment does not decrypt with this key") from error
        if header.starts_frame:
            decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
            self._stream = decompressor.decompressobj()
        if self._stream is None:
            raise LayoutError("segment continues a frame that has no beginning")
        try:
            plain = self._stream.decompress(packed)
        except zstandard.ZstdError as error:
            raise LayoutError("segment does not decompress") from error
        if header.ends_frame:
            self._stream = None
        if len(plain) != header.plain_length:
            raise LayoutError("segment is not as long as its header says")
        return list(decode_events(plain))
