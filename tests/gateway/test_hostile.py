"""R18, R20, R37: peers that flood, before and after they have signed in.

Each gets an end or is served slowly; beside it somebody works on as before, nothing is
raised, and nothing piles up. The asset hears of none of it.
"""

import asyncio
import struct
from contextlib import suppress
from dataclasses import replace

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.packet import Boolean, Byte, NameList, String, UInt32

from apps.gateway import fastpath
from apps.gateway.engineer_connection import (
    CONTROL_BURST,
    REKEY_BURST,
    STRANGER_PACKETS,
)
from apps.gateway.limits import LoginLimits
from tests.gateway.conftest import Client, running, until
from tests.gateway.test_flood import held
from tests.gateway.test_refusals import Raw

YES, NO = b"\x01", b"\x00"
FLOOD = int(2 * CONTROL_BURST)
ELSEWHERE = ("127.0.0.9", 0)
"""Another address of this machine, for floods that are counted by their source."""


class Bystander:
    """Somebody who works through the same gateway meanwhile."""

    def __init__(self, process):
        self._process = process
        self._count = 0

    @classmethod
    async def of(cls, client):
        connection = await client.connect()
        return cls(await connection.create_process("cat", encoding=None))

    async def works(self):
        """Send a line and have it back; no bound but that of a hang."""
        self._count += 1
        line = b"line %d\n" % self._count
        self._process.stdin.write(line)
        async with asyncio.timeout(20):
            assert await self._process.stdout.readexactly(len(line)) == line


@pytest.fixture
async def bystander(client):
    await client.ask(client.here.grant)
    return await Bystander.of(client)


def errors(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


async def closed(connection):
    """Wait until the gateway has closed it."""
    async with asyncio.timeout(30):
        await connection.wait_closed()


async def open_raw_channel(connection):
    """Return a session channel whose messages the test writes itself."""
    channel = asyncssh.channel.SSHClientChannel(
        connection,
        asyncio.get_running_loop(),
        "strict",
        None,
        "strict",
        1 << 16,
        1 << 15,
    )
    await channel._open(b"session")
    channel._session = asyncssh.SSHClientSession()
    return channel


def unknown_request(_: int) -> bytes:
    return String("nobody@example.com") + YES + String(bytes(64))


def listen_request(number: int) -> bytes:
    return String("tcpip-forward") + YES + String("") + UInt32(1024 + number)


def open_request(number: int) -> bytes:
    return String("session") + UInt32(number) + UInt32(1 << 20) + UInt32(1 << 15)


FLOODS = {
    "ignore": (MSG_IGNORE, lambda _: String(bytes(32))),
    "debug": (MSG_DEBUG, lambda _: YES + String(bytes(32)) + String("")),
    "unimplemented": (MSG_UNIMPLEMENTED, UInt32),
    "unknown message": (191, lambda _: bytes(32)),
    "unknown global request": (MSG_GLOBAL_REQUEST, unknown_request),
    "keepalive": (
        MSG_GLOBAL_REQUEST,
        lambda _: String("keepalive@openssh.com") + YES,
    ),
    "listen": (MSG_GLOBAL_REQUEST, listen_request),
    "open": (MSG_CHANNEL_OPEN, open_request),
    "open unknown": (
        MSG_CHANNEL_OPEN,
        lambda n: String("x11") + UInt32(n) + UInt32(1) + UInt32(1),
    ),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_r20_a_flood_of_messages_is_cut(client, bystander, caplog, name):
    """Not one of a thousand honest clients sends so many; the line is closed."""
    kind, payload = FLOODS[name]
    target = client.here.target
    connection = await client.connect()
    await connection.run("stdout before")
    before = target.sessions
    for number in range(FLOOD):
        connection.send_packet(kind, payload(number))
        if number % 500 == 0:
            await asyncio.sleep(0)
    await bystander.works()
    await closed(connection)
    await bystander.works()
    assert target.sessions == before
    assert errors(caplog) == []

    async def gone():
        return len(client.service.core.live) == 1

    await until(gone)
    assert held(client.service.core) < 1 << 20


@pytest.mark.parametrize("reply", [True, False])
async def test_r20_a_flood_of_channel_requests_is_cut(client, bystander, caplog, reply):
    connection = await client.connect()
    channel = await open_raw_channel(connection)
    for number in range(FLOOD):
        channel.send_packet(
            MSG_CHANNEL_REQUEST, String("x@example.com"), Boolean(reply), bytes(32)
        )
        if number % 500 == 0:
            await asyncio.sleep(0)
    await closed(connection)
    await bystander.works()
    assert errors(caplog) == []


async def test_r20_opening_and_closing_without_end_is_cut(client, bystander, caplog):
    """Each channel is opened, confirmed and closed, one after the other."""
    connection = await client.connect()
    count = 0
    with suppress(asyncssh.Error, OSError, BrokenPipeError):
        async with asyncio.timeout(45):
            while count < FLOOD:
                channel = await open_raw_channel(connection)
                channel.close()
                await channel.wait_closed()
                count += 1
    # An open and a close are two messages, but only the first is judged.
    assert count <= FLOOD
    await bystander.works()
    assert len(client.service.core.live) <= 2
    assert errors(caplog) == []
    connection.abort()


async def test_a_flood_of_window_adjustments_changes_nothing(client, bystander, caplog):
    """They are flow control, so they are not counted; each is cheap."""
    connection = await client.connect()
    channel = await open_raw_channel(connection)
    for number in range(20_000):
        channel.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(1))
        if number % 1000 == 0:
            await asyncio.sleep(0)
    await bystander.works()
    assert (await connection.run("stdout on")).stdout == "on\n"
    assert errors(caplog) == []


@pytest.fixture
def stock_path():
    fastpath.disable("a test")
    yield
    fastpath.enable()


async def test_r37_a_window_that_overflows_is_cut(client, bystander, caplog):
    """RFC 4254 5.2: at most 2^32-1."""
    await overflow(client)
    await bystander.works()
    assert errors(caplog) == []


async def test_r37_such_a_window_without_the_fast_path(
    client, bystander, caplog, stock_path
):
    await overflow(client)
    await bystander.works()
    assert errors(caplog) == []


async def overflow(client):
    connection = await client.connect()
    channel = await open_raw_channel(connection)
    for _ in range(3):
        channel.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(0xFFFFFFFF))
    await closed(connection)


