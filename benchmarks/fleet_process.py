"""Many SSH clients in one process, for `benchmarks.fleet`.

`python -m benchmarks.fleet_process` reads orders, a line of JSON each, from standard
input and answers each with a line of JSON. Its clients use the gateway's fast path, so
that a thousand of them leave the machine to what is measured.
"""

import asyncio
import json
import random
import select
import sys
import time
from typing import Any

import asyncssh

from apps.gateway.fastpath import ClientConnection

LOOPBACK = "127.0.0.1"
_READY = b"ready> "
_OPENING_SECONDS = 60.0
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLET


class _Session(asyncssh.SSHClientSession[bytes]):
    """One terminal: knows when what was typed came back."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.typed_at = 0.0
        self.waits = False
        self.taken: list[float] = []
        self.late = 0
        self._seen = b""
        self.channel: Any = None

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        if self.waits:
            self.taken.append(time.perf_counter() - self.typed_at)
            self.waits = False
        elif not self.ready.is_set():
            self._seen += data
            if _READY in self._seen:
                self.ready.set()

    def type(self) -> None:
        """Type one key, unless the one before is still on its way."""
        if self.waits:
            self.late += 1
            return
        self.waits = True
        self.typed_at = time.perf_counter()
        self.channel.write(b"k")


class _Fleet:
    def __init__(self, *, port: int, user: str, key: str) -> None:
        self._port, self._user = port, user
        self._key = asyncssh.read_private_key(key)
        self._clients: list[tuple[ClientConnection, _Session]] = []

    async def open(self, *, count: int, at_a_time: int = 8) -> dict[str, Any]:
        """Sign in `count` times more, each with a shell on a terminal."""
        started = time.perf_counter()
        gate = asyncio.Semaphore(at_a_time)

        async def one() -> None:
            async with gate, asyncio.timeout(_OPENING_SECONDS):
                self._clients.append(await self._sign_in())

        await asyncio.gather(*(one() for _ in range(count)))
        return {"seconds": time.perf_counter() - started, "open": len(self._clients)}

    async def _sign_in(self) -> tuple[ClientConnection, _Session]:
        loop = asyncio.get_running_loop()
        options = await asyncssh.SSHClientConnectionOptions.construct(
            host=LOOPBACK,
            port=self._port,
            username=self._user,
            client_keys=[self._key],
            known_hosts=None,
            preferred_auth=["publickey"],
            agent_path=None,
            gss_host=None,
            compression_algs=None,
            kex_algs=["curve25519-sha256"],
            config=None,
        )
        options.waiter = loop.create_future()
        connection = ClientConnection(loop, options, wait="auth")
        await loop.create_connection(lambda: connection, LOOPBACK, self._port)
        await options.waiter
        session = _Session()
        channel = connection.new_session_channel(window=1 << 20, max_pktsize=1 << 15)
        await channel.create(
            lambda: session,
            command=None,
            subsystem=None,
            env={},
            request_pty=True,
            term_type="xterm",
            term_size=(80, 24, 0, 0),
            term_modes={},
            x11_forwarding=False,
            x11_display=None,
            x11_auth_path=None,
            x11_single_connection=False,
            agent_forwarding=False,
        )
        session.channel = channel
        await session.ready.wait()
        return connection, session

    async def type(self, *, seconds: float, per_second: float) -> dict[str, Any]:
        """Have everybody type; return the milliseconds until each key came back."""
        loop = asyncio.get_running_loop()
        interval = 1 / per_second
        began = loop.time()
        end = began + seconds

        def press(session: _Session, due: float) -> None:
            session.type()
            following = due + interval
            if following < end:
                loop.call_at(following, press, session, following)

        for _, session in self._clients:
            session.taken, session.late, session.waits = [], 0, False
            # Not all in the same moment: people are not in step.
            due = began + random.random() * interval  # noqa: S311 - no secret
            loop.call_at(due, press, session, due)
        await asyncio.sleep(seconds + 1.0)
        taken = [t * 1000 for _, session in self._clients for t in session.taken]
        late = sum(session.late for _, session in self._clients)
        return {"milliseconds": [round(t, 3) for t in taken], "late": late}

    async def watch_the_cut(self, *, until: float) -> dict[str, Any]:
        """Return when each socket was closed, and when each was first spoken to.

        Times are POSIX seconds. The sockets are watched by themselves: 500 clients that
        take leave one after the other would take longer than the cut. Says
        `{"watching": n}` first.
        """
        poll = select.epoll()
        waiting = set()
        for connection, _ in self._clients:
            transport: Any = connection._transport
            transport.pause_reading()
            number = transport.get_extra_info("socket").fileno()
            poll.register(number, _EVENTS)
            waiting.add(number)
        _answer({"watching": len(waiting)})
        return await asyncio.to_thread(_watch, poll, waiting, until)

    async def close(self) -> dict[str, Any]:
        """Leave."""
        for connection, _ in self._clients:
            transport: Any = connection._transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()
            connection.abort()
        await asyncio.gather(
            *(connection.wait_closed() for connection, _ in self._clients)
        )
        self._clients = []
        return {}


def _watch(poll: select.epoll, waiting: set[int], until: float) -> dict[str, Any]:
    closed, spoken = [], []
    while waiting and time.time() < until:
        for number, events in poll.poll(max(0.0, min(0.2, until - time.time()))):
            now = time.time()
            if events & (select.EPOLLRDHUP | select.EPOLLHUP):
                closed.append(now)
                poll.unregister(number)
                waiting.discard(number)
            spoken.append(now)
    poll.close()
    return {"closed": sorted(closed), "spoken": sorted(spoken), "left": len(waiting)}


def _answer(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def serve() -> None:
    """Carry out orders until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    first = json.loads(await reader.readline())
    fleet = _Fleet(**first)
    _answer({})
    while line := await reader.readline():
        order = json.loads(line)
        _answer(await getattr(fleet, order.pop("do"))(**order))


if __name__ == "__main__":
    asyncio.run(serve())
