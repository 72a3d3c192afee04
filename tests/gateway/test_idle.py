"""Nobody is there: the lock, its code, and the end; without and with a session."""

import asyncio
import dataclasses
from typing import Any

import asyncssh
import pytest

from apps.access import authorization
from apps.accounts import operations as accounts
from apps.audit.kinds import Kind
from apps.gateway.desk import UNLOCK_TRIES, spoken
from apps.gateway.idle import IdleClock, IdleWatch
from apps.recordings.frames import EventKind
from apps.sessions import terminals
from apps.sessions.models import Session
from tests.gateway.conftest import Client, until
from tests.gateway.test_live_control import freeze, resume, shown_until
from tests.gateway.test_sessions import ended_session, joined, kinds, recorded


def test_the_clock_counts_from_the_last_growth():
    clock = IdleClock(100.0)
    assert clock.observe(0, 105.0) == 5.0
    assert clock.observe(3, 106.0) == 0.0
    assert clock.observe(3, 109.0) == 3.0
    clock.touch(110.0)
    assert clock.observe(3, 111.0) == 1.0


class Sitting:
    """A session for the watch alone."""

    def __init__(self) -> None:
        self.is_frozen = self.is_locked = False
        self.has_open_terminal = True
        self.activity = 0
        self.log: list[str] = []

    def lock(self) -> None:
        self.is_locked = True
        self.log.append("lock")

    def end_idle(self) -> None:
        self.log.append("end")

    def notify(self, line: str) -> None:
        self.log.append("warn")


async def watched(sitting: Sitting, *, last: str, **limits: float) -> list[str]:
    watch = IdleWatch(sitting, **limits)
    watch.start()

    async def done() -> bool:
        return last in sitting.log

    try:
        await until(done)
    finally:
        watch.stop()
    return sitting.log


async def test_first_the_lock_then_a_warning_then_the_end():
    log = await watched(Sitting(), last="end", lock_seconds=0.1, end_seconds=0.6)
    assert log == ["lock", "warn", "end"]


async def test_without_a_terminal_there_is_nothing_to_lock():
    sitting = Sitting()
    sitting.has_open_terminal = False
    log = await watched(sitting, last="end", lock_seconds=0.1, end_seconds=0.4)
    assert log == ["warn", "end"]


async def test_a_limit_of_zero_never_comes():
    sitting = Sitting()
    assert await watched(sitting, last="lock", lock_seconds=0.1, end_seconds=0) == [
        "lock"
    ]
    watch = IdleWatch(sitting, lock_seconds=0, end_seconds=0)
    watch.start()
    assert watch._timer is None


async def test_frozen_time_is_not_idle_time():
    sitting = Sitting()
    sitting.is_frozen = True
    watch = IdleWatch(sitting, lock_seconds=0.1, end_seconds=0)
    watch.start()
    await asyncio.sleep(0.4)
    assert sitting.log == []
    sitting.is_frozen = False

    async def locked() -> bool:
        return sitting.is_locked

    await until(locked)
    watch.stop()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (45, "45 seconds"),
        (60, "1 minute"),
        (59.9, "60 seconds"),
        (900, "15 minutes"),
        (3600, "1 hour"),
        (7325, "2 hours 2 minutes"),
    ],
)
def test_how_time_is_spoken(seconds, words):
    assert spoken(seconds) == words


# Through the gateway. The limits are minutes; here they are made short.


@pytest.fixture
def minutes() -> dict[str, float]:
    return {"idle_lock_minutes": 1.5 / 60, "idle_end_minutes": 0}


@pytest.fixture(autouse=True)
def short_limits(request, monkeypatch):
    if "client" not in request.fixturenames:
        return
    minutes = request.getfixturevalue("minutes")
    permit = authorization._permit

    def shortened(**arguments: Any) -> Any:
        made = permit(**arguments)
        return dataclasses.replace(made, **minutes) if made else made

    monkeypatch.setattr(authorization, "_permit", shortened)


async def open_shell(client: Client) -> tuple[Any, Any]:
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100", encoding=None)
    return connection, process


async def row(client: Client) -> Session:
    session: Session = await client.ask(lambda: Session.objects.get())
    return session


