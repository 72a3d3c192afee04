"""Host names looked up in threads of their own, so many at a time and no more.

The system's resolver blocks, for half a minute where a name server is silent. In the
event loop's own pool a few such names would hold up all else that runs there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from concurrent.futures import Future
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

AT_A_TIME: Final = 32
"""Look-ups that may run in one process, for each purpose."""


class LookupFailedError(Exception):
    """The name has no address, or nobody said so in time."""


class NameLookups:
    """Look-ups for one purpose. Whoever asks for the same name shares its thread."""

    def __init__(self, limit: int = AT_A_TIME) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[Address] | Exception]] = {}

    @property
    def running(self) -> int:
        """Return how many threads look something up."""
        return len(self._running)

    async def addresses(self, host: str, port: int, *, seconds: float) -> list[Address]:
        """Return the addresses of a name in the resolver's order, each once.

        Raises: LookupFailedError; also at once when too many look-ups run. One that
        takes longer than `seconds` goes on by itself and counts until it ends.
        """
        answer = self._look_up(host, port)
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.shield(asyncio.wrap_future(answer))
        except TimeoutError:
            raise LookupFailedError("no answer in time") from None
        if isinstance(found, Exception):
            raise LookupFailedError(str(found)) from found
        return found

    def _look_up(self, host: str, port: int) -> Future[list[Address] | Exception]:
        key = host, port
        with self._lock:
            answer = self._running.get(key)
            if answer is None:
                if len(self._running) >= self._limit:
                    raise LookupFailedError("too many names are being looked up")
                answer = self._running[key] = Future()
                # A daemon: a silent name server must not hold up the end, either.
                threading.Thread(
                    target=self._run,
                    args=(key, answer),
                    name="sluice-name",
                    daemon=True,
                ).start()
        return answer

    def _run(
        self, key: tuple[str, int], answer: Future[list[Address] | Exception]
    ) -> None:
        found: list[Address] | Exception
        try:
            found = _resolve(*key)
        except (OSError, ValueError) as error:
            found = error
        with self._lock:
            del self._running[key]
        answer.set_result(found)


def _resolve(host: str, port: int) -> list[Address]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A zone index (fe80::1%eth0) is the gateway's own matter, and refused anyway.
    texts = (str(answer[4][0]).partition("%")[0] for answer in answers)
    return list(dict.fromkeys(ipaddress.ip_address(text) for text in texts))


FORWARD_NAMES: Final = NameLookups()
ASSET_NAMES: Final = NameLookups()
"""Apart, so that names of forwards cannot keep sessions from their assets."""
