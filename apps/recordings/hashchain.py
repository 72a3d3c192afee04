"""The hash chain over a recording: each segment's hash covers all before it.

h_0 = SHA-256(header bytes, MAGIC included);
h_n = SHA-256(h_{n-1} || segment header || ciphertext) for the n-th segment.
The last one is the *root*, which the seal signs. The chain is over ciphertext, so it is
checked without the recording's key. Pure: the standard library only.
"""

from __future__ import annotations

import hashlib


def first_link(header: bytes) -> bytes:
    """Return h_0 for the file's header bytes as `frames.encode_header` made them."""
    return hashlib.sha256(header).digest()


def next_link(previous: bytes, segment_header: bytes, ciphertext: bytes) -> bytes:
    """Return the 32-byte hash that follows `previous`."""
    link = hashlib.sha256(previous)
    link.update(segment_header)
    link.update(ciphertext)
    return link.digest()
