"""Envelope encryption of secrets: AES-256-GCM under a data key of their own. Pure.

The data key is random for each secret and is itself sealed with the key-encryption key
(KEK), which is never in the database (NIST SP 800-57 part 1, section 5.5). Purpose and
row identifier are authenticated with both, so that a ciphertext moved to another row
or used for another purpose does not open.
"""

import hashlib
import os
import uuid
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
# SP 800-38D section 8.2.2: random nonces of 96 bits; the data key is used once and the
# KEK for far fewer than 2^32 wraps.
_NONCE_BYTES = 12
_KEK_ID_BYTES = 8


class SealBrokenError(ValueError):
    """The secret does not open: it was changed, moved, or sealed for something else."""


class WrongKekError(ValueError):
    """The secret was sealed with another key-encryption key; the message names it."""


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """The 32 bytes that wrap data keys; `id` names them without telling them."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a vault key is {KEY_BYTES} random bytes")

    @property
    def id(self) -> str:
        """Return 16 hex digits: the first bytes of the key's SHA-256."""
        return hashlib.sha256(self.key).digest()[:_KEK_ID_BYTES].hex()


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What is stored: each part is nonce (12 bytes) || ciphertext || tag (16 bytes)."""

    ciphertext: bytes
    wrapped_key: bytes
    kek_id: str


def seal(
    plaintext: bytes, *, kek: KeyEncryptionKey, purpose: str, row_id: uuid.UUID
) -> SealedSecret:
    """Return `plaintext` sealed for the row `row_id` and nothing else."""
    data_key = AESGCM.generate_key(bit_length=256)
    return SealedSecret(
        ciphertext=_encrypt(data_key, plaintext, _context("secret", purpose, row_id)),
        wrapped_key=_encrypt(kek.key, data_key, _context("key", purpose, row_id)),
        kek_id=kek.id,
    )


def unseal(
    sealed: SealedSecret, *, kek: KeyEncryptionKey, purpose: str, row_id: uuid.UUID
) -> bytes:
    """Return the plaintext.

    Raises: WrongKekError, SealBrokenError.
    """
    data_key = _data_key(sealed, kek=kek, purpose=purpose, row_id=row_id)
    return _decrypt(data_key, sealed.ciphertext, _context("secret", purpose, row_id))


def rewrap(
    sealed: SealedSecret,
    *,
    old: KeyEncryptionKey,
    new: KeyEncryptionKey,
    purpose: str,
    row_id: uuid.UUID,
) -> SealedSecret:
    """Return the same secret under another KEK; the secret itself is not opened.

    Raises: WrongKekError, SealBrokenError.
    """
    data_key = _data_key(sealed, kek=old, purpose=purpose, row_id=row_id)
    return SealedSecret(
        ciphertext=sealed.ciphertext,
        wrapped_key=_encrypt(new.key, data_key, _context("key", purpose, row_id)),
        kek_id=new.id,
    )


def _data_key(
    sealed: SealedSecret, *, kek: KeyEncryptionKey, purpose: str, row_id: uuid.UUID
) -> bytes:
    if sealed.kek_id != kek.id:
        raise WrongKekError(
            f"sealed with vault key {sealed.kek_id}, but the vault key is {kek.id}"
        )
    return _decrypt(kek.key, sealed.wrapped_key, _context("key", purpose, row_id))


def _context(part: str, purpose: str, row_id: uuid.UUID) -> bytes:
    """Return the AAD; NUL cannot be part of a purpose, so no two contexts are alike."""
    if "\0" in purpose:
        raise ValueError("a purpose is printable text")
    words = [b"sluice sealed 1", part.encode(), purpose.encode()]
    return b"\0".join([*words, row_id.bytes])


def _encrypt(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def _decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, rest, context)
    except (InvalidTag, ValueError):
        # ValueError: too short to hold a nonce or a tag.
        raise SealBrokenError("the sealed secret does not open") from None
