"""The ledger's hash chain: pure rules, the same as the stand-alone verifier's.

leaf_hash = SHA-256(0x00 || canonical JSON of the event), and
hash_n = SHA-256(0x01 || hash_(n-1) || leaf_hash), with hash_0 = 32 zero bytes. The two
prefix bytes keep a leaf from being passed off as a link (RFC 6962 section 2.1).
"""

import hashlib
import json
from collections.abc import Mapping

GENESIS = bytes(32)
HEAD_TAG = b"sluice ledger head 1\n"


def canonical_json(value: Mapping[str, object]) -> bytes:
    """Return the one UTF-8 form of `value`: sorted keys, no blanks, no escapes.

    Raises: TypeError for values that are not plain JSON, ValueError for NaN.
    """
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def leaf_hash(event: Mapping[str, object]) -> bytes:
    """Return the 32 byte hash of one event."""
    return hashlib.sha256(b"\x00" + canonical_json(event)).digest()


def link_hash(previous: bytes, leaf: bytes) -> bytes:
    """Return the 32 byte chain hash after `leaf`; both inputs are 32 bytes."""
    if len(previous) != 32 or len(leaf) != 32:
        raise ValueError("a chain hash and a leaf hash are 32 bytes each")
    return hashlib.sha256(b"\x01" + previous + leaf).digest()


def head_message(head: Mapping[str, object]) -> bytes:
    """Return the 32 bytes that are signed for an exported head of the ledger."""
    return hashlib.sha256(HEAD_TAG + canonical_json(head)).digest()
