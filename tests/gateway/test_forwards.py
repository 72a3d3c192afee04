"""Forwards through a session: stock OpenSSH, the gateway, a real sshd, a destination.

R19, R20, R22, R23, R26, R27.
"""

import asyncio
import datetime as dt
import secrets
import socket
from contextlib import suppress

import asyncssh
import pytest

from apps.access import operations as access
from apps.gateway.forward_relay import FORWARD_LIMIT, FORWARD_WINDOW
from apps.gateway.forwarding import addresses_of
from apps.gateway.server import REFUSALS
from apps.gateway.session_context import ChannelRefusedError
from apps.inventory import operations as inventory
from apps.inventory.models import Conduit
from apps.inventory.services import ForwardDestination
from apps.recordings.frames import EventKind, decode_close, decode_open
from apps.sessions.models import Channel
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.forwards import (
    HOST,
    connected,
    destination,
    echo,
    grant_forwards,
    local_port,
    talk_to,
    through_socks,
    tunnel,
)
from tests.gateway.test_refusals import refused_kinds
from tests.gateway.test_sessions import (
    ended_session,
    joined,
    recorded,
    seconds_late,
)
from tests.servers import sshd
from tests.targets import Target


@pytest.fixture
def target(tmp_path, sshd_binary):
    with sshd.running(tmp_path / "sshd", sshd_binary) as running:
        yield Target(
            port=running.port,
            host_key=running.host_key,
            login=running.login,
            client_key=sshd.private_key(running),
        )


def the_session(client):
    [session] = client.service.core.live.values()
    return session


async def closed_channels(client, count=1):
    def look():
        rows = list(Channel.objects.exclude(closed_at=None).order_by("number"))
        return rows if len(rows) >= count else None

    return await until(lambda: client.ask(look))


async def everybody_left(client):
    async def look():
        return not client.service.core.live and not client.service._door.connections

    return await until(look)


async def test_a_forward_carries_both_directions_and_is_recorded(client, ssh_binary):
    """R22, R23: bytes, their number, and where they came from."""
    sent = secrets.token_bytes(3 << 20)
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        port = local_port()
        async with tunnel(client, "-N", "-L", f"{port}:{there.text}"):
            assert await talk_to(port, sent) == sent
            [row] = await closed_channels(client)
    assert (row.kind, row.bytes_in, row.bytes_out) == ("forward", len(sent), len(sent))
    assert row.command.startswith(f"{there.text} from 127.0.0.1 port ")
    events = await client.ask(recorded, await ended_session(client))
    opened, closed = events[0], events[-1]
    assert decode_open(opened.data).kind == "forward"
    assert decode_open(opened.data).command == row.command
    assert decode_close(closed.data).bytes_in == len(sent)
    assert decode_close(closed.data).bytes_out == len(sent)
    assert joined(events, EventKind.FORWARD_INPUT) == sent
    assert joined(events, EventKind.FORWARD_OUTPUT) == sent
    assert {event.channel for event in events} == {row.number}


async def test_what_is_too_large_to_keep_is_counted_only(client):
    """The switch of a conduit: opening, end and number of bytes are recorded always."""

    def omit(there):
        grant_forwards(client.here, there.service)
        conduit = Conduit.objects.get(pk=client.here.plant.conduit.pk)
        inventory.change_conduit(
            conduit_id=conduit.pk,
            services=conduit.services,
            omits_forward_bytes=True,
            by=factories.SET_UP,
            now=factories.clock(),
        )

    async with destination(echo) as there:
        await client.ask(omit, there)
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        writer.write(b"large")
        assert await reader.readexactly(5) == b"large"
        writer.close()
        [row] = await closed_channels(client)
        connection.close()
    assert (row.bytes_in, row.bytes_out) == (5, 5)
    events = await client.ask(recorded, await ended_session(client))
    assert [event.kind for event in events] == [EventKind.OPEN, EventKind.CLOSE]
    assert decode_close(events[-1].data).bytes_in == 5


