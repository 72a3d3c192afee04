"""The fast path agrees with asyncssh byte for byte, and memory stays bounded."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import pytest
from asyncssh.connection import SSHClientConnection, SSHServerConnection

from apps.gateway import fastpath
from apps.gateway.fastpath_self_test import echo_round_trip, self_test

GCM = "aes256-gcm@openssh.com"
CIPHERS = [
    "aes128-gcm@openssh.com",
    GCM,
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-cbc",
]
SERVERS = [fastpath.ServerConnection, SSHServerConnection]
CLIENTS = [fastpath.ClientConnection, SSHClientConnection]


@pytest.fixture(autouse=True)
def _fast_path_on_again() -> Iterator[None]:
    fastpath.enable()
    yield
    fastpath.enable()


def chunks(seed: int, count: int = 12, largest: int = 150_000) -> list[bytes]:
    rng = random.Random(seed)  # noqa: S311 - the same data each time
    sizes = [1, 2, 16, 32_768, 32_769]
    sizes += [rng.randrange(1, largest) for _ in range(count)]
    rng.shuffle(sizes)
    return [rng.randbytes(size) for size in sizes]


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_any_pair_of_ends_carries_the_same_bytes(server, client, cipher):
    sent = chunks(seed=len(cipher))
    came_back = await echo_round_trip(
        sent, server=server, client=client, encryption=cipher
    )
    assert came_back == b"".join(sent)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_rekeying_in_the_middle_loses_nothing(server, client, cipher):
    """The sequence numbers, nonces and held data survive many key exchanges."""
    sent = chunks(seed=7, count=10)
    came_back = await echo_round_trip(
        sent, server=server, client=client, encryption=cipher, rekey_bytes=60_000
    )
    assert came_back == b"".join(sent)


async def test_self_test_passes_and_the_version_is_the_pinned_one():
    assert fastpath.verify().active, fastpath.verify().reason
    outcome = await self_test()
    assert outcome.active
    assert outcome.asyncssh_version == fastpath.VERIFIED_VERSION


async def test_switched_off_it_says_so_and_still_carries_the_bytes():
    fastpath.disable("asyncssh differs")
    assert fastpath.status() == fastpath.FastPathStatus(
        active=False,
        reason="asyncssh differs",
        asyncssh_version=asyncssh.__version__,
    )
    assert not (await self_test()).active
    sent = chunks(seed=3, count=4)
    came_back = await echo_round_trip(
        sent, server=fastpath.ServerConnection, client=fastpath.ClientConnection
    )
    assert came_back == b"".join(sent)


def test_a_changed_asyncssh_is_noticed(monkeypatch):
    monkeypatch.setattr(
        asyncssh.connection.SSHConnection,
        "resume_writing",
        lambda self: None,
    )
    assert not fastpath.verify().active


def test_asyncssh_itself_is_untouched():
    """Other users of the library in this process keep its own classes."""
    assert asyncssh.connection.SSHConnection.send_packet.__module__ == (
        "asyncssh.connection"
    )
    assert asyncssh.channel.SSHChannel.write.__module__ == "asyncssh.channel"
    assert asyncssh.crypto.GCMCipher.__init__.__module__ == "asyncssh.crypto.cipher"


class Producer(asyncssh.SSHServerSession[bytes]):
    """Writes for ever, except while asked to pause."""

    def __init__(self) -> None:
        self.written = 0
        self.paused = asyncio.Event()
        self.running = False

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        self.running = True
        asyncio.get_running_loop().call_soon(self.produce)

    def produce(self) -> None:
        while self.running and self.written < 1 << 28:
            self.chan.write(bytes(65_536))
            self.written += 65_536

    def pause_writing(self) -> None:
        self.running = False
        self.paused.set()

    def resume_writing(self) -> None:
        self.running = True
        asyncio.get_running_loop().call_soon(self.produce)


class Server(asyncssh.SSHServer):
    """Lets everybody in and remembers the sessions."""

    def __init__(self, session_class: type[Any]) -> None:
        self.session_class = session_class
        self.session: Any = None

    def connection_made(self, conn: Any) -> None:
        self.conn = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> Any:
        self.session = self.session_class()
        return self.session


class Pair:
    """A connected server and client of this module on a socket pair."""

    server: fastpath.ServerConnection
    client: fastpath.ClientConnection
    owner: Server


@asynccontextmanager
async def connected(session_class: type[Any], **options: Any) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    key = asyncssh.generate_private_key("ssh-ed25519")
    pair = Pair()
    pair.owner = Server(session_class)
    accept = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=lambda: pair.owner,
        server_host_keys=[key],
        encoding=None,
        line_editor=False,
        config=None,
        encryption_algs=[GCM],
        **options,
    )
    dial = await asyncssh.SSHClientConnectionOptions.construct(
        host="127.0.0.1",
        username="pair",
        known_hosts=([key.convert_to_public()], [], []),
        client_keys=None,
        agent_path=None,
        config=None,
        encryption_algs=[GCM],
    )
    dial.waiter = loop.create_future()
    pair.server = fastpath.ServerConnection(loop, accept)
    pair.client = fastpath.ClientConnection(loop, dial, wait="auth")
    near, far = socket.socketpair()
    await loop.create_connection(lambda: pair.server, sock=near)
    await loop.create_connection(lambda: pair.client, sock=far)
    await dial.waiter
    try:
        yield pair
    finally:
        pair.client.abort()
        pair.server.abort()
        await pair.client.wait_closed()
        await pair.server.wait_closed()


async def open_shell(client: fastpath.ClientConnection, session, window=1 << 21):
    channel = client.new_session_channel(window=window, max_pktsize=1 << 15)
    await channel.create(
        lambda: session,
        command=None,
        subsystem=None,
        env={},
        request_pty=False,
        term_type=None,
        term_size=(0, 0),
        term_modes={},
        x11_forwarding=False,
        x11_display=None,
        x11_auth_path=None,
        x11_single_connection=False,
        agent_forwarding=False,
    )
    return channel


class Counting(asyncssh.SSHClientSession[bytes]):
    """Counts what it gets."""

    def __init__(self) -> None:
        self.got = 0
        self.progress = asyncio.Event()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.got += len(data)
        self.progress.set()


async def test_r20_a_client_that_stops_reading_holds_no_memory():
    """R20: a 1 GiB window and an unread socket stop the source, and reading resumes."""
    async with connected(Producer) as pair:
        session = Counting()
        await open_shell(pair.client, session, window=1 << 30)
        assert pair.client._transport is not None
        pair.client._transport.pause_reading()
        producer = pair.owner.session
        await asyncio.wait_for(producer.paused.wait(), 10)
        await asyncio.sleep(0.05)
        written = producer.written
        await asyncio.sleep(0.05)
        assert producer.written == written
        assert pair.server._transport is not None
        held = pair.server._transport.get_write_buffer_size()
        assert held <= fastpath.TRANSPORT_HIGH_WATER + 131_072
        pair.client._transport.resume_reading()
        async with asyncio.timeout(10):
            while producer.written < written + (4 << 20):
                session.progress.clear()
                await session.progress.wait()
        producer.running = False


class Stalled(asyncssh.SSHServerSession[bytes]):
    """Takes one piece of input and then no more."""

    def __init__(self) -> None:
        self.got = 0

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def shell_requested(self) -> bool:
        return True

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.got += len(data)
        self.chan.pause_reading()


class Pausing(asyncssh.SSHClientSession[bytes]):
    """Knows whether its channel may be written to."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()

    def pause_writing(self) -> None:
        self.paused.set()


