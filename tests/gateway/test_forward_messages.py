"""The direct-tcpip message of a client, as odd as it may be (RFC 4254 7.2; R37)."""

import asyncio
import ipaddress

import asyncssh
import pytest
from asyncssh.packet import String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.gateway.forwarding import UNKNOWN_ORIGIN, AskedForward, destination_of
from apps.gateway.session_context import ChannelRefusedError
from apps.inventory.addresses import refusal
from tests.gateway.forwards import HOST, destination, echo, grant_forwards
from tests.gateway.recording_asset import recording_asset
from tests.gateway.test_refusals import refused_kinds

NUMBERS = st.integers(0, 0xFFFFFFFF)
HOSTS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.ip_addresses().map(lambda address: str(address).encode()),
    st.sampled_from(
        [
            b"localhost",
            b"LOCALHOST.",
            b"127.1",
            b"0x7f000001",
            b"2130706433",
            b"[::1]",
            b"::ffff:169.254.169.254",
            b"fe80::1%eth0",
            b"a\x00b",
            b"plc-7.\x1b[2J",
        ]
    ),
)


@given(HOSTS, NUMBERS)
def test_r26_what_is_read_is_harmless_or_refused(host, port):
    asked = AskedForward(host, port, b"127.0.0.1", 1)
    try:
        found = destination_of(asked, allow_local=False)
    except ChannelRefusedError as error:
        found, line = None, str(error)
    if found is None:
        assert line.isprintable()
        assert line.isascii()
        assert len(line) < 200
        return
    assert 1 <= found.port <= 65535
    assert found.host.isascii()
    assert found.host == found.host.lower()
    assert found.host.isprintable()
    try:
        address = ipaddress.ip_address(found.host)
    except ValueError:
        assert not found.host.rpartition(".")[2].isdigit()
    else:
        assert refusal(address) is None


@given(HOSTS, NUMBERS)
def test_an_origin_is_an_address_or_unknown(host, port):
    address, number = AskedForward(b"x", 1, host, port).origin
    assert 0 <= number <= 65535
    if address != UNKNOWN_ORIGIN:
        ipaddress.ip_address(address)


@pytest.fixture
def target_context():
    return recording_asset()


def raw_channel(connection, window=1 << 16, packet=1 << 15):
    return asyncssh.channel.SSHTCPChannel(
        connection, asyncio.get_running_loop(), None, "strict", window, packet
    )


async def test_r37_odd_messages_are_refused_one_by_one(client):
    """Nothing of them reaches the asset, and the connection goes on."""
    await client.ask(grant_forwards, client.here, "exec", "forward:192.0.2.17:502")
    connection = await client.connect()
    await connection.create_process("begin")
    before = list(client.here.target.asked)
    hosts = [b"", b"\xff\xfe", b"a" * 5000, b"x\x00y", b"%s%n", b"192.0.2.17 ", b"*"]
    messages = [
        *((host, 502) for host in hosts),
        (b"192.0.2.17", 0),
        (b"192.0.2.17", 503),
        (b"192.0.2.17", 65536 + 502),
        (b"192.0.2.17", 0xFFFFFFFF),
    ]
    for host, port in messages:
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await raw_channel(connection)._open(
                b"direct-tcpip",
                String(host) + UInt32(port) + String(b"\xff") + UInt32(0xFFFFFFFF),
            )
        assert refusal.value.reason.isprintable()
    assert client.here.target.asked == before
    assert await refused_kinds(client, len(messages)) == ["direct-tcpip"] * len(
        messages
    )
    await connection.create_process("still here")
    assert client.here.target.asked == [*before, "exec still here"]


@pytest.mark.parametrize(
    "payload",
    [b"", String("192.0.2.17"), String("192.0.2.17") + UInt32(502) + b"\x00\x00\x01"],
    ids=["nothing", "no port", "cut off"],
)
async def test_a_message_that_is_cut_off_ends_the_connection(client, payload):
    await client.ask(grant_forwards, client.here, "forward:192.0.2.17:502")
    connection = await client.connect()
    with pytest.raises((asyncssh.Error, OSError)):
        await raw_channel(connection)._open(b"direct-tcpip", payload)
    await asyncio.wait_for(connection.wait_closed(), 10)
    assert client.here.target.untouched


@pytest.mark.parametrize("window", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("packet", [0, 1, 0xFFFFFFFF])
async def test_r37_odd_windows_are_survived(client, window, packet):
    """A window of 0 holds everything; a packet size of 0 can carry nothing."""
    await client.ask(grant_forwards, client.here, "forward:192.0.2.17:502")
    connection = await client.connect()
    channel = raw_channel(connection, window, packet)
    body = String("192.0.2.17") + UInt32(502) + String(HOST) + UInt32(1)
    if packet == 0:
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await channel._open(b"direct-tcpip", body)
        assert "packet size of 0" in refusal.value.reason
    else:
        await channel._open(b"direct-tcpip", body)
        channel._session = asyncssh.SSHTCPSession()
        channel.write(b"x")
    reader, writer = await connection.open_connection("192.0.2.17", 502, encoding=None)
    writer.write(b"on")
    assert await asyncio.wait_for(reader.readexactly(2), 10) == b"on"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.lists(st.tuples(HOSTS, NUMBERS), min_size=1, max_size=60))
def test_no_message_reaches_anything_that_was_not_granted(data):
    """Whatever is asked for, only a destination of the grant has its service."""
    granted = {"forward:192.0.2.17:502", "forward:plc-7:44818"}
    for host, port in data:
        asked = AskedForward(host, port, b"", 0)
        try:
            found = destination_of(asked, allow_local=True)
        except ChannelRefusedError:
            continue
        if found.service in granted:
            text = host.decode("ascii").lower().strip("[].")
            assert text in {"192.0.2.17", "plc-7"}


async def test_random_messages_leave_a_working_gateway(client):
    """A burst of noise after a sign-in ends that connection at most."""
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        for seed in range(8):
            connection = await client.connect()
            noise = bytes((seed * 37 + index * 11) & 0xFF for index in range(40))
            connection.send_packet(90, String("direct-tcpip"), noise)
            connection.send_packet(90, noise)
            connection.abort()
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        writer.write(b"on")
        assert await asyncio.wait_for(reader.readexactly(2), 10) == b"on"