async def test_a_locked_terminal_types_to_the_lock_until_the_code_is_right(client):
    """SR 2.5: nothing typed reaches the asset; the code is nowhere in the recording."""
    connection, process = await open_shell(client)
    process.stdin.write(b"before")
    await shown_until(process.stdout, b"type your one-time code and Enter")
    process.stdin.write(b"rm -rf /\r")
    await shown_until(process.stdout, b"still locked, that code is not right")
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.run("stdout x")

    async def locked() -> bool:
        return (await row(client)).locked_at is not None

    await until(locked)
    code = client.here.engineer.code()
    process.stdin.write(code.encode() + b"\r")
    await shown_until(process.stdout, b"unlocked")
    process.stdin.write(b"after")
    await shown_until(process.stdout, b"after")
    assert client.here.target.received == b"beforeafter"
    assert (await row(client)).locked_at is None
    connection.close()
    events = await client.ask(recorded, await ended_session(client))
    assert joined(events, EventKind.INPUT) == b"beforeafter"
    # On a busy machine it may lock once more before the end.
    assert joined(events, EventKind.MARK).startswith(b"lockedunlocked")
    assert all(code.encode() not in event.data for event in events)
    written = await client.ask(kinds)
    assert [kind for kind in written if "lock" in kind][:3] == [
        Kind.SESSION_LOCKED,
        Kind.SESSION_UNLOCK_REFUSED,
        Kind.SESSION_UNLOCKED,
    ]


async def test_output_goes_on_while_locked(client):
    """A lock stops hands: no program stops for it."""
    connection, process = await open_shell(client)
    flood = await connection.create_process("flood 3000000", encoding=None)
    await flood.stdout.readexactly(1)
    await shown_until(process.stdout, b"type your one-time code")
    assert len(await flood.stdout.read()) == 2_999_999


async def test_wrong_codes_are_bounded(client, monkeypatch):
    def wrong(**_: Any) -> accounts.FactorVerdict:
        return accounts.FactorVerdict(accepted=False, wait_seconds=2)

    monkeypatch.setattr(terminals, "unlock_session", wrong)
    _connection, process = await open_shell(client)
    await shown_until(process.stdout, b"type your one-time code")
    for _ in range(UNLOCK_TRIES - 1):
        process.stdin.write(b"000000\r")
        await shown_until(process.stdout, b"try again in 2 s")
    process.stdin.write(b"000000\r")
    await shown_until(process.stdout, b"no code was right")
    assert (await ended_session(client)).end_reason == "idle"


async def test_a_code_works_once_here_as_well(client):
    _connection, process = await open_shell(client)
    code = client.here.engineer.code().encode()
    for answer in (b"Sluice: unlocked", b"still locked"):
        await shown_until(process.stdout, b"type your one-time code")
        process.stdin.write(code + b"\r")
        await shown_until(process.stdout, answer)


async def test_a_frozen_session_does_not_lock(client):
    _connection, process = await open_shell(client)
    await freeze(client)
    await shown_until(process.stdout, b"alarm in cell 3")
    await asyncio.sleep(2.0)
    await resume(client)
    shown = await shown_until(process.stdout, b"let your input through")
    assert b"one-time code" not in shown


class TestTheEnd:
    @pytest.fixture
    def minutes(self):
        return {"idle_lock_minutes": 0, "idle_end_minutes": 1.5 / 60}

    async def test_an_idle_session_ends_and_says_so(self, client):
        _connection, process = await open_shell(client)
        shown = await asyncio.wait_for(process.stdout.read(), 15)
        assert b"idle; the session ends in 1 s unless you do something" in shown
        assert b"*** Sluice: nothing was done for too long ***" in shown
        session = await ended_session(client)
        assert session.end_reason == "idle"

    async def test_data_of_a_command_counts_typing_or_not(self, client):
        await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process("cat", encoding=None)
        loop = asyncio.get_running_loop()
        end = loop.time() + 3.0
        while loop.time() < end:
            process.stdin.write(b"x")
            assert await process.stdout.readexactly(1) == b"x"
            await asyncio.sleep(0.3)
        rest = await asyncio.wait_for(process.stderr.read(), 15)
        assert b"nothing was done for too long" in rest
        assert (await ended_session(client)).end_reason == "idle"
