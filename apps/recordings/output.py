"""The file of one recording while it is written, and what a finished one is.

Blocking; the recorder thread and the recovery of lost recordings use it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.recordings.frames import SIGNATURE_BYTES, TRAILER, Event, encode_header
from apps.recordings.reader import RecordingFile, RecoveredRecording, recover
from apps.recordings.seal import (
    CLOSED,
    RECOVERED,
    Seal,
    SealSigner,
    as_signer,
    encode_seal,
)
from apps.recordings.segments import SegmentEncoder

_HEADER_NAMES: Final = frozenset({"format", "cipher", "compression", "salt", "signer"})
_SALT_BYTES: Final = 16


class RecordingFailedError(Exception):
    """The recording cannot be written, so the session must not go on."""


class StillWrittenError(RecordingFailedError):
    """A living process holds the recording, so it cannot be recovered yet."""


class AlreadySealedError(Exception):
    """The recording has a seal and needs no recovery."""


@dataclass(frozen=True, kw_only=True)
class SealedRecording:
    """A finished recording file."""

    path: Path
    size: int
    """Bytes of the file."""
    seal: Seal
    signature: bytes
    """64 bytes, over `seal.seal_digest`."""

    @property
    def root_hash(self) -> bytes:
        """Hash of the last segment, which covers all of them and the header."""
        return self.seal.root_hash

    @property
    def segments(self) -> int:
        """Number of segments."""
        return self.seal.segments

    @property
    def bytes_in(self) -> int | None:
        """Payload bytes from the person; None: recovered without the key."""
        return self.seal.bytes_in

    @property
    def bytes_out(self) -> int | None:
        """Payload bytes to the person; None: recovered without the key."""
        return self.seal.bytes_out

    @property
    def duration_microseconds(self) -> int:
        """From opening to closing; of a recovered one, to its last event."""
        return self.seal.duration_microseconds


class OutputFile:
    """The file of one recording and its encoder. Blocking; used by one thread."""

    def __init__(
        self,
        path: Path,
        *,
        header: Mapping[str, str],
        data_key: bytes,
        signer: SealSigner,
        minimum_free_bytes: int,
    ) -> None:
        """Create the file and put its header on the disk. Raises: OSError, ValueError.

        The folder must exist and be closed to others.
        """
        if not _HEADER_NAMES.isdisjoint(header):
            raise ValueError(f"recording header: reserved among {sorted(header)}")
        self.started_at = datetime.fromisoformat(header["started_at"])
        if self.started_at.tzinfo is None:
            raise ValueError("recording header: started_at has no time zone")
        if os.stat(path.parent).st_mode & 0o077:
            raise PermissionError(errno.EPERM, "folder is open to others", path.parent)
        free = os.statvfs(path.parent)
        if free.f_bavail * free.f_frsize < minimum_free_bytes:
            raise OSError(errno.ENOSPC, "too little free space", path.parent)
        first_bytes = encode_header(
            {
                **header,
                "format": "SLREC 1",
                "cipher": "AES-256-GCM",
                "compression": "zstd",
                "salt": os.urandom(_SALT_BYTES).hex(),
                "signer": signer.key_id,
            }
        )
        self.path = path
        self.signer = signer
        self.encoder = SegmentEncoder(header=first_bytes, data_key=data_key)
        self._unsynced = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            # Tells `seal_recovered` that a living process writes here.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(self._fd, first_bytes)
            os.fsync(self._fd)
            _sync_folder(path.parent)
        except BaseException:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise

    def append(self, events: list[Event], *, final: bool) -> None:
        """Write the segments of `events`. Raises: OSError."""
        for segment in self.encoder.encode(events, final=final):
            self._unsynced = True
            _write_all(self._fd, segment)

    def sync(self) -> None:
        """Put what was written on the disk; raise OSError when it is not there."""
        stat = os.fstat(self._fd)
        if stat.st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "recording was removed", self.path)
        if stat.st_size != self.encoder.size:
            raise OSError(errno.EIO, "recording was changed by others", self.path)
        if self._unsynced:
            os.fdatasync(self._fd)
            self._unsynced = False

    def seal(self, *, duration_microseconds: int) -> SealedRecording:
        """Append the signed seal, sync, close.

        Raises: OSError, what the signer raises.
        """
        self.sync()
        encoder = self.encoder
        seal = Seal(
            how=CLOSED,
            segments=encoder.segments,
            bytes_in=encoder.bytes_in,
            bytes_out=encoder.bytes_out,
            duration_microseconds=duration_microseconds,
            root_hash=encoder.root_hash,
            index=tuple(encoder.index),
            dropped_bytes=0,
            # Not the wall clock: that may have been set meanwhile.
            sealed_at=self.started_at + timedelta(microseconds=duration_microseconds),
            signer=self.signer.key_id,
        )
        record = encode_seal(seal, signer=self.signer, offset=encoder.size)
        _write_all(self._fd, record)
        os.fsync(self._fd)
        self.close()
        return _sealed(self.path, encoder.size + len(record), seal, record)

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def seal_recovered(
    path: Path,
    *,
    signer: SealSigner | Ed25519PrivateKey,
    now: datetime,
    data_key: bytes | None = None,
) -> SealedRecording:
    """Cut an incomplete tail off and seal what is intact, as recovered. Blocking.

    With the key the segments are decrypted as well and their payload is counted.
    Safe to repeat after a crash in its middle. Raises: AlreadySealedError; OSError;
    StillWrittenError when a process still writes the file; RecordingFailedError when an
    intact part lies behind the damage (nothing is changed then); RecordingBrokenError
    when the header is not whole or the key is not this recording's.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StillWrittenError(f"{path.name} is still being written") from error
        found = recover(path, data_key)
        if found.seal is not None:
            raise AlreadySealedError(path.name)
        if found.damaged:
            raise RecordingFailedError(
                f"{path.name}: damaged at byte {found.intact_bytes}, intact behind it"
            )
        chosen = as_signer(signer)
        seal = _recovery_seal(found, signer=chosen, now=now)
        record = encode_seal(seal, signer=chosen, offset=found.intact_bytes)
        os.ftruncate(fd, found.intact_bytes)
        _write_all(fd, record)
        os.fsync(fd)
    finally:
        os.close(fd)
    return _sealed(path, found.intact_bytes + len(record), seal, record)


def read_sealed(path: Path) -> SealedRecording | None:
    """Return what the seal in the file says, or None when it has none.

    The signature is not verified here. Raises: OSError, RecordingBrokenError.
    """
    file = RecordingFile(path)
    try:
        found = file.find_seal()
        if found is None:
            return None
        return SealedRecording(
            path=path, size=file.size(), seal=found.seal, signature=found.signature
        )
    finally:
        file.close()


def _recovery_seal(
    found: RecoveredRecording, *, signer: SealSigner, now: datetime
) -> Seal:
    return Seal(
        how=RECOVERED,
        segments=found.segments,
        bytes_in=found.bytes_in,
        bytes_out=found.bytes_out,
        duration_microseconds=found.duration_microseconds,
        root_hash=found.root_hash,
        index=found.index,
        dropped_bytes=found.dropped_bytes,
        sealed_at=now,
        signer=signer.key_id,
    )


def _sealed(path: Path, size: int, seal: Seal, record: bytes) -> SealedRecording:
    end = len(record) - TRAILER.size
    return SealedRecording(
        path=path, size=size, seal=seal, signature=record[end - SIGNATURE_BYTES : end]
    )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
