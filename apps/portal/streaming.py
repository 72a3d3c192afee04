"""Sending long bodies without holding them in memory or blocking the loop."""

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice

from asgiref.sync import sync_to_async

_LINES_AT_ONCE = 256


async def from_thread(
    chunks: Iterator[bytes], *, close: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Yield what `chunks` yields, which may block and is asked in a worker thread.

    `close` is called once, however it ends: also when the browser goes away. Django's
    streaming response asks for the next part only when the last one was sent.
    """
    # Of one thread each, so that a slow disk under one download delays nobody else.
    take = sync_to_async(_take, thread_sensitive=False)
    try:
        while part := await take(chunks):
            yield part
    finally:
        close()


def _take(chunks: Iterator[bytes]) -> bytes:
    return b"".join(islice(chunks, _LINES_AT_ONCE))