async def test_a_session_without_any_shell_lives_until_its_deadline(client, ssh_binary):
    """`ssh -N -L` asks for no channel at all; its time ends all the same."""

    def brief(there):
        grant = grant_forwards(client.here, there.service)
        grant.ends_at = factories.clock() + dt.timedelta(seconds=4)
        grant.save(update_fields=["ends_at"])

    async with destination(echo) as there:
        await client.ask(brief, there)
        port = local_port()
        async with (
            tunnel(client, "-N", "-L", f"{port}:{there.text}") as ssh,
            connected(port) as (reader, writer),
        ):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            assert await ssh.ended() == 255
            assert b"Sluice: the time is up" in ssh.said
            assert await reader.read() == b""
            await asyncio.wait_for(there.over.wait(), 5)
    session = await ended_session(client)
    assert session.end_reason == "expired"
    assert -0.05 < seconds_late(session) < 2


async def test_a_revocation_ends_a_forward_at_once(client, ssh_binary):
    async with destination(echo) as there:
        grant = await client.ask(grant_forwards, client.here, there.service)
        port = local_port()
        async with (
            tunnel(client, "-N", "-L", f"{port}:{there.text}") as ssh,
            connected(port) as (reader, writer),
        ):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            await client.ask(
                access.revoke_grant,
                grant_id=grant.pk,
                by=client.here.plant.approver,
                reason="shift ends",
                now=factories.clock(),
            )
            assert await reader.read() == b""
            assert await ssh.ended() == 255
            await asyncio.wait_for(there.over.wait(), 5)
    assert (await ended_session(client)).end_reason == "revoked"


async def test_w_joins_standard_input_and_output(client, ssh_binary):
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        result = await client.run_openssh(given=b"through", options=["-W", there.text])
        assert (result.returncode, result.stdout) == (0, b"through")
    assert bytes(there.received) == b"through"


async def test_d_lets_each_destination_through_that_is_named(client, ssh_binary):
    """A SOCKS client: the name and the address are different destinations (R26)."""
    async with destination(echo) as there, destination(echo) as other:
        await client.ask(
            grant_forwards,
            client.here,
            there.service,
            f"forward:localhost:{there.port}",
        )
        port = local_port()
        async with tunnel(client, "-N", "-D", str(port)) as ssh:
            for host in (HOST, "LocalHost."):
                async with through_socks(port, host, there.port) as (reader, writer):
                    writer.write(b"x")
                    assert await reader.readexactly(1) == b"x"
            for host, to in ((HOST, other.port), ("no-such.example", there.port)):
                async with through_socks(port, host, to) as (reader, writer):
                    assert await reader.read() == b""
            await ssh.has_said(b"the grant does not include a forward to no-such")
            # The connection lives on.
            async with through_socks(port, HOST, there.port) as (reader, writer):
                writer.write(b"y")
                assert await reader.readexactly(1) == b"y"
    assert other.connections == 0
    assert await refused_kinds(client, 2) == ["direct-tcpip"] * 2


async def test_forwards_beside_a_shell_on_a_shared_connection(
    client, ssh_binary, tmp_path
):
    shared = ["-oControlMaster=auto", f"-oControlPath={tmp_path / 'mux'}"]
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service, "shell", "exec")
        async with tunnel(client, "-N", "-M", *shared[1:]):
            port = local_port()
            added = await client.run_openssh(
                options=[*shared, "-O", "forward", "-L", f"{port}:{there.text}"]
            )
            assert added.returncode == 0, added.stderr
            assert await talk_to(port, b"mux") == b"mux"
            ran = await client.run_openssh("echo beside", options=shared)
            assert ran.stdout == b"beside\n"
    rows = await closed_channels(client, 2)
    assert sorted(row.kind for row in rows) == ["exec", "forward"]


