"""What of an SFTP conversation is recorded: all of it but the contents of files.

A file stands in the manifest by its SHA-256 and its size. Keeping a copy of each would
make of the recordings a store of a plant's programs and recipes that nobody asked for.
"""

from __future__ import annotations

from typing import Final

from apps.gateway.sftp_frames import HEAD, LENGTH, FrameType

_KIND: Final = 5
"""Bytes that have to be there: the length and the type."""

_STRING: Final = HEAD.size + LENGTH.size
_AFTER_HANDLE: Final = 12
"""Offset and length of a WRITE's content (draft-ietf-secsh-filexfer-02, 6.4)."""


class ContentFilter:
    """Leaves the contents of files out of one direction of a channel.

    Of a WRITE and a DATA frame everything before the content passes, with the lengths
    as they were on the wire. For bytes that are no SFTP it makes no promise: the
    inspector ends the channel.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0
        self._passes = True

    def feed(self, data: bytes) -> bytes:
        """Take what came; return what of it is recorded."""
        out: list[bytes] = []
        if self._rest:
            data, self._rest = self._rest + data, b""
        position, size = 0, len(data)
        while position < size:
            if self._left:
                end = min(position + self._left, size)
                self._left -= end - position
                if self._passes:
                    out.append(data[position:end])
                position = end
                continue
            head = _head(data, position, size)
            if head is None:
                self._rest = data[position:]
                break
            (length,) = LENGTH.unpack_from(data, position)
            whole = LENGTH.size + length
            kept = min(head, whole) if head else min(whole, size - position)
            out.append(data[position : position + kept])
            self._left, self._passes = whole - kept, not head
            position += kept
        return b"".join(out)


def _head(data: bytes, position: int, size: int) -> int | None:
    """Return how long the head before a content is; 0 for a frame without one.

    None when that cannot be seen yet.
    """
    if size - position < _KIND:
        return None
    kind = data[position + LENGTH.size]
    if kind == FrameType.DATA:
        head = _STRING
    elif kind == FrameType.WRITE:
        if size - position < _STRING:
            return None
        (handle,) = LENGTH.unpack_from(data, position + HEAD.size)
        head = _STRING + handle + _AFTER_HANDLE
    else:
        return 0
    (length,) = LENGTH.unpack_from(data, position)
    return head if size - position >= min(head, LENGTH.size + length) else None
