"""What the gateway never does, whoever asks (R19, R25, R27, R34, R35, R37, R38)."""

import asyncio
import json
import struct
from contextlib import suppress

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway import algorithms
from apps.gateway.server import REFUSALS
from tests.gateway.conftest import until


async def refused_kinds(client, count):
    def look():
        events = AuditEvent.objects.filter(kind=Kind.CHANNEL_REFUSED)
        found = sorted(json.loads(event.data)["kind"] for event in events)
        return found if len(found) >= count else None

    return await until(lambda: client.ask(look))


YES, NO = b"\x01", b"\x00"

CHANNEL_KINDS = {
    "direct-tcpip": String("127.0.0.1") + UInt32(22) + String("127.0.0.1") + UInt32(1),
    "direct-streamlocal@openssh.com": String("/etc/passwd") + String("") + UInt32(0),
    "forwarded-tcpip": String("x") + UInt32(1) + String("y") + UInt32(2),
    "forwarded-streamlocal@openssh.com": String("/x") + String(""),
    "x11": String("127.0.0.1") + UInt32(6000),
    "auth-agent@openssh.com": b"",
    "tun@openssh.com": UInt32(1) + UInt32(0),
    "no-such-kind@example.org": b"",
}


async def test_every_other_channel_kind_is_refused_and_written_down(client):
    """R19, R27: also with an active session; nothing reaches the asset for it.

    A forward is one kind that a grant can name; this one does not.
    """
    await client.ask(client.here.grant)
    connection = await client.connect()
    assert (await connection.run("stdout x")).stdout == "x\n"
    before = client.here.target.connections
    for kind, payload in CHANNEL_KINDS.items():
        channel = asyncssh.channel.SSHTCPChannel(
            connection, asyncio.get_running_loop(), None, "strict", 1 << 16, 1 << 15
        )
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await channel._open(kind.encode(), payload)
        assert refusal.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        reason = f"{kind} channels are not allowed here"
        if kind == "direct-tcpip":
            reason = "the grant does not include a forward to 127.0.0.1:22"
        assert refusal.value.reason == f"Sluice: {reason}"
    assert await refused_kinds(client, 8) == sorted(CHANNEL_KINDS)
    assert client.here.target.connections == before
    assert (await connection.run("stdout y")).stdout == "y\n"


async def test_listening_for_others_is_refused(client):
    """R27: no forwarded port, no socket; cancelling another's is an error, too."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    with pytest.raises(asyncssh.ChannelListenError):
        await connection.forward_remote_port("", 0, "127.0.0.1", 1)
    with pytest.raises(asyncssh.ChannelListenError):
        await connection.forward_remote_path("/x", "/y")
    assert await refused_kinds(client, 2) == ["streamlocal-forward", "tcpip-forward"]
    assert (await connection.run("stdout y")).stdout == "y\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-W", "127.0.0.1:22"],
            b"does not include a forward to 127.0.0.1:22",
        ),
        (["-s", "sftp"], b"Sluice: the grant does not include sftp"),
        (["-s", "no-such-subsystem"], b"Sluice: no-such-subsystem is not available"),
    ],
)
async def test_r25_stock_ssh_is_told_in_one_line(client, ssh_binary, arguments, said):
    """R25: no subsystem and no forward of the gateway's own."""
    await client.ask(client.here.grant)
    options, command = arguments[:-1], arguments[-1:]
    if arguments[0] == "-W":
        options, command = arguments, []
    result = await client.run_openssh(*command, options=options)
    assert result.returncode == 255
    assert said in result.stderr


