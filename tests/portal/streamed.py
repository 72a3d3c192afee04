"""Bodies that are streamed asynchronously, read from a test that is not async."""

from typing import Any

from asgiref.sync import async_to_sync


async def _read(answer: Any) -> bytes:
    return b"".join([piece async for piece in answer.streaming_content])


def drain(answer: Any) -> bytes:
    """Return the whole body, so that no file behind it stays open."""
    if not answer.streaming:
        return bytes(answer.content)
    body: bytes = async_to_sync(_read)(answer)
    return body
