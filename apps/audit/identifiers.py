"""Sortable identifiers and the short form people read aloud.

UUID version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then random bits, so
that rows sort by the time they were made and no identifier can be guessed.
"""

import secrets
import time
import uuid

# Crockford's base 32: no I, L, O or U, so that nothing is misread on the phone.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SHORT_LENGTH = 6


def uuid7() -> uuid.UUID:
    """Return a new time-ordered identifier (RFC 9562 section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= secrets.randbits(80)
    value &= ~(0xF << 76)
    value |= 0x7 << 76
    value &= ~(0x3 << 62)
    value |= 0x2 << 62
    return uuid.UUID(int=value)


def short_id(prefix: str, identifier: uuid.UUID) -> str:
    """Return the form shown to people, such as `S-7QK2MD`.

    It is made of the identifier's last 30 random bits: good for naming, never a key
    to look something up by.
    """
    bits = identifier.int & ((1 << (5 * _SHORT_LENGTH)) - 1)
    letters = [
        _ALPHABET[(bits >> (5 * place)) & 31]
        for place in reversed(range(_SHORT_LENGTH))
    ]
    return f"{prefix}-{''.join(letters)}"