async def test_a_server_that_speaks_first_is_heard(client):
    async def greet(_, reader, writer):
        writer.write(b"220 ready\r\n")
        await reader.read()

    async with destination(greet) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        assert await asyncio.wait_for(reader.readline(), 10) == b"220 ready\r\n"
        writer.close()


@pytest.mark.parametrize("ends_first", ["client", "server"])
async def test_half_of_a_forward_may_end_before_the_other(client, ends_first):
    async def talk(here, reader, writer):
        if ends_first == "server":
            writer.write(b"all said")
            writer.write_eof()
        while data := await reader.read(1 << 16):
            here.received += data
        if ends_first == "client":
            writer.write(b"after your end")
        writer.close()

    async with destination(talk) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        async with asyncio.timeout(10):
            if ends_first == "server":
                assert await reader.read() == b"all said"
                writer.write(b"still heard")
                writer.write_eof()
                await there.over.wait()
                assert bytes(there.received) == b"still heard"
            else:
                writer.write_eof()
                assert await reader.read() == b"after your end"
            await writer.wait_closed()
    await closed_channels(client)


async def test_many_forwards_up_to_the_limit(client):
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()

        async def open_one():
            return await connection.open_connection(HOST, there.port, encoding=None)

        streams = await asyncio.gather(*(open_one() for _ in range(FORWARD_LIMIT)))
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await open_one()
        assert f"at most {FORWARD_LIMIT} forwards" in refusal.value.reason
        for number, (_, writer) in enumerate(streams):
            writer.write(b"%03d" % number)
        for number, (reader, _) in enumerate(streams):
            assert await reader.readexactly(3) == b"%03d" % number
        streams[0][1].close()
        await closed_channels(client)
        reader, writer = await open_one()
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"


async def test_a_destination_that_is_closed_is_told_and_the_rest_goes_on(client):
    async with destination(echo) as there:
        closed = local_port()
        await client.ask(
            grant_forwards, client.here, there.service, f"forward:{HOST}:{closed}"
        )
        connection = await client.connect()
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await connection.open_connection(HOST, closed)
        assert refusal.value.code == asyncssh.OPEN_CONNECT_FAILED
        assert refusal.value.reason.startswith("Sluice: the asset refused the forward")
        reader, writer = await connection.open_connection(HOST, there.port)
        writer.write(b"on")
        assert await reader.readexactly(2) == b"on"


async def test_a_freeze_holds_both_directions_and_loses_nothing(client):
    """By flow control: nobody's buffer grows meanwhile (R20)."""
    size = 12 << 20
    down, up = secrets.token_bytes(size), secrets.token_bytes(size)

    async def both(here, reader, writer):
        async def send():
            writer.write(down)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        while data := await reader.read(1 << 16):
            here.received += data
        await sending

    async with destination(both) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        async with asyncio.timeout(60):
            got = await reader.readexactly(1 << 16)
            [relay] = the_session(client).relays.values()
            relay.freeze()
            writer.write(up)
            writer.write_eof()
            # What was under way arrives, then nothing moves any more.
            held = await stands_still(relay, there)
            buffered = [
                sum(len(data) for data, _ in channel._recv_buf)
                for channel in (relay._front, relay._back)
            ]
            assert max(buffered) <= FORWARD_WINDOW
            assert held[0] < size
            relay.unfreeze()
            got += await reader.read()
            await there.over.wait()
        assert got == down
        assert bytes(there.received) == up


async def stands_still(relay, there):
    """Return what had passed when nothing passed for half a second."""
    last = None
    while True:
        seen = (len(there.received), relay._bytes_in, relay._bytes_out)
        if seen == last:
            return seen
        last = seen
        await asyncio.sleep(0.5)


