"""Sending long bodies without holding them in memory or blocking the loop."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from channels.db import DatabaseSyncToAsync

_PIECE_BYTES = 64 * 1024


class FromThread:
    """The body of a streaming response: each piece is asked for in a worker thread.

    No two pieces need come from the same thread, so a database cursor must not live
    from one to the next. Django asks for the next piece only when the last one was
    sent, and calls `close` once whatever happens, also when nothing was ever sent.
    """

    def __init__(self, pieces: Iterator[bytes], *, close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces; asking for one may block its thread."""
        # Of no shared thread: a slow disk under one download delays nobody else.
        take = DatabaseSyncToAsync(_take, thread_sensitive=False)
        while (piece := await take(self._pieces)) is not None:
            yield piece


def _take(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def in_pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines as UTF-8, many at a time; lone surrogates become question marks."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line.encode("utf-8", "replace"))
        size += len(held[-1])
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