async def test_r20_a_target_that_stops_reading_is_sent_one_window_only():
    """R20: nothing is credited while delivery is paused."""
    async with connected(Stalled, window=1 << 18) as pair:
        session = Pausing()
        channel = await open_shell(pair.client, session)
        for _ in range(64):
            channel.write(bytes(65_536))
        await asyncio.wait_for(session.paused.wait(), 10)
        await asyncio.sleep(0.1)
        stalled = pair.owner.session
        held = sum(len(data) for data, _ in stalled.chan._recv_buf)
        assert stalled.got + held <= (1 << 18) + stalled.got
        assert channel.get_write_buffer_size() >= (64 * 65_536) - 3 * (1 << 18)


def ignore_packet(connection: Any, kind: int, number: int, packet: Any) -> None:
    """Answer nothing."""


async def test_r20_nothing_piles_up_while_a_peer_sits_on_a_key_exchange():
    """R20: data stays in the channel, so that the source is paused."""
    async with connected(Producer) as pair:
        session = Counting()
        pair.client.fast = False
        # From here on the client answers no key exchange.
        pair.client._packet_handlers = {
            **pair.client._packet_handlers,
            asyncssh.constants.MSG_KEXINIT: ignore_packet,
        }
        await open_shell(pair.client, session, window=1 << 30)
        pair.server._send_kexinit()
        pair.server._kexinit_sent = True
        producer = pair.owner.session
        await asyncio.wait_for(producer.paused.wait(), 10)
        assert len(pair.server._deferred_packets) < 10
        assert producer.chan.get_write_buffer_size() < 1 << 20
        assert pair.server._kex_timer is not None
        pair.server._kex_too_slow()
        await asyncio.wait_for(pair.server.wait_closed(), 5)


async def test_r20_replies_that_are_never_read_end_the_connection():
    """R20: a flood of requests with unread answers is cut, not stored."""
    async with connected(Producer) as pair:
        assert pair.client._transport is not None
        pair.client._transport.pause_reading()
        pair.server.pause_writing()
        assert pair.server._transport is not None
        pair.server._send(bytes(fastpath.TRANSPORT_LIMIT + (4 << 20)))
        pair.server._send_global_request(b"keepalive@openssh.com", want_reply=True)
        await asyncio.wait_for(pair.server.wait_closed(), 5)


