"""Every kind of channel against every gate, from the table of the code.

Each test fails one gate only: the channel is refused or ended, that is written down,
and no byte reaches the asset, which is a strict recorder. WATCH, the gate of four-eyes
sessions, has no column, as the product has no such sessions (docs/limits.md).
"""

import asyncio
import datetime as dt
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncssh
import pytest
from asyncssh.packet import String, UInt32
from django.db import connection as database

from apps.access import operations as access
from apps.audit.kinds import Kind
from apps.gateway.channel_kinds import KINDS, OPENABLE_TYPES, Gate
from apps.inventory import operations as inventory
from apps.inventory.models import HostKey
from apps.inventory.services import Service
from apps.sessions import controls
from apps.sessions.lifecycle import EndReason
from apps.sessions.models import Channel
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.forwards import grant_forwards
from tests.gateway.recording_asset import SFTP_VERSION_FRAME, recording_asset
from tests.gateway.test_jumps import inner
from tests.gateway.test_refusals import CHANNEL_KINDS, NO, refused_kinds
from tests.gateway.test_sessions import ended_session, kinds

DESTINATION = ("192.0.2.17", 502)
EVERYTHING = (*Service, f"forward:{DESTINATION[0]}:{DESTINATION[1]}")

SFTP_INIT = b"\x00\x00\x00\x05\x01\x00\x00\x00\x03"
SFTP_STAT = b"\x00\x00\x00\x0a\x11\x00\x00\x00\x01\x00\x00\x00\x01/"

ALLOWED = [kind for kind in KINDS if not kind.refused]
REFUSED = [kind for kind in KINDS if kind.refused]


@dataclass(frozen=True)
class Way:
    """How a test asks for one kind, and what of it reaches the asset."""

    services: tuple[str, ...]
    """What a grant must hold; the tests of RIGHT hold everything else."""
    asked: str
    first: bytes = b"ping"
    answer: bytes = b"ping"
    more: bytes = bytes(1 << 16)
    """What fills the way to an asset that reads nothing."""


WAYS = {
    "shell": Way(("shell",), "shell"),
    "exec": Way(("exec",), "exec do it"),
    "scp": Way(("exec",), "exec scp -t /tmp/x"),
    "sftp": Way(
        tuple(one for one in Service if one.startswith("sftp-")),
        "subsystem sftp",
        first=SFTP_INIT,
        answer=SFTP_VERSION_FRAME,
        more=SFTP_STAT * 4000,
    ),
    "forward": Way((EVERYTHING[-1],), f"forward {DESTINATION[0]} {DESTINATION[1]}"),
    "jump": Way(("exec",), "exec do it"),
}


@pytest.fixture
def target_context():
    return recording_asset()


@pytest.fixture(params=ALLOWED, ids=lambda kind: kind.name)
def kind(request):
    return request.param.name


async def connected(client, kind, **options):
    """A connection for this kind that has signed in; of a jump, the outer one."""
    user_string = None
    if kind == "jump":
        user_string = client.here.engineer.user.username
    return await client.connect(user_string, **options)


async def opened(client, connection, kind):
    """Open one; return reader and writer."""
    if kind == "forward":
        return await connection.open_connection(*DESTINATION, encoding=None)
    if kind == "jump":
        connection = await inner(client, connection)
    process = await connection.create_process(
        {"scp": "scp -t /tmp/x", "exec": "do it", "jump": "do it"}.get(kind),
        subsystem="sftp" if kind == "sftp" else None,
        term_type="vt100" if kind == "shell" else None,
        encoding=None,
    )
    return process.stdout, process.stdin


async def used(client, connection, kind):
    """Open one and have it carry something both ways."""
    reader, writer = await opened(client, connection, kind)
    writer.write(WAYS[kind].first)
    async with asyncio.timeout(10):
        got = await reader.readexactly(len(WAYS[kind].answer))
    assert got == WAYS[kind].answer
    return reader, writer


