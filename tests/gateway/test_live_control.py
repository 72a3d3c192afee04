"""Freeze, resume and messages: what reaches a live session, and that it does once."""

import asyncio
import datetime as dt
import uuid
from typing import Any

import asyncssh
import pytest

from apps.access.denials import Denied
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway.live_control import LiveControl
from apps.gateway.relay import Relay
from apps.sessions import controls
from apps.sessions.models import Session, SessionMessage
from apps.sessions.queries import PendingMessage, SessionControl
from tests import factories
from tests.gateway.conftest import Client, until
from tests.gateway.test_sessions import connect_for, ended_session, recorded


def only_session() -> Session:
    return Session.objects.get()


async def freeze(client: Client, reason: str = "alarm in cell 3") -> Session:
    session = await client.ask(only_session)
    assert await client.ask(
        controls.ask_freeze,
        session_id=session.pk,
        by=client.here.plant.approver,
        reason=reason,
        now=factories.clock(),
    )
    return session


async def resume(client: Client) -> None:
    session = await client.ask(only_session)
    assert await client.ask(
        controls.ask_resume,
        session_id=session.pk,
        by=client.here.plant.approver,
        now=factories.clock(),
    )


async def say(client: Client, text: str) -> SessionMessage:
    session = await client.ask(only_session)
    message = await client.ask(
        controls.send_message,
        session_id=session.pk,
        by=client.here.plant.approver,
        text=text,
        now=factories.clock(),
    )
    assert not isinstance(message, Denied), message
    return message


async def noted(client: Client, state: str) -> None:
    async def look() -> bool:
        session: Session = await client.ask(only_session)
        return session.state == state

    await until(look)


async def shown_until(stream: Any, words: bytes) -> bytes:
    shown = b""
    async with asyncio.timeout(10):
        while words not in shown:
            piece = await stream.read(4096)
            assert piece, shown
            shown += piece
    return shown


