"""The seal at the end of a recording: what it says, and its Ed25519 signature.

The signature (RFC 8032) is over SHA-256(SEAL_TAG || seal JSON || root), so that a
signature made for anything else never fits a recording. Pure: the standard library and
`cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apps.recordings.frames import (
    END_MAGIC,
    LENGTH,
    SEAL_MAGIC,
    SIGNATURE_BYTES,
    TRAILER,
    LayoutError,
    canonical_json,
)

SEAL_TAG: Final = b"sluice recording seal 1\n"

CLOSED: Final = "closed"
"""The gateway sealed the recording when the session ended."""
RECOVERED: Final = "recovered"
"""Sealed later, up to the last intact segment, because the gateway was lost."""


@dataclass(frozen=True, kw_only=True)
class SealSigner:
    """Something that can sign a seal; the private key may be elsewhere."""

    key_id: str
    """Fingerprint of the public key, as `key_fingerprint` gives it."""
    sign: Callable[[bytes], bytes]
    """32-byte digest in, 64-byte Ed25519 signature over that digest out."""


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a seal states about the recording before it."""

    how: str
    """CLOSED or RECOVERED."""
    segments: int
    bytes_in: int | None
    """Payload bytes from the person; None: recovered without the recording's key."""
    bytes_out: int | None
    """Payload bytes to the person, standard error included; None as above."""
    duration_microseconds: int
    root_hash: bytes
    index: tuple[tuple[int, int, int], ...]
    """For each frame: number of its first segment, offset of that, microseconds."""
    dropped_bytes: int
    """Incomplete bytes cut off behind the last intact segment on recovery."""
    sealed_at: datetime
    signer: str
    """Fingerprint of the public key that verifies the signature."""

    def to_json(self) -> bytes:
        """Return the canonical JSON that is signed and stored."""
        return canonical_json(
            {
                "version": 1,
                "how": self.how,
                "segments": self.segments,
                "bytes_in": self.bytes_in,
                "bytes_out": self.bytes_out,
                "duration_microseconds": self.duration_microseconds,
                "root": self.root_hash.hex(),
                "index": [list(entry) for entry in self.index],
                "dropped_bytes": self.dropped_bytes,
                "sealed_at": self.sealed_at.isoformat(),
                "signer": self.signer,
            }
        )


def key_fingerprint(key: Ed25519PublicKey) -> str:
    """Return `SHA256:...` as `ssh-keygen -l` prints it for the key (RFC 4253, 6.6)."""
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def as_signer(signer: SealSigner | Ed25519PrivateKey) -> SealSigner:
    """Return `signer` itself, or one that signs with the private key given."""
    if isinstance(signer, SealSigner):
        return signer
    return SealSigner(key_id=key_fingerprint(signer.public_key()), sign=signer.sign)


def seal_digest(seal_json: bytes, root_hash: bytes) -> bytes:
    """Return the 32 bytes that are signed."""
    return hashlib.sha256(SEAL_TAG + seal_json + root_hash).digest()


def encode_seal(seal: Seal, *, signer: SealSigner, offset: int) -> bytes:
    """Return the whole signed record to append at `offset` of the file.

    Raises: ValueError when the signer gave something that is no signature; whatever
    the signer raises.
    """
    body = seal.to_json()
    signature = signer.sign(seal_digest(body, seal.root_hash))
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError("the signer did not return an Ed25519 signature")
    head = SEAL_MAGIC + LENGTH.pack(len(body))
    return head + body + signature + TRAILER.pack(offset, END_MAGIC)


def decode_seal(body: bytes) -> Seal:
    """Return the seal from its JSON. Raises: LayoutError."""
    try:
        value: Any = json.loads(body)
        if canonical_json(value) != body or value["version"] != 1:
            raise LayoutError("seal is not canonical JSON of version 1")
        return Seal(
            how=_text(value["how"]),
            segments=_count(value["segments"]),
            bytes_in=_count_or_none(value["bytes_in"]),
            bytes_out=_count_or_none(value["bytes_out"]),
            duration_microseconds=_count(value["duration_microseconds"]),
            root_hash=bytes.fromhex(value["root"]),
            index=tuple(
                (_count(number), _count(offset), _count(microseconds))
                for number, offset, microseconds in value["index"]
            ),
            dropped_bytes=_count(value["dropped_bytes"]),
            sealed_at=datetime.fromisoformat(value["sealed_at"]),
            signer=_text(value["signer"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError("seal is malformed") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise TypeError("not a count")
    return value


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def verify_seal(
    seal_json: bytes, *, root_hash: bytes, signature: bytes, key: Ed25519PublicKey
) -> bool:
    """Return whether `signature` over this seal and root was made by `key`."""
    try:
        key.verify(signature, seal_digest(seal_json, root_hash))
    except InvalidSignature:
        return False
    return True