async def assert_refused(client, kind, connect=connected):
    """Nothing opens, and nothing of it reaches the asset."""
    before = list(client.here.target.asked), bytes(client.here.target.received)

    async def attempt():
        await used(client, await connect(client, kind), kind)

    with pytest.raises((asyncssh.Error, OSError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(20):
            await attempt()
    seen = list(client.here.target.asked), bytes(client.here.target.received)
    assert seen == before


def grant_all(here, **options):
    return grant_forwards(here, *EVERYTHING, **options)


async def count_of(client, event):
    return (await client.ask(kinds)).count(event)


# The table itself.


def test_every_kind_of_the_table_has_a_test():
    assert {kind.name for kind in ALLOWED} == WAYS.keys()
    types = {name for kind in KINDS for name in kind.channel_types}
    assert types - OPENABLE_TYPES <= CHANNEL_KINDS.keys()
    assert {"session", "direct-tcpip"} == OPENABLE_TYPES
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_every_gate_has_a_test_for_each_kind_that_may_open():
    assert {kind.gates for kind in ALLOWED} == {frozenset(Gate)}
    named = {
        name.removeprefix("test_").partition("_")[0]
        for name in globals()
        if name.startswith("test_")
    }
    assert {gate.value for gate in Gate} <= named


def test_a_service_of_a_conduit_is_the_right_of_some_kind():
    named = {service for way in WAYS.values() for service in way.services}
    assert named >= set(Service)


# The kinds that may open, one gate at a time.


async def test_all_gates_pass(client, kind):
    """It opens, is recorded, and leaves its rows (R22)."""
    await client.ask(grant_forwards, client.here, *WAYS[kind].services)
    connection = await connected(client, kind)
    _, writer = await used(client, connection, kind)
    assert client.here.target.asked == [WAYS[kind].asked]
    assert bytes(client.here.target.received) == WAYS[kind].first
    writer.close()
    connection.close()
    session = await ended_session(client)
    row = await client.ask(lambda: Channel.objects.get(session=session))
    assert row.closed_at is not None
    assert row.bytes_in == len(WAYS[kind].first)
    for event in (Kind.CHANNEL_OPENED, Kind.CHANNEL_CLOSED, Kind.CONNECTION_ALLOWED):
        assert await count_of(client, event) == 1


async def test_auth_is_complete_before_anything_opens(client, kind):
    """R35: the message that opens it comes before the success of the sign-in."""
    await client.ask(grant_all, client.here)
    word = "direct-tcpip" if kind in {"forward", "jump"} else "session"
    tail = b""
    if word == "direct-tcpip":
        host = DESTINATION[0] if kind == "forward" else client.here.asset.name
        tail = String(host) + UInt32(DESTINATION[1]) + String("x") + UInt32(1)
    await assert_dropped_before_success(
        client, 90, String(word) + UInt32(0) + UInt32(1 << 20) + UInt32(1 << 15) + tail
    )


async def assert_dropped_before_success(client, message, body):
    class Eager(asyncssh.SSHClient):
        def connection_made(self, conn):
            self.connection = conn

        def public_key_auth_requested(self):
            self.connection._auth_complete = True
            self.connection.send_packet(message, body)
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

    async def written():
        return await count_of(client, Kind.SIGN_IN_REFUSED) == 1

    await until(written)


@pytest.mark.parametrize("state", ["opening", "frozen", "ending"])
async def test_active_is_the_only_state_that_lets_one_open(client, kind, state):
    """R19: before the session is active, and when it no longer is."""
    await client.ask(grant_all, client.here)
    target = client.here.target
    if state == "opening":
        target.admits.clear()
        asking = asyncio.ensure_future(assert_refused(client, kind))

        async def reached():
            return target.connections

        await until(reached)
        assert target.untouched
        # Nothing opens although all is granted; then the gateway's patience ends.
        await asking
        return
    connection = await connected(client, kind)
    if kind == "jump":
        connection = await inner(client, connection)
    await until(lambda: asyncio.sleep(0, bool(client.service.core.live)))
    [live] = client.service.core.live.values()
    if state == "frozen":
        live.hold("held for the test")
    else:
        live._drain(EndReason.EXPIRED, "the time is up", 60)

    async def the_same(*_):
        return connection

    await assert_refused(client, "exec" if kind == "jump" else kind, the_same)
    assert target.untouched
    await refused_kinds(client, 1)


async def test_mfa_lets_nobody_in_with_a_wrong_code(client, kind):
    """R4, R28: the same for each kind."""
    await client.ask(grant_all, client.here)

    async def without_code(client, kind):
        return await connected(client, kind, code="000000")

    await assert_refused(client, kind, without_code)
    assert client.here.target.connections == 0

    async def written():
        return await count_of(client, Kind.SIGN_IN_REFUSED)

    await until(written)


async def test_grant_of_the_person_itself_is_needed(client, kind):
    """R2: another person's does not count; the decision is written down."""
    await client.ask(grant_all, client.here, person=client.here.plant.second_engineer)
    await assert_refused(client, kind)
    assert client.here.target.connections == 0
    assert await count_of(client, Kind.CONNECTION_DENIED) >= 1


async def test_right_to_the_kind_is_needed(client, kind):
    """R27: everything else is granted."""
    others = set(EVERYTHING) - set(WAYS[kind].services)
    if kind == "forward":
        # Another port of the same host is another destination.
        others.add(f"forward:{DESTINATION[0]}:{DESTINATION[1] + 1}")
    await client.ask(grant_forwards, client.here, *others)
    await assert_refused(client, kind)
    assert client.here.target.untouched
    await refused_kinds(client, 1)


async def test_pin_of_another_key_stops_before_the_credential(client, kind):
    """R10, R16, R39: the asset shows a key that is not the pinned one."""
    await client.ask(grant_all, client.here)

    def pin_another():
        plant, asset = client.here.plant, client.here.asset
        for key in HostKey.objects.filter(asset=asset):
            inventory.remove_host_key(
                key_id=key.pk, by=factories.SET_UP, now=factories.clock()
            )
        factories.pin(asset, plant.administrator, plant.second_administrator)

    await client.ask(pin_another)
    await assert_refused(client, kind)
    assert client.here.target.sign_ins == 0
    session = await ended_session(client)
    assert session.end_detail.startswith("host_key_changed")


async def test_rec_that_cannot_begin_lets_nothing_begin(client, kind, settings):
    """R23: the asset is not even dialled."""
    await client.ask(grant_all, client.here)
    blocker = client.directory / "a-file"
    blocker.touch()
    settings.RECORDINGS_DIR = blocker
    await assert_refused(client, kind)
    assert client.here.target.connections == 0


async def test_rec_that_fails_ends_what_is_open(client, kind):
    """R23: what comes after the failure does not arrive."""
    await client.ask(grant_all, client.here)
    connection = await connected(client, kind)
    reader, writer = await used(client, connection, kind)
    [live] = client.service.core.live.values()
    before = bytes(client.here.target.received)
    live.recorder.fail(OSError(28, "No space left on device"))
    with suppress(OSError, asyncssh.Error):
        writer.write(WAYS[kind].first)
    await assert_ends(reader)
    assert (await ended_session(client)).end_reason == "recording_failed"
    assert bytes(client.here.target.received) == before


async def assert_ends(reader):
    with suppress(asyncssh.Error, OSError):
        async with asyncio.timeout(10):
            while await reader.read(1 << 16):
                pass


@pytest.mark.parametrize("how", ["revoked", "expired", "terminated"])
async def test_cut_reaches_the_open_and_refuses_the_new(client, kind, how):
    def begin():
        grant = grant_all(client.here)
        if how == "expired":
            grant.ends_at = factories.clock() + dt.timedelta(seconds=3)
            grant.save(update_fields=["ends_at"])
        return grant

    grant = await client.ask(begin)
    connection = await connected(client, kind)
    reader, _ = await used(client, connection, kind)
    plant = client.here.plant
    if how == "revoked":
        await client.ask(
            access.revoke_grant,
            grant_id=grant.pk,
            by=plant.approver,
            reason="shift ends",
            now=factories.clock(),
        )
    elif how == "terminated":
        [live] = client.service.core.live.values()
        await client.ask(
            controls.ask_terminate,
            session_id=live.session_id,
            by=plant.approver,
            reason="not now",
            now=factories.clock(),
        )
    await assert_ends(reader)
    session = await ended_session(client)
    assert session.end_reason == how

    async def the_asset_knows():
        return client.here.target.ended == 1

    await until(the_asset_knows)
    if kind != "jump":
        await asyncio.wait_for(connection.wait_closed(), 10)
    if how != "terminated":
        await assert_refused(client, kind)
        assert await count_of(client, Kind.CONNECTION_DENIED) >= 1


async def test_bound_to_an_asset_that_reads_nothing(client, kind):
    """R20: what is held for it stays below a few windows, however much is sent."""
    await client.ask(grant_all, client.here)
    connection = await connected(client, kind)
    client.here.target.deaf = True
    _, writer = await opened(client, connection, kind)
    [live] = client.service.core.live.values()
    [relay] = live.relays.values()
    writer.write(WAYS[kind].first)
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 << 20:
            writer.write(WAYS[kind].more)
            sent += len(WAYS[kind].more)
            async with asyncio.timeout(1):
                await writer.drain()
    assert sent < 64 << 20, "nothing held the sender back"
    assert relay._bytes_in < 8 << 20
    assert relay._back._send_buf_len < 4 << 20
    assert not client.here.target.received


async def test_bound_to_a_client_that_reads_nothing(client, kind):
    """R20: an asset that sends without end is held back, too."""
    if kind == "sftp":
        pytest.skip("only answers come from there; their number is bounded by requests")
    await client.ask(grant_all, client.here)
    connection = await connected(client, kind)
    reader, writer = await used(client, connection, kind)
    [live] = client.service.core.live.values()
    [relay] = live.relays.values()
    # The asset echoes, and nobody takes it here: the way back fills first.
    reader.channel.pause_reading()
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 << 20:
            writer.write(WAYS[kind].more)
            sent += len(WAYS[kind].more)
            async with asyncio.timeout(1):
                await writer.drain()
    held = sum(len(data) for data, _ in relay._back._recv_buf)
    assert held <= relay._back._init_recv_window
    assert relay._front._send_buf_len < 4 << 20


async def test_audit_that_cannot_be_written_opens_nothing(client, kind):
    """R22: the row and its event are one; without them the asset hears nothing."""
    await client.ask(grant_all, client.here)
    async with a_ledger_that_refuses(client, Kind.CHANNEL_OPENED):
        await assert_refused(client, kind)
    assert client.here.target.untouched
    assert not await client.ask(Channel.objects.exists)


@asynccontextmanager
async def a_ledger_that_refuses(client, event):
    """Have the database itself refuse one kind of event."""

    def run(*statements):
        with database.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    if await client.ask(lambda: database.vendor) != "sqlite":
        pytest.skip("the trigger is written for SQLite")
    await client.ask(
        run,
        "CREATE TRIGGER refuse_it BEFORE INSERT ON audit_auditevent "
        f"WHEN NEW.kind = '{event.value}' "
        "BEGIN SELECT RAISE(ABORT, 'refused for the test'); END",
    )
    try:
        yield
    finally:
        await client.ask(run, "DROP TRIGGER refuse_it")


# The kinds that nothing lets through.


def ways_to_ask(kind):
    """Yield (message, body) for each way a client may ask for a refused kind."""
    for word in kind.channel_types:
        head = String(word) + UInt32(0) + UInt32(1 << 20) + UInt32(1 << 15)
        yield 90, head + CHANNEL_KINDS[word]
    for word in kind.requests:
        if word.endswith("-forward") or word.startswith("streamlocal-forward"):
            yield 80, String(word) + b"\x01" + String("") + UInt32(0)
        else:
            yield 98, UInt32(0) + String(word) + b"\x01" + String("no-such")


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
async def test_auth_first_also_for_what_is_refused_later(client, kind):
    await client.ask(grant_all, client.here)
    message, body = next(iter(ways_to_ask(kind)))
    await assert_dropped_before_success(client, message, body)


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
async def test_refused_whatever_the_gates_say(client, kind):
    """All pass: it is refused with a message, written down, and goes nowhere."""
    await client.ask(grant_all, client.here)
    connection = await client.connect()
    await until(lambda: asyncio.sleep(0, bool(client.service.core.live)))
    for word in kind.channel_types:
        channel = asyncssh.channel.SSHTCPChannel(
            connection, asyncio.get_running_loop(), None, "strict", 1 << 16, 1 << 15
        )
        with pytest.raises(asyncssh.ChannelOpenError) as refusal:
            await channel._open(word.encode(), CHANNEL_KINDS[word])
        assert refusal.value.reason.startswith("Sluice: ")
    for word in kind.requests:
        assert not await ask_for(connection, word)
    asked = len(kind.channel_types) + len(kind.requests)
    assert len(await refused_kinds(client, asked)) == asked
    assert client.here.target.untouched


async def ask_for(connection, word):
    """Ask by a request; say whether it was granted."""
    if word == "tcpip-forward":
        body = String("") + UInt32(0)
    elif word.startswith("streamlocal-forward"):
        body = String("/no/such")
    else:
        channel = asyncssh.channel.SSHClientChannel(
            connection,
            asyncio.get_running_loop(),
            *("strict", None, "strict", 1 << 16, 1 << 15),
        )
        await channel._open(b"session")
        channel._session = asyncssh.SSHClientSession()
        tails = {
            "subsystem": [String("no-such")],
            "x11-req": [NO, String("M"), String(b"00" * 16), UInt32(0)],
        }
        granted = await channel._make_request(word.encode(), *tails.get(word, []))
        channel.close()
        return granted
    kind, _ = await connection._make_global_request(word.encode(), body)
    return kind == 81