@pytest.mark.parametrize("datatype", [0, 1, 2, 255, 0xFFFFFFFF])
async def test_r37_extended_data_from_a_client_reaches_nobody(
    client, bystander, caplog, datatype
):
    """No kind of it has a meaning in that direction (RFC 4254 5.2)."""
    connection = await client.connect()
    channel = await open_raw_channel(connection)
    await channel._make_request(b"exec", String("cat"))
    before = bytes(client.here.target.received)
    channel.send_packet(
        MSG_CHANNEL_EXTENDED_DATA, UInt32(datatype), String(b"smuggled")
    )
    await closed(connection)
    await bystander.works()
    assert b"smuggled" not in client.here.target.received[len(before) :]
    assert errors(caplog) == []


AFTER_THE_END = {
    "data after the end of data": (
        (MSG_CHANNEL_EOF, b""),
        (MSG_CHANNEL_DATA, String(b"more")),
    ),
    "the end twice": ((MSG_CHANNEL_EOF, b""), (MSG_CHANNEL_EOF, b"")),
    "data after the close": (
        (MSG_CHANNEL_CLOSE, b""),
        (MSG_CHANNEL_DATA, String(b"more")),
    ),
    "closed twice": ((MSG_CHANNEL_CLOSE, b""), (MSG_CHANNEL_CLOSE, b"")),
    "more than the window": ((MSG_CHANNEL_DATA, String(bytes(5 << 20))),),
}


@pytest.mark.parametrize("name", AFTER_THE_END)
async def test_r37_messages_out_of_order_are_survived(client, bystander, caplog, name):
    connection = await client.connect()
    channel = await open_raw_channel(connection)
    for kind, payload in AFTER_THE_END[name]:
        channel.send_packet(kind, payload)
    await bystander.works()
    connection.abort()
    await bystander.works()
    assert errors(caplog) == []


async def test_key_exchanges_without_end_are_cut(client, bystander, caplog):
    """Each costs milliseconds; without data in between there is a limit to them."""
    connection = await client.connect()
    await connection.run("stdout x")
    count = 0
    async with asyncio.timeout(50):
        while count < 4 * REKEY_BURST and not connection.is_closed():
            connection._send_kexinit()
            connection._kexinit_sent = True
            while not (connection._kex_complete or connection.is_closed()):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            count += 1
    assert connection.is_closed()
    assert count > REKEY_BURST
    await bystander.works()
    assert errors(caplog) == []


async def test_a_second_key_exchange_inside_the_first_is_cut(client, bystander, caplog):
    connection = await client.connect()
    await connection.run("stdout x")
    connection._send_kexinit()
    connection._kex_complete = True
    connection._send_kexinit()
    await closed(connection)
    await bystander.works()
    assert errors(caplog) == []


# Before the sign-in