async def test_a_client_that_does_not_read_holds_the_sender_back(client):
    """R20: memory stays bounded by the windows."""

    async def flood(here, _, writer):
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            here.received += b"x"

    async with destination(flood) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, _ = await connection.open_connection(
            HOST, there.port, encoding=None, window=1 << 18
        )
        await reader.readexactly(1)
        reader.channel.pause_reading()
        [relay] = the_session(client).relays.values()
        await stands_still(relay, there)
        assert relay._bytes_out < 8 << 20
        assert relay._front._send_buf_len < 4 << 20


async def test_r23_a_forward_that_cannot_be_recorded_ends_the_session(client):
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, writer = await connection.open_connection(
            HOST, there.port, encoding=None
        )
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        the_session(client).recorder.fail(OSError("no space left"))
        with suppress(OSError, asyncssh.Error):
            writer.write(b"unrecorded")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert (await ended_session(client)).end_reason == "recording_failed"
    assert bytes(there.received) == b"a"


async def test_refused_forwards_are_not_written_down_without_end(client):
    """R22: nor does a browser behind `-D` lose its connection by them."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    assert (await connection.run("echo on")).stdout == "on\n"
    for port in range(1, REFUSALS + 20):
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("192.0.2.9", port)
    assert len(await refused_kinds(client, REFUSALS)) == REFUSALS
    assert (await connection.run("echo on")).stdout == "on\n"


class TestNames:
    """R26: a name is resolved by the gateway, and the asset gets the address."""

    @pytest.fixture
    def answers(self, monkeypatch):
        """What each name resolves to; others are unknown."""
        answers = {}
        asked = []
        genuine = socket.getaddrinfo

        def resolve(host, port, *numbers, **options):
            if not str(host).endswith(".plant"):
                return genuine(host, port, *numbers, **options)
            asked.append(host)
            if host not in answers:
                raise OSError("unknown name")
            return [(2, 1, 6, "", (address, port)) for address in answers[host]]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        answers["asked"] = asked
        return answers

    async def test_the_asset_is_asked_for_the_address_that_was_judged(
        self, client, answers
    ):
        """The asset could not even resolve the name."""
        answers["historian.plant"] = [HOST]
        async with destination(echo) as there:
            await client.ask(
                grant_forwards, client.here, f"forward:historian.plant:{there.port}"
            )
            connection = await client.connect()
            reader, writer = await connection.open_connection(
                "Historian.Plant", there.port
            )
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"

    async def test_each_address_is_tried(self, client, answers):
        answers["historian.plant"] = ["127.0.0.2", HOST]
        async with destination(echo) as there:
            await client.ask(
                grant_forwards, client.here, f"forward:historian.plant:{there.port}"
            )
            connection = await client.connect()
            reader, writer = await connection.open_connection(
                "historian.plant", there.port
            )
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"

    async def test_an_unknown_name_is_told(self, client, answers):
        await client.ask(grant_forwards, client.here, "forward:gone.plant:502")
        connection = await client.connect()
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await connection.open_connection("gone.plant", 502)
        assert refusal.value.reason == (
            "Sluice: the gateway cannot resolve the name gone.plant"
        )

    async def test_a_name_that_is_not_granted_is_not_looked_up(self, client, answers):
        await client.ask(grant_forwards, client.here, "forward:a.plant:502")
        connection = await client.connect()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("my-secret.plant", 502)
        assert answers["asked"] == []

    async def test_one_forbidden_address_forbids_the_name(self, answers):
        """Also when the others are fine: the asset would choose."""
        there = ForwardDestination("rebound.plant", 80)
        for bad in ("127.0.0.1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1"):
            answers["rebound.plant"] = ["192.0.2.4", bad]
            with pytest.raises(ChannelRefusedError) as refusal:
                await addresses_of(there, allow_local=False)
            assert "which cannot be a destination" in str(refusal.value)
        answers["rebound.plant"] = ["192.0.2.4"]
        found = await addresses_of(there, allow_local=False)
        assert found == ("192.0.2.4",)
