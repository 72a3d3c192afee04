"""Commands typed in the terminal itself, with the stock client on a real pty."""

import asyncio
import dataclasses
import termios
from collections.abc import Callable

import pytest

from apps.access.models import GrantExtension
from apps.recordings.frames import EventKind
from apps.sessions import controls
from apps.sessions.models import Session
from tests import factories
from tests.gateway.conftest import Client, until
from tests.gateway.test_sessions import ended_session, joined, recorded
from tests.terminal import Terminal

pytestmark = pytest.mark.usefixtures("ssh_binary")

ESC = "\x1d"


@dataclasses.dataclass
class Typing:
    """The stock client in a window, used from an asynchronous test."""

    terminal: Terminal

    async def sees(self, words: str) -> str:
        return await asyncio.to_thread(
            self.terminal.wait_for, lambda text: words in text
        )

    async def type(self, *keys: str) -> None:
        """Type slowly enough to be a hand."""
        for key in keys:
            await asyncio.sleep(0.1)
            self.terminal.type(key)


@pytest.fixture
async def typing(client):
    await client.ask(client.here.grant)
    line, environment = client.openssh(options=["-tt", "-oEscapeChar=none"])
    terminal = Terminal(line, environment={**environment, "TERM": "xterm-256color"})

    def shown_on(relays) -> bool:
        return any(relay.is_open and relay.has_terminal for relay in relays)

    async def raw() -> bool:
        """The client is there and gives every key away as it is."""
        modes = termios.tcgetattr(terminal.process.child_fd)
        live = client.service.core.live.values()
        return not modes[3] & termios.ICANON and any(
            shown_on(session.relays.values()) for session in live
        )

    await until(raw, seconds=20)
    yield Typing(terminal)
    await asyncio.to_thread(terminal.close)


def received(client: Client) -> Callable[[], bytes]:
    return lambda: bytes(client.here.target.received)


async def test_time_left_and_help_are_answered_here_and_never_sent(client, typing):
    await typing.type("one\r")
    await typing.sees("one")
    await typing.type(ESC, "t")
    assert " left of this session ***" in await typing.sees("left of this session")
    await typing.type(ESC, "?")
    await typing.sees("Ctrl-] twice sends it once")
    await typing.type(ESC, "w")
    await typing.sees("nobody watches just now")
    await typing.type("two\r")
    await typing.sees("two")
    assert received(client)() == b"one\rtwo\r"
    await asyncio.to_thread(typing.terminal.close)
    events = await client.ask(recorded, await ended_session(client))
    assert joined(events, EventKind.INPUT) == b"one\rtwo\r"
    marks = joined(events, EventKind.MARK)
    assert marks == (
        b"command: how much time is leftcommand: this helpcommand: who watches"
    )


async def test_more_time_is_asked_for_where_one_works(client, typing):
    await typing.type("x\r")
    await typing.sees("x")
    await typing.type(ESC, "e")
    await typing.sees("For how many more minutes?")
    await typing.type("3", "\x7f", "30\r")
    await typing.sees("Why?")
    await typing.type("the valve is stuck\r")
    await typing.sees("asked for 30 more minutes; approvers decide")
    asked = await client.ask(lambda: GrantExtension.objects.get())
    assert (asked.minutes, asked.reason) == (30, "the valve is stuck")
    assert asked.requester_id == client.here.engineer.user.pk
    assert received(client)() == b"x\r"
    await typing.type(ESC, "e", "10\r", "again\r")
    await typing.sees("not asked.")
    await typing.type(ESC, "e", "\x03")
    await typing.sees("nothing was asked")
    await typing.type(ESC, "e", "soon\r", "because\r")
    await typing.sees("minutes are a number")
    assert await client.ask(GrantExtension.objects.count) == 1


async def test_what_is_no_command_reaches_the_asset_untouched(client, typing):
    sent = ["a", ESC, "t", "\r", ESC, "z", "\r", ESC, ESC, f"paste\r{ESC}t\r"]
    await typing.type(*sent)
    expected = b"a\x1dt\r\x1dz\r\x1dpaste\r\x1dt\r"

    async def arrived():
        return received(client)() == expected

    await until(arrived)


async def test_an_escape_alone_is_passed_on_after_a_moment(client, typing):
    await typing.type("x\r", ESC)

    async def arrived():
        return len(received(client)()) >= 3

    await until(arrived)
    assert received(client)() == b"x\r\x1d"


async def test_the_engineer_ends_the_session(client, typing):
    await typing.type("x\r")
    await typing.sees("x")
    await typing.type(ESC, ".")
    await typing.sees("you ended the session")
    assert (await ended_session(client)).end_reason == "finished"


async def test_a_freeze_by_hand_shows_who_and_why(client, typing):
    await typing.type("x\r")
    await typing.sees("x")
    session = await client.ask(lambda: Session.objects.get())
    await client.ask(
        controls.ask_freeze,
        session_id=session.pk,
        by=client.here.plant.approver,
        reason="alarm in cell 3",
        now=factories.clock(),
    )
    name = client.here.plant.approver.username
    await typing.sees(f"{name} froze your input: alarm in cell 3")
    await typing.type("y")
    live = client.service.core.live[session.pk]
    assert all(relay.frozen for relay in live.relays.values())
    assert received(client)() == b"x\r"


class TestOff:
    @pytest.fixture
    def settings_of_gateway(self, settings_of_gateway):
        return dataclasses.replace(settings_of_gateway, escape=None)

    async def test_without_an_escape_everything_is_for_the_asset(self, client, typing):
        await typing.type("x\r", ESC, "t", ESC, ".")

        async def arrived():
            return len(received(client)()) >= 6

        await until(arrived)
        assert received(client)() == b"x\r\x1dt\x1d."