async def test_r25_sftp_and_scp_get_nothing(client):
    """R25: the file programs of OpenSSH end with an error and no file."""
    await client.ask(client.here.grant)
    for program, tail in (("sftp", []), ("scp", ["loot"])):
        arguments = ["-b", "-"] if program == "sftp" else []
        line, environment = client.openssh(program=program, options=arguments)
        if program == "scp":
            line[-1] += ":/etc/passwd"
        process = await asyncio.create_subprocess_exec(
            *line,
            *tail,
            cwd=client.directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        out, err = await asyncio.wait_for(process.communicate(b"get /etc/passwd\n"), 20)
        assert process.returncode != 0
        assert b"root:" not in out + err
        assert b"the grant does not include sftp" in err
    assert not (client.directory / "loot").exists()


async def test_agent_and_x11_requests_are_refused(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
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
    assert not await channel._make_request(b"auth-agent-req@openssh.com")
    assert not await channel._make_request(
        b"x11-req", NO, String("M"), String(b"00" * 16), UInt32(0)
    )
    assert not await channel._make_request(b"no-such-request")
    channel.close()
    assert await refused_kinds(client, 2) == ["agent", "x11"]


async def test_a_session_cannot_be_started_twice(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process("cat")
    assert not await process.channel._make_request(b"exec", String("stdout twice"))
    assert not await process.channel._make_request(b"shell")
    process.stdin.write_eof()
    await process.wait()
    assert client.here.target.sessions == 1


async def test_r19_a_grant_without_the_service_is_not_enough(client):
    """R19: `exec` on a grant for `shell` only is refused before the asset sees it."""

    def only_shell():
        grant = client.here.grant()
        grant.services = ["shell"]
        grant.save(update_fields=["services"])

    await client.ask(only_shell)
    connection = await client.connect()
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.run("stdout x")
    assert client.here.target.sessions == 0
    process = await connection.create_process(term_type="vt100")
    process.stdin.write_eof()
    await process.wait()
    assert client.here.target.sessions == 1


class Raw:
    """Speaks to the gateway in plain bytes up to the key exchange."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def version(self, line=b"SSH-2.0-test\r\n"):
        self.writer.write(line)
        return await self.reader.readline()

    async def packet(self):
        length, padding = struct.unpack(">IB", await self.reader.readexactly(5))
        payload = await self.reader.readexactly(length - 1)
        return payload[: length - 1 - padding]

    def send(self, payload):
        padding = 8 - (len(payload) + 5) % 8
        padding += 8 if padding < 4 else 0
        self.writer.write(
            struct.pack(">IB", len(payload) + padding + 1, padding)
            + payload
            + bytes(padding)
        )

    async def rest(self):
        self.writer.write_eof()
        return await asyncio.wait_for(self.reader.read(), 15)

    def close(self):
        self.writer.close()


def name_lists(kexinit):
    lists, offset = [], 17
    for _ in range(10):
        (length,) = struct.unpack_from(">I", kexinit, offset)
        text = kexinit[offset + 4 : offset + 4 + length].decode()
        lists.append(text.split(",") if text else [])
        offset += 4 + length
    return lists


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", algorithms.GCM),
        (b"SSH-2.0-dropbear_2022.83\r\n", algorithms.CHACHA),
    ],
)
async def test_r38_the_lists_are_exactly_these(client, version, ciphers):
    """R38, R34: literal comparison with what is on the wire."""
    raw = await Raw.open(client.port)
    banner = await raw.version(version)
    assert banner == b"SSH-2.0-Sluice\r\n"
    lists = name_lists(await raw.packet())
    raw.close()
    extra = ["ext-info-s", "kex-strict-s-v00@openssh.com"]
    assert lists[0] == [*algorithms.KEX, *extra]
    assert lists[1] == ["ssh-ed25519"]
    assert lists[2] == lists[3] == list(ciphers)
    assert lists[4] == lists[5] == list(algorithms.MACS)
    assert lists[6] == lists[7] == ["none"]


async def test_r34_a_client_without_strict_key_exchange_is_refused(client, monkeypatch):
    """R34: the Terrapin countermeasure is required, not only offered."""
    monkeypatch.setattr(
        asyncssh.connection.SSHConnection,
        "_get_extra_kex_algs",
        lambda self: [b"ext-info-c"] if self.is_client() else [b"ext-info-s"],
    )
    with pytest.raises((asyncssh.KeyExchangeFailed, asyncssh.DisconnectError)) as error:
        await client.connect()
    assert "strict key exchange" in str(error.value)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x5a" + String("session") + UInt32(0) + UInt32(1 << 20) + UInt32(1 << 15),
        b"\x50" + String("tcpip-forward") + YES + String("") + UInt32(0),
        b"\x5e" + UInt32(0) + String(b"data"),
        b"\x34",
        b"\x32" + String("a@b") + String("ssh-connection") + String("none"),
    ],
    ids=["channel-open", "global-request", "data", "success", "userauth"],
)
async def test_r35_nothing_but_key_exchange_before_the_keys(client, payload):
    """R35: such a packet disconnects and nothing comes of it."""
    raw = await Raw.open(client.port)
    await raw.version()
    await raw.packet()
    raw.send(payload)
    left = await raw.rest()
    raw.close()
    assert b"ssh-connection" not in left
    assert len(left) < 200


@pytest.mark.parametrize("message", [80, 90, 94, 98])
async def test_r35_nothing_but_sign_in_before_the_success(client, message):
    """R35: channel and request messages before USERAUTH_SUCCESS disconnect."""
    bodies = {
        80: String("keepalive@openssh.com") + YES,
        90: String("session") + UInt32(0) + UInt32(1 << 20) + UInt32(1 << 15),
        94: UInt32(0) + String(b"data"),
        98: UInt32(0) + String("shell") + YES,
    }

    class Eager(asyncssh.SSHClient):
        def connection_made(self, conn):
            self.connection = conn

        def public_key_auth_requested(self):
            self.connection._auth_complete = True
            self.connection.send_packet(message, bodies[message])
            self.connection._auth_complete = False

    with pytest.raises((asyncssh.Error, OSError)):
        await asyncssh.connect(
            "127.0.0.1",
            client.port,
            username=client.here.address,
            client_factory=Eager,
            client_keys=None,
            known_hosts=client.known_hosts,
            agent_path=None,
            config=None,
        )
    assert client.here.target.connections == 0


@pytest.mark.parametrize("window", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("packet", [0, 1, 0xFFFFFFFF])
async def test_r37_odd_channel_parameters_are_survived(client, window, packet):
    """R37: packet size 0 and extreme windows; the gateway goes on for others."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    channel = asyncssh.channel.SSHClientChannel(
        connection,
        asyncio.get_running_loop(),
        "strict",
        None,
        "strict",
        window,
        packet,
    )
    try:
        async with asyncio.timeout(3):
            await channel._open(b"session")
            channel._session = asyncssh.SSHClientSession()
            await channel._make_request(b"exec", String("stdout hello"))
    except (asyncssh.Error, OSError):
        assert packet == 0
    connection.abort()
    again = await client.connect()
    assert (await again.run("stdout on")).stdout == "on\n"


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"SSH-1.5-old\r\n", b"\xff" * 300],
)
async def test_garbage_instead_of_a_version_is_dropped(client, garbage):
    raw = await Raw.open(client.port)
    raw.writer.write(garbage)
    await raw.rest()
    raw.close()
    await client.ask(client.here.grant)
    connection = await client.connect()
    assert (await connection.run("stdout on")).stdout == "on\n"


async def test_asking_for_refused_things_without_end_is_cut(client):
    """The ledger is not a place to fill from outside."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    for _ in range(500):
        if connection.is_closed():
            break
        with suppress(asyncssh.Error, asyncssh.ChannelListenError, OSError):
            await connection.forward_remote_port("", 0, "127.0.0.1", 1)
    assert connection.is_closed()
    assert len(await refused_kinds(client, 1)) <= REFUSALS
