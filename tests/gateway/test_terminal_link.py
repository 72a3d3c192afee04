"""Browser terminals and watching, as the portal drives them."""

import asyncio
import os
import stat
from contextlib import asynccontextmanager

import pytest

from apps.access import operations as access
from apps.recordings.frames import EventKind
from apps.sessions import link_frames as link
from apps.sessions import tickets
from apps.sessions.link_frames import FrameType
from apps.sessions.models import Session
from tests import factories
from tests.gateway.test_notices import tell
from tests.gateway.test_sessions import ended_session, joined, recorded
from tests.targets import flooding_target


class Portal:
    """The portal's end of one stream."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.decoder = link.FrameDecoder()
        self.frames = []

    async def next(self, *kinds):
        """Return the next frame of these kinds; skip the others."""
        async with asyncio.timeout(10):
            while True:
                while self.frames:
                    frame = self.frames.pop(0)
                    if not kinds or frame.type in kinds:
                        return frame
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.frames += self.decoder.feed(data)

    async def output(self, until_text):
        seen = b""
        while until_text not in seen:
            seen += (await self.next(FrameType.OUTPUT)).payload
        return seen

    def send(self, kind, payload=b""):
        self.writer.write(link.encode_frame(kind, payload))


@asynccontextmanager
async def portal(client, ticket, **opening):
    reader, writer = await asyncio.open_unix_connection(
        str(client.directory / "gateway.sock")
    )
    opening = {"columns": 100, "rows": 30, "term": "xterm-256color", **opening}
    writer.write(link.encode_json(FrameType.TICKET, {"ticket": ticket, **opening}))
    try:
        yield Portal(reader, writer)
    finally:
        writer.close()


async def terminal_ticket(client, grant, **facts):
    return await client.ask(
        tickets.issue_terminal_ticket,
        user=client.here.engineer.user,
        grant_id=grant.pk,
        source_address="192.0.2.9",
        now=factories.clock(),
        **facts,
    )


async def watch_ticket(client, session_id):
    return await client.ask(
        tickets.issue_watch_ticket,
        user=client.here.plant.approver,
        session_id=session_id,
        source_address="192.0.2.8",
        now=factories.clock(),
    )


async def test_a_browser_terminal_is_a_session_like_any_other(client):
    grant = await client.ask(client.here.grant)
    ticket = await terminal_ticket(client, grant)
    async with portal(client, ticket) as browser:
        ready = link.decode_json((await browser.next()).payload)
        assert ready["asset"] == client.here.asset.name
        assert ready["kind"] == "terminal"
        browser.send(FrameType.INPUT, b"hello \xff")
        assert await browser.output(b"\xff") == b"hello \xff"
        browser.send(FrameType.RESIZE, link.encode_size(132, 50))
        browser.send(FrameType.SIGNAL, b"INT")
        browser.send(FrameType.INPUT, b"!")
        await browser.output(b"!")
        browser.send(FrameType.EOF)
        result = link.decode_json((await browser.next(FrameType.EXIT)).payload)
        assert result["status"] == 0
    session = await ended_session(client)
    assert (session.door, session.end_reason) == ("browser", "finished")
    assert session.source_address == "192.0.2.9"
    events = await client.ask(recorded, session)
    assert joined(events, EventKind.INPUT) == b"hello \xff!"
    assert client.here.target.sizes == [(132, 50)]
    assert client.here.target.signals == ["INT"]


async def test_a_shell_in_the_browser_begins_with_who_where_and_until(client):
    """As one over SSH does; a text that must be agreed to was shown before."""
    grant = await client.ask(client.here.grant)
    here = client.here
    words = (
        f"Sluice: {here.engineer.user.username} on {here.asset.name} as "
        f"{here.account.name}, until {grant.ends_at:%H:%M} UTC, recorded"
    )
    await tell(client, greets=True, consent="All you do is recorded.")
    async with portal(client, await terminal_ticket(client, grant)) as browser:
        assert (await browser.next()).type is FrameType.READY
        assert words.encode() in await browser.output(b"All you do is recorded.")
    made = await tell(client, greets=True, consent="Asked.", consent_required=True)
    denied = await terminal_ticket(client, grant)
    assert denied.code == "consent_missing"
    ticket = await terminal_ticket(client, grant, agreed_to=str(made.pk))
    async with portal(client, ticket) as browser:
        await browser.next(FrameType.READY)
        browser.send(FrameType.INPUT, b"typed")
        assert b"Asked." not in await browser.output(b"typed")


async def test_r2_a_ticket_works_once(client):
    """R2: single use; an invented or used one opens nothing."""
    grant = await client.ask(client.here.grant)
    ticket = await terminal_ticket(client, grant)
    async with portal(client, ticket) as browser:
        assert (await browser.next()).type is FrameType.READY
        for bad in (ticket, "invented", ""):
            async with portal(client, bad) as second:
                frame = await second.next()
                assert frame.type is FrameType.ERROR
                assert b"no longer valid" in frame.payload
                with pytest.raises(EOFError):
                    await second.next()
    assert client.here.target.sessions == 1


async def test_a_grant_revoked_after_the_ticket_opens_nothing(client):
    """The whole decision is made again when the ticket is used."""
    grant = await client.ask(client.here.grant)
    ticket = await terminal_ticket(client, grant)
    await revoke(client, grant)
    async with portal(client, ticket) as browser:
        assert (await browser.next()).type is FrameType.ERROR
    assert client.here.target.connections == 0


async def revoke(client, grant):
    await client.ask(
        access.revoke_grant,
        grant_id=grant.pk,
        by=client.here.plant.approver,
        reason="wrong pump",
        now=factories.clock(),
    )


async def test_a_revocation_ends_the_browser_terminal_and_says_why(client):
    grant = await client.ask(client.here.grant)
    ticket = await terminal_ticket(client, grant)
    async with portal(client, ticket) as browser:
        await browser.next()
        await revoke(client, grant)
        result = link.decode_json((await browser.next(FrameType.EXIT)).payload)
        assert "wrong pump" in result["message"]
    assert (await ended_session(client)).end_reason == "revoked"


async def test_closing_the_stream_ends_the_session(client):
    grant = await client.ask(client.here.grant)
    async with portal(client, await terminal_ticket(client, grant)) as browser:
        await browser.next()
    assert (await ended_session(client)).end_reason == "finished"


class TestFlood:
    @pytest.fixture
    def target_context(self):
        return flooding_target()

    async def test_r20_a_portal_that_does_not_read_is_waited_for(self, client):
        """R20: the asset is paused; nothing piles up in the gateway."""
        grant = await client.ask(client.here.grant)
        async with portal(client, await terminal_ticket(client, grant)) as browser:
            await browser.next()
            browser.writer.transport.pause_reading()
            await asyncio.sleep(1)
            (peer,) = client.service._link.peers
            assert peer._transport.get_write_buffer_size() < 8 << 20
            counted = next(iter(client.service.core.live.values())).relays[1]._bytes_out
            await asyncio.sleep(0.3)
            live = next(iter(client.service.core.live.values()))
            assert live.relays[1]._bytes_out == counted


async def test_a_watcher_sees_what_was_and_what_comes(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", term_size=(80, 24))
    process.stdin.write("before ")
    await process.stdout.readexactly(7)
    await asyncio.sleep(0.5)
    session_id = next(iter(client.service.core.live))
    async with portal(client, await watch_ticket(client, session_id)) as watcher:
        ready = link.decode_json((await watcher.next()).payload)
        assert ready["kind"] == "watch"
        process.stdin.write("after")
        await process.stdout.readexactly(5)
        seen, numbers, kinds = b"", [], set()
        while b"after" not in seen:
            frame = await watcher.next(FrameType.EVENT)
            event = link.decode_event(frame.payload)
            numbers.append(event.number)
            kinds.add(EventKind(event.kind))
            if event.kind == EventKind.OUTPUT:
                seen += event.data
        assert seen == b"before after"
        assert numbers == list(range(len(numbers)))
        assert EventKind.OPEN in kinds
        assert EventKind.INPUT not in kinds
        # Whatever a watcher sends goes nowhere.
        watcher.send(FrameType.INPUT, b"evil")
        connection.close()
        result = link.decode_json((await watcher.next(FrameType.EXIT)).payload)
        assert result["message"] == "the session has ended"
    session = await ended_session(client)
    events = await client.ask(recorded, session)
    assert joined(events, EventKind.INPUT) == b"before after"


async def test_watching_an_ended_session_is_refused(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    session_id = next(iter(client.service.core.live))
    ticket = await watch_ticket(client, session_id)
    connection.close()
    await ended_session(client)
    async with portal(client, ticket) as watcher:
        assert (await watcher.next()).type is FrameType.ERROR


async def test_the_socket_is_for_this_user_only(client):
    path = client.directory / "gateway.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x00",
        b"\xff" * 64,
        b"\x00\x00\x00\x02\x63x",
        link.encode_frame(FrameType.TICKET, b"not json"),
        link.encode_frame(FrameType.TICKET, b"[1]"),
        link.encode_frame(FrameType.OUTPUT, b"x") + b"\x00\x00\x00\x00",
    ],
)
async def test_a_peer_that_sends_no_frames_is_dropped(client, garbage):
    reader, writer = await asyncio.open_unix_connection(
        str(client.directory / "gateway.sock")
    )
    writer.write(garbage)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_stale_socket_of_a_crashed_gateway_is_replaced(
    client, here, settings_of_gateway
):
    path = client.directory / "gateway.sock"
    await client.service.stop(0)
    assert not path.exists()
    path.touch()
    from apps.gateway.service import GatewayService

    with pytest.raises(OSError, match="in use"):
        await GatewayService(settings_of_gateway).start()


async def test_no_session_row_is_left_open(client):
    grant = await client.ask(client.here.grant)
    async with portal(client, await terminal_ticket(client, grant)) as browser:
        await browser.next()
    session = await ended_session(client)
    assert session.end_reason in {"client_lost", "finished"}
    assert not await client.ask(Session.objects.live().exists)
