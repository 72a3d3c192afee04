"""The content of a held upload on disk: pieces under AES-256-GCM. Pure.

A file is a magic line and pieces; a piece is its length (u32, of the ciphertext with
its tag) and the ciphertext. The nonce is the piece's number; the row's identifier, the
number and whether it is the last are authenticated with it, so that nothing can be
moved, left out or cut off. The data key is random and for this one file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC: Final = b"sluice held 1\n"
PIECE_BYTES: Final = 1 << 20
"""Longest plain text of a piece."""

MINIMUM_FREE_BYTES: Final = 256 << 20
"""Space that stays free for recordings and the database."""

_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")
_NONCE: Final = struct.Struct(">4xQ")
_CONTEXT: Final = struct.Struct(">16sQ?")


class ContentBrokenError(ValueError):
    """The file is not what was written; the text says why."""


class HeldWriter:
    """Writes one file. Blocking; one thread at a time. Raises: OSError."""

    def __init__(
        self,
        path: Path,
        *,
        data_key: bytes,
        row_id: uuid.UUID,
        minimum_free_bytes: int = MINIMUM_FREE_BYTES,
    ) -> None:
        self.size = 0
        """Bytes of content so far."""
        self._path = path
        self._row_id = row_id
        self._cipher = AESGCM(data_key)
        self._minimum_free = minimum_free_bytes
        self._number = 0
        self._hash = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)
        self._file.write(MAGIC)

    def append(self, content: bytes) -> None:
        """Write what follows. Raises: OSError, also when the disk is nearly full."""
        free = shutil.disk_usage(self._path.parent).free
        if free - len(content) < self._minimum_free:
            raise OSError("the disk is nearly full")
        for begin in range(0, len(content), PIECE_BYTES):
            piece = content[begin : begin + PIECE_BYTES]
            self._write(piece, last=False)
            self._hash.update(piece)
            self.size += len(piece)

    def _write(self, piece: bytes, *, last: bool) -> None:
        context = _CONTEXT.pack(self._row_id.bytes, self._number, last)
        sealed = self._cipher.encrypt(_NONCE.pack(self._number), piece, context)
        self._number += 1
        whole = memoryview(_LENGTH.pack(len(sealed)) + sealed)
        while whole:
            whole = whole[self._file.write(whole) or 0 :]

    def finish(self) -> str:
        """Write the end and have it on the disk; return the SHA-256 of the content."""
        self._write(b"", last=True)
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close without the end: what was written cannot be read back as whole."""
        self._file.close()


def read_content(
    path: Path, *, data_key: bytes, row_id: uuid.UUID
) -> Generator[bytes, None, None]:
    """Yield the content in pieces. The last `next` proves that it was all of it.

    Raises: ContentBrokenError, OSError.
    """
    cipher = AESGCM(data_key)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ContentBrokenError("it is no held file")
        number = 0
        while True:
            sealed = _next_piece(file)
            last = len(sealed) == _TAG_BYTES
            context = _CONTEXT.pack(row_id.bytes, number, last)
            try:
                piece = cipher.decrypt(_NONCE.pack(number), sealed, context)
            except InvalidTag as error:
                raise ContentBrokenError("it does not decrypt") from error
            if last:
                if file.read(1):
                    raise ContentBrokenError("something follows its end")
                return
            number += 1
            yield piece


def _next_piece(file: BinaryIO) -> bytes:
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise ContentBrokenError("its end is missing")
    (length,) = _LENGTH.unpack(head)
    if not _TAG_BYTES <= length <= PIECE_BYTES + _TAG_BYTES:
        raise ContentBrokenError("a piece has an impossible length")
    sealed = file.read(length)
    if len(sealed) < length:
        raise ContentBrokenError("its end is missing")
    return sealed