async def test_a_freeze_holds_input_names_who_and_why_and_loses_nothing(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", encoding=None)
    process.stdin.write(b"before")
    assert await process.stdout.readexactly(6) == b"before"
    await freeze(client)
    shown = await shown_until(process.stdout, b"alarm in cell 3")
    assert client.here.plant.approver.username.encode() in shown
    await noted(client, "frozen")
    process.stdin.write(b"held")
    process.change_terminal_size(132, 50)
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.run("stdout x")
    assert client.here.target.received == b"before"
    await resume(client)
    assert b"held" in await shown_until(process.stdout, b"held")
    assert client.here.target.received == b"beforeheld"
    assert client.here.target.sizes == [(132, 50)]
    await noted(client, "active")
    events = await client.ask(
        lambda: list(AuditEvent.objects.order_by("seq").values_list("kind", flat=True))
    )
    steps = [kind for kind in events if "freeze" in kind or "frozen" in kind]
    assert steps == [Kind.SESSION_FREEZE_ASKED, Kind.SESSION_FROZEN]
    assert events.count(Kind.SESSION_RESUMED) == 1


async def test_a_freeze_holds_the_input_of_a_channel_that_was_opening(
    client, monkeypatch
):
    """Answering the start must not begin what the freeze holds."""
    await client.ask(client.here.grant)
    reached, go = asyncio.Event(), asyncio.Event()
    relays: list[Any] = []
    plain = Relay.open_back

    async def slow(self, connection):
        relays.append(self)
        reached.set()
        await go.wait()
        await plain(self, connection)

    monkeypatch.setattr(Relay, "open_back", slow)
    connection = await client.connect()
    opening = asyncio.ensure_future(
        connection.create_process(term_type="vt100", encoding=None)
    )
    await reached.wait()
    await freeze(client)
    await noted(client, "frozen")
    go.set()
    process = await opening
    process.stdin.write(b"held")

    async def arrived() -> bool:
        return bool(relays[0]._front._recv_buf)

    await until(arrived)
    assert client.here.target.received == b""
    await resume(client)
    await shown_until(process.stdout, b"held")
    assert client.here.target.received == b"held"


async def test_no_reason_steers_the_terminal_of_the_engineer(client):
    steering = "x\x1b]52;c;cm0gLXJm\x07y"
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", encoding=None)
    session = await freeze(client, steering)
    shown = await shown_until(process.stdout, b"]52;c;cm0gLXJm")
    await client.ask(
        controls.ask_terminate,
        session_id=session.pk,
        by=client.here.plant.approver,
        reason=steering,
        now=factories.clock(),
    )
    shown += await asyncio.wait_for(process.stdout.read(), 5)
    assert shown.count(b"]52;c;cm0gLXJm") == 2
    assert b"\x1b]" not in shown
    assert b"\x07" not in shown


async def test_output_of_a_command_flows_on_while_its_input_is_held(client):
    """A command that cannot write stops half-way: a freeze must not do that."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    flood = await connection.create_process("flood 20000000", encoding=None)
    typed = await connection.create_process("cat", encoding=None)
    typed.stdin.write(b"a")
    assert await typed.stdout.readexactly(1) == b"a"
    await freeze(client)
    await noted(client, "frozen")
    typed.stdin.write(b"b")
    assert len(await flood.stdout.read()) == 20_000_000
    assert client.here.target.received == b"a"
    await resume(client)
    assert await typed.stdout.readexactly(1) == b"b"


async def test_the_deadline_holds_while_frozen(client):
    connection = await connect_for(client, 2.0)
    process = await connection.create_process(term_type="vt100")
    await freeze(client)
    shown = await asyncio.wait_for(process.stdout.read(), 10)
    assert "*** Sluice: the time is up ***" in shown
    session = await ended_session(client)
    assert session.end_reason == "expired"
    assert session.ended_at is not None
    assert session.ended_at - session.deadline < dt.timedelta(seconds=1)


class TestFreezingAtTheDeadline:
    @pytest.fixture
    def asset_fields(self):
        return {"on_expiry": "freeze", "grace_seconds": 2}

    async def test_a_resume_does_not_open_what_the_deadline_closed(self, client):
        connection = await connect_for(client, 1.5)
        process = await connection.create_process(term_type="vt100", encoding=None)
        await freeze(client)
        await shown_until(process.stdout, b"input is held, closing in 2 s")
        process.stdin.write(b"late")
        await resume(client)
        await asyncio.wait_for(process.stdout.read(), 10)
        assert client.here.target.received == b""
        assert (await ended_session(client)).end_reason == "expired"


async def test_a_freeze_can_be_ended_by_terminating(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100")
    session = await freeze(client)
    await client.ask(
        controls.ask_terminate,
        session_id=session.pk,
        by=client.here.plant.approver,
        reason="enough",
        now=factories.clock(),
    )
    assert "enough" in await asyncio.wait_for(process.stdout.read(), 5)
    assert (await ended_session(client)).end_reason == "terminated"


async def test_messages_come_in_order_once_and_are_recorded(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", encoding=None)
    for number in range(1, 6):
        await say(client, f"line {number}.")
    shown = await shown_until(process.stdout, b"line 5.")

    async def all_noted() -> bool:
        waiting = SessionMessage.objects.filter(shown_at=None)
        return not await client.ask(waiting.exists)

    await until(all_noted)
    # Looking again, as the watchdog does all the time, shows nothing again.
    await client.service.core.check_now()
    process.stdin.write(b"end of it")
    shown += await shown_until(process.stdout, b"end of it")
    found = [shown.find(b"line %d." % number) for number in range(1, 6)]
    assert found == sorted(found)
    assert shown.count(b" says: line ") == 5
    connection.close()
    events = await client.ask(recorded, await ended_session(client))
    told = b"".join(event.data for event in events if event.kind.name == "NOTICE")
    assert told.count(b" says: line ") == 5


async def test_a_message_waits_for_a_terminal_and_stays_out_of_commands(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    command = await connection.create_process("cat", encoding=None)
    message = await say(client, "read this")
    await client.service.core.check_now()
    command.stdin.write(b"data")
    command.stdin.write_eof()
    assert await command.stdout.read() == b"data"
    assert await command.stderr.read() == b""
    await client.ask(message.refresh_from_db)
    assert message.shown_at is None
    process = await connection.create_process(term_type="vt100", encoding=None)
    await shown_until(process.stdout, b"says: read this")


class Told:
    """A live session that only remembers what was asked of it."""

    def __init__(self) -> None:
        self.is_frozen = False
        self.has_open_terminal = True
        self.lines: list[str] = []
        self.noted: list[Any] = []

    def hold(self, line: str) -> None:
        self.is_frozen = True
        self.lines.append(line)

    def release(self, line: str) -> None:
        self.is_frozen = False
        self.lines.append(line)

    def notify(self, line: str) -> None:
        self.lines.append(line)

    def note_state(self) -> None:
        self.noted.append("state")

    def note_shown(self, numbers: Any) -> None:
        self.noted.append(list(numbers))


def control(number: int, *, frozen: bool, noted: bool, **more: Any) -> SessionControl:
    return SessionControl(
        session_id=uuid.uuid4(),
        freeze_number=number,
        frozen=frozen,
        noted_frozen=noted,
        by="anna",
        reason="alarm",
        **more,
    )


def test_what_was_missed_while_the_database_was_away_is_made_good():
    told = Told()
    live = LiveControl(told)
    live.apply(control(1, frozen=True, noted=False))
    assert told.is_frozen
    live.apply(control(1, frozen=True, noted=True))
    assert told.lines == ["Sluice: anna froze your input: alarm"]
    assert told.noted == []
    # The write was lost: it is done again, the freeze itself is not.
    live.apply(control(1, frozen=True, noted=False))
    assert told.noted == ["state"]
    assert len(told.lines) == 1
    # Resumed and frozen again between two looks.
    live.apply(control(3, frozen=True, noted=True))
    assert told.is_frozen
    assert len(told.lines) == 2
    # An answer that was on its way for long changes nothing back.
    live.apply(control(2, frozen=False, noted=True))
    assert told.is_frozen


def test_a_message_whose_note_was_lost_is_noted_again_but_not_shown_again():
    told = Told()
    live = LiveControl(told)
    first = PendingMessage(number=1, sender="anna", text="one")
    second = PendingMessage(number=2, sender="anna", text="two")
    live.apply(control(0, frozen=False, noted=False, messages=(first,)))
    live.apply(control(0, frozen=False, noted=False, messages=(first, second)))
    assert told.lines == ["Sluice: anna says: one", "Sluice: anna says: two"]
    assert told.noted == [[1], [1, 2]]
    told.has_open_terminal = False
    third = PendingMessage(number=3, sender="anna", text="three")
    live.apply(control(0, frozen=False, noted=False, messages=(third,)))
    assert len(told.lines) == 2