class Flooding(asyncssh.SSHClient):
    """Sends `count` messages instead of signing in."""

    def __init__(self, kind, payload, count):
        self.kind, self.payload, self.count = kind, payload, count

    def connection_made(self, conn):
        self.connection = conn

    def public_key_auth_requested(self):
        for number in range(self.count):
            self.connection.send_packet(self.kind, self.payload(number))
        return


def none_request(number: int) -> bytes:
    return String(f"person-{number}@asset") + String("ssh-connection") + String("none")


def key_request(number: int) -> bytes:
    return (
        String(f"person-{number}@asset")
        + String("ssh-connection")
        + String("publickey")
        + NO
        + String("ssh-ed25519")
        + String(String("ssh-ed25519") + String(bytes(32)))
    )


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (MSG_IGNORE, lambda _: String(bytes(32))),
        (MSG_DEBUG, lambda _: YES + String("x") + String("")),
        (MSG_USERAUTH_REQUEST, none_request),
        (MSG_USERAUTH_REQUEST, key_request),
    ],
)
async def test_r18_a_stranger_who_floods_is_cut(
    client, bystander, caplog, kind, payload
):
    """R18: what a sign-in takes is known; whoever sends more is no engineer."""
    options = {
        "username": client.here.address,
        "client_factory": lambda: Flooding(kind, payload, 5 * STRANGER_PACKETS),
        "known_hosts": client.known_hosts,
        "agent_path": None,
        "config": None,
    }
    with pytest.raises((asyncssh.Error, OSError)):
        await asyncio.wait_for(
            asyncssh.connect("127.0.0.1", client.port, **options), 20
        )
    await bystander.works()
    assert client.here.target.connections == 1
    assert errors(caplog) == []


def kexinit() -> bytes:
    lists = [NameList([b"curve25519-sha256"])] + [NameList([b"none"])] * 9
    return Byte(20) + bytes(16) + b"".join(lists) + NO + UInt32(0)


GREETINGS = {
    "half a version": b"SSH-2.",
    "a version without end": b"SSH-2.0-" + b"x" * 100_000,
    "a version that is no ASCII": b"SSH-2.0-\xff\xfe\x00\r\n",
    "a version of old": b"SSH-1.99-x\r\n",
    "lines without end": b"hello\r\n" * 10_000,
    "lines of nothing": b"\n" * 100_000,
    "NUL": bytes(100_000),
    "a packet of 4 GB": b"SSH-2.0-x\r\n" + struct.pack(">IB", 0xFFFFFFFF, 4),
    "a packet of nothing": b"SSH-2.0-x\r\n" + struct.pack(">IB", 1, 0) + bytes(64),
    "padding only": b"SSH-2.0-x\r\n" + struct.pack(">IB", 12, 255) + bytes(64),
}


@pytest.mark.parametrize("name", GREETINGS)
async def test_r18_odd_greetings_end(here, settings_of_gateway, tmp_path, caplog, name):
    """At once when they are wrong, by the deadline when they are only unfinished."""
    limits = LoginLimits(total=50, per_source=20, login_seconds=2)
    async with running(replace(settings_of_gateway, login=limits)) as service:
        client = Client(service, here, tmp_path)
        await client.ask(here.grant)
        raw = await Raw.open(service.ssh_port)
        raw.writer.write(GREETINGS[name])
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                while await raw.reader.read(65536):
                    pass
        raw.close()
        assert len(service._door.gate) == 0
        connection = await client.connect()
        assert (await connection.run("stdout x")).stdout == "x\n"
        connection.abort()
    assert errors(caplog) == []


async def test_r18_key_exchanges_that_are_never_finished(client, bystander, caplog):
    """Many offers of algorithms in a row: the second one is a fault."""
    for _ in range(10):
        raw = await Raw.open(client.port)
        await raw.version()
        for _ in range(50):
            raw.send(kexinit())
        assert len(await raw.rest()) < 4096
        raw.close()
    await bystander.works()
    assert errors(caplog) == []


async def test_r18_connections_that_come_and_go_are_limited(client, bystander, caplog):
    """R18: by their rate, each source by itself."""
    gate, rate = client.service._door.gate, client.service._door.gate.limits
    for _ in range(int(2 * rate.burst)):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", client.port, local_addr=ELSEWHERE
        )
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def refused():
        return gate.refused >= rate.burst / 4

    await until(refused)
    # Somebody else is not held up, and so is the source itself after a moment.
    connection = await client.connect()
    assert (await connection.run("stdout x")).stdout == "x\n"
    await bystander.works()
    assert errors(caplog) == []
