"""Recordings for tests, made by the real recorder or the real encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apps.recordings.frames import Event, EventKind, encode_header
from apps.recordings.seal import CLOSED, Seal, as_signer, encode_seal
from apps.recordings.segments import SegmentEncoder
from apps.recordings.writer import Recorder, RecorderThread

DATA_KEY = bytes(range(32))
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
STARTED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HEADER = {
    "session": "S-7QK2M",
    "started_at": STARTED_AT.isoformat(),
    "person": "ana",
    "asset": "hmi-pump-01",
    "account": "operator",
    "key": "key-1",
}


def public_key_file(folder: Path, name: str = "key.pub") -> Path:
    """Write the signing key's public half as an OpenSSH line."""
    path = folder / name
    public = SIGNING_KEY.public_key()
    path.write_bytes(
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    )
    return path


def recording_bytes(
    batches: Iterable[Sequence[Event]], *, sealed: bool = True
) -> bytes:
    """Return a whole file whose segments hold the batches, with chosen event times."""
    header = encode_header(HEADER)
    encoder = SegmentEncoder(header=header, data_key=DATA_KEY)
    parts = [header]
    for batch in batches:
        parts += encoder.encode(batch)
    if sealed:
        signer = as_signer(SIGNING_KEY)
        seal = Seal(
            how=CLOSED,
            segments=encoder.segments,
            bytes_in=encoder.bytes_in,
            bytes_out=encoder.bytes_out,
            duration_microseconds=encoder.last_microseconds,
            root_hash=encoder.root_hash,
            index=tuple(encoder.index),
            dropped_bytes=0,
            sealed_at=STARTED_AT,
            signer=signer.key_id,
        )
        parts.append(encode_seal(seal, signer=signer, offset=encoder.size))
    return b"".join(parts)


def short_batches(count: int = 4) -> list[list[Event]]:
    """Return a few small batches, some seconds apart."""
    return [
        [
            Event(EventKind.OUTPUT, 1, n * 1_000_000, b"line %d\r\n" % n),
            Event(EventKind.INPUT, 1, n * 1_000_000 + 5, b"x"),
        ]
        for n in range(count)
    ]


async def open_recorder(
    thread: RecorderThread, path: Path, *, header: dict[str, str] | None = None
) -> Recorder:
    """Open a recorder from a worker thread, as the gateway does."""
    loop = asyncio.get_running_loop()

    def blocking() -> Recorder:
        return thread.open(
            path,
            header=header or HEADER,
            data_key=DATA_KEY,
            signer=SIGNING_KEY,
            loop=loop,
        )

    return await asyncio.to_thread(blocking)