async def test_unparsed_input_is_bounded_while_an_answer_is_computed():
    """R20: a peer cannot fill the buffer while an asynchronous step runs."""
    async with connected(Producer) as pair:
        parser, pair.server._recv_handler = pair.server._recv_handler, lambda: False
        flood = os.urandom(64 << 10)
        for _ in range(64):
            pair.client._send(flood)
        async with asyncio.timeout(5):
            while not pair.server._input_held:  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.01)
        assert len(pair.server._inpbuf) <= fastpath.INPUT_LIMIT + (512 << 10)
        del parser


async def test_many_connections_share_the_buffers_without_mixing():
    """Incomplete packets of one connection wait while others use the same memory."""
    sent = [chunks(seed=number, count=8, largest=90_000) for number in range(8)]
    came_back = await asyncio.gather(
        *(
            echo_round_trip(
                parts,
                server=fastpath.ServerConnection,
                client=fastpath.ClientConnection,
                rekey_bytes=400_000 if number % 2 else 1 << 30,
            )
            for number, parts in enumerate(sent)
        )
    )
    assert came_back == [b"".join(parts) for parts in sent]


class Collecting(asyncssh.SSHClientSession[bytes]):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.progress = asyncio.Event()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.got += data
        self.progress.set()


class Patient(Producer):
    """Writes when it is told to."""

    def produce(self) -> None:
        pass


async def test_what_waits_for_a_slow_reader_is_not_written_over():
    """The memory of sealed packets is not used again while the socket still needs it.

    A second connection sends through the same memory meanwhile.
    """
    first = [random.Random(n).randbytes(150_000) for n in range(20)]  # noqa: S311
    async with connected(Patient) as slow, connected(Patient) as quick:
        collected, other = Collecting(), Collecting()
        await open_shell(slow.client, collected, window=1 << 26)
        await open_shell(quick.client, other, window=1 << 26)
        slow.client._transport.pause_reading()
        for piece in first:
            slow.owner.session.chan.write(piece)
            quick.owner.session.chan.write(bytes(150_000))
            await asyncio.sleep(0)
        assert slow.server._transport.get_write_buffer_size() > 0
        slow.client._transport.resume_reading()
        async with asyncio.timeout(20):
            while len(collected.got) < 3_000_000 or len(other.got) < 3_000_000:
                collected.progress.clear()
                other.progress.clear()
                await asyncio.wait(
                    [
                        asyncio.ensure_future(collected.progress.wait()),
                        asyncio.ensure_future(other.progress.wait()),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
    assert bytes(collected.got) == b"".join(first)
    assert bytes(other.got) == bytes(3_000_000)


@pytest.mark.parametrize(
    "arguments",
    [
        (asyncssh.packet.UInt32(999), asyncssh.packet.UInt32(1)),
        (asyncssh.packet.UInt32(0),),
        (asyncssh.packet.UInt32(0), asyncssh.packet.UInt32(1), b"more"),
    ],
    ids=["no such channel", "too short", "too long"],
)
async def test_a_wrong_window_adjustment_ends_the_connection(arguments):
    """The short way for adjustments takes well-formed ones only."""
    async with connected(Patient) as pair:
        await open_shell(pair.client, Collecting())
        pair.client.send_packet(
            asyncssh.constants.MSG_CHANNEL_WINDOW_ADJUST, *arguments
        )
        await asyncio.wait_for(pair.server.wait_closed(), 5)


async def test_an_adjustment_opens_the_window_by_that_much():
    async with connected(Patient) as pair:
        collected = Collecting()
        channel = await open_shell(pair.client, collected, window=1000)
        pair.owner.session.chan.write(bytes(100))
        async with asyncio.timeout(5):
            while len(collected.got) < 100:
                collected.progress.clear()
                await collected.progress.wait()
        before = pair.owner.session.chan._send_window
        channel.send_packet(
            asyncssh.constants.MSG_CHANNEL_WINDOW_ADJUST, asyncssh.packet.UInt32(77)
        )
        async with asyncio.timeout(5):
            while pair.owner.session.chan._send_window != before + 77:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_r20_a_peer_that_takes_a_byte_a_packet_leaves_others_their_turn():
    """Its packets are sealed some at a time, with the loop's other work between."""
    sent = os.urandom(5000)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class OneByteServer(fastpath.ServerConnection):
        def create_server_channel(self, *args: Any, **kwargs: Any) -> Any:
            channel: Any = super().create_server_channel(*args, **kwargs)
            opened = channel.process_open

            def process_open(sender: int, window: int, _size: int, session: Any):
                opened(sender, window, 1, session)

            channel.process_open = process_open
            write = channel.write

            def write_and_look(data: bytes, datatype: int | None = None) -> None:
                before = channel._send_buf_len
                write(data, datatype)
                assert channel._send_buf_len - before >= (
                    len(data) - fastpath.PACKETS_A_TURN
                )

            channel.write = write_and_look
            return channel

    other = asyncio.create_task(others())
    came_back = await echo_round_trip(
        [sent], server=OneByteServer, client=fastpath.ClientConnection
    )
    other.cancel()
    assert came_back == sent
    assert turns > len(sent) // fastpath.PACKETS_A_TURN
