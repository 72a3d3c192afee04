"""The content of one file on its way: counted and hashed as it streams. Pure.

Nothing is kept but what arrives ahead of its turn, and of that only so much as a
`Reorder` has room for. What cannot be put in order has no checksum; that is said, and
never papered over.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Final

from apps.recordings.manifest import FileAction, FileNote, FileResult

REORDER_BYTES: Final = 8 << 20
"""Content that may wait for what comes before it, in all files of a channel."""

_PIECE_COST: Final = 200


class Reorder:
    """Room for pieces that came ahead of their turn; shared by a channel's files."""

    def __init__(self, room: int = REORDER_BYTES) -> None:
        self.room = room


class Transfer:
    """One file in one direction."""

    def __init__(
        self,
        action: FileAction,
        path: str,
        *,
        started_at: dt.datetime,
        reorder: Reorder,
        whole: bool,
    ) -> None:
        self.action = action
        self.path = path
        self.moved = 0
        """Bytes that passed; those read again count once."""
        self.problem = ""
        self.failed = self.denied = False
        self.expected_size: int | None = None
        """Size of the file that is read, once it is known."""
        self._whole = whole
        """Whether the asset's file can hold nothing but what passes."""
        self._started_at = started_at
        self._reorder = reorder
        self._hash = hashlib.sha256()
        self._position = 0
        self._waiting: dict[int, bytes] = {}
        self._in_order = True

    @property
    def position(self) -> int:
        """Bytes from the beginning that passed without a gap."""
        return self._position

    def take(self, offset: int, piece: bytes | memoryview) -> None:
        """Count and hash a piece of content that belongs at `offset`."""
        size = len(piece)
        ahead = self._position - offset
        if ahead > 0 and self._in_order and self.action is FileAction.DOWNLOAD:
            # Read again: only what is new counts.
            if ahead >= size:
                return
            piece, offset = memoryview(piece)[ahead:], self._position
            size -= ahead
        self.moved += size
        if not self._in_order:
            return
        if offset == self._position:
            self._hash.update(piece)
            self._position = offset + size
            if self._waiting:
                self._take_waiting()
        elif offset > self._position:
            self._keep(offset, piece)
        else:
            self._lose("a part was written twice")

    def _keep(self, offset: int, piece: bytes | memoryview) -> None:
        cost = len(piece) + _PIECE_COST
        if cost > self._reorder.room or offset in self._waiting:
            self._lose("its parts did not come in order")
            return
        self._reorder.room -= cost
        self._waiting[offset] = bytes(piece)

    def _take_waiting(self) -> None:
        while (piece := self._waiting.pop(self._position, None)) is not None:
            self._reorder.room += len(piece) + _PIECE_COST
            self._hash.update(piece)
            self._position += len(piece)

    def _lose(self, why: str) -> None:
        self._in_order = False
        self.problem = self.problem or why
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        for piece in self._waiting.values():
            self._reorder.room += len(piece) + _PIECE_COST
        self._waiting.clear()

    def cut_to(self, size: int) -> None:
        """Note that the file that is written was set to `size` bytes."""
        if size == self._position and not self._waiting and self._in_order:
            self._whole = True
        else:
            self._lose("its size was set to something else than what was written")

    def fail(self, why: str) -> None:
        """Note that a part of it was refused or could not be read or written."""
        self.failed = True
        self.problem = self.problem or why

    def deny(self, why: str) -> None:
        """Note that Sluice refused a part of it."""
        self.denied = True
        self.problem = why

    def finish(self, *, closed: bool, now: dt.datetime) -> FileNote:
        """Return the entry for the manifest. `closed`: the asset closed it well."""
        if self._waiting:
            self._lose("parts of it are missing")
        whole = self._in_order and self._is_whole()
        if self.denied:
            result = FileResult.DENIED
        elif self.failed:
            result = FileResult.FAILED if not self.moved else FileResult.PARTIAL
        elif closed and whole:
            result = FileResult.COMPLETE
        else:
            result = FileResult.PARTIAL
            self.problem = self.problem or (
                "it may hold more than what passed" if closed else "it was not closed"
            )
        hashed = self._in_order and self._position == self.moved
        return FileNote(
            action=self.action,
            path=self.path,
            result=result,
            started_at=self._started_at,
            ended_at=now,
            size=self.moved,
            sha256=self._hash.hexdigest() if hashed else "",
            reason=self.problem if result is not FileResult.COMPLETE else "",
        )

    @property
    def is_whole(self) -> bool:
        """Say whether what passed so far is a whole file, from its beginning on."""
        return self._in_order and not self._waiting and self._is_whole()

    def _is_whole(self) -> bool:
        if self.action is FileAction.UPLOAD:
            return self._whole
        return self.expected_size is not None and self._position == self.expected_size
