"""Sessions through the running gateway, with asyncssh and OpenSSH as clients."""

import asyncio
import datetime as dt
import fcntl
import os
import pty
import struct
import termios
import threading
from typing import Any

import asyncssh
import pytest

from apps.access import authorization
from apps.access import operations as access
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.gateway import opening, upstream
from apps.recordings import operations as recordings
from apps.recordings.frames import EventKind, decode_open, decode_resize
from apps.recordings.models import Recording
from apps.recordings.output import RecordingFailedError
from apps.recordings.reader import RecordingReader
from apps.sessions import controls
from apps.sessions.models import Channel, Session
from apps.vault.models import LeaseState
from tests import factories
from tests.gateway.conftest import Client, until


def last_session() -> Session | None:
    return (
        Session.objects.exclude(ended_at=None)
        .select_related("lease")
        .order_by("-opened_at")
        .first()
    )


async def ended_session(client: Client) -> Session:
    """The session that ended, once its recording is sealed too."""

    def look() -> Session | None:
        session = last_session()
        if session is None:
            return None
        waiting = Recording.objects.filter(session=session, state="writing")
        return None if waiting.exists() else session

    return await until(lambda: client.ask(look))


def recorded(session: Session) -> list[Any]:
    recording = Recording.objects.get(session=session)
    path, key = recordings.path_of(recording), recordings.data_key_of(recording)
    with RecordingReader(path, key) as reader:
        return list(reader.events())


def joined(events: list[Any], kind: EventKind) -> bytes:
    return b"".join(event.data for event in events if event.kind == kind)


def kinds() -> list[str]:
    return list(AuditEvent.objects.order_by("seq").values_list("kind", flat=True))


async def test_a_command_runs_and_its_parts_come_back(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    result = await connection.run("both hello")
    assert (result.stdout, result.stderr) == ("hello\n", "hello\n")
    assert result.exit_status == 0
    result = await connection.run("exit 7")
    assert result.exit_status == 7
    result = await connection.run("signal TERM")
    assert result.exit_signal[0] == "TERM"
    connection.close()
    session = await ended_session(client)
    assert session.end_reason == "finished"
    assert session.lease.state != LeaseState.ISSUED
    channels = await client.ask(
        lambda: list(
            Channel.objects.filter(session=session).values_list(
                "number", "kind", "command", "exit_status", "exit_signal"
            )
        )
    )
    assert channels == [
        (1, "exec", "both hello", 0, ""),
        (2, "exec", "exit 7", 7, ""),
        (3, "exec", "signal TERM", None, "TERM"),
    ]


async def test_nothing_runs_before_what_changed_while_the_asset_was_reached_is_known(
    client, monkeypatch
):
    """R19: the first channel waits for a decision that is newer than the asset's
    answer."""
    grant = await client.ask(client.here.grant)
    watchdog, go = client.service._watchdog, asyncio.Event()
    dialled, answers = asyncio.Event(), asyncio.Event()
    look, sign_in = watchdog.check, upstream.sign_in

    async def slow_look():
        await go.wait()
        await look()

    async def slow_sign_in(*args, **options):
        dialled.set()
        await answers.wait()
        return await sign_in(*args, **options)

    monkeypatch.setattr(watchdog, "check", slow_look)
    monkeypatch.setattr(opening, "sign_in", slow_sign_in)
    connection = await client.connect()
    running = asyncio.create_task(connection.run("stdout x"))
    await dialled.wait()
    await client.ask(
        access.revoke_grant,
        grant_id=grant.pk,
        by=client.here.plant.approver,
        reason="shift ends",
        now=factories.clock(),
    )
    answers.set()
    await until(lambda: client.ask(Channel.objects.exists))
    go.set()
    with pytest.raises((asyncssh.Error, OSError)):
        await running
    assert (await ended_session(client)).end_reason == "revoked"
    assert client.here.target.sessions == 0


async def test_stock_openssh_sees_the_output_and_the_exit_status(client, ssh_binary):
    await client.ask(client.here.grant)
    result = await client.run_openssh("exit 7")
    assert result.returncode == 7, result.stderr
    result = await client.run_openssh("both it works")
    assert result.stdout == b"it works\n", result.stderr
    assert result.stderr.endswith(b"it works\n")
    assert result.returncode == 0


async def test_each_separator_works_and_names_an_account(client):
    await client.ask(client.here.grant)
    me, asset = client.here.engineer.user.username, client.here.asset.name
    for address in (
        f"{me}:{asset}",
        f"{me}+{asset}",
        f"{me}@tester@{asset}",
        f"{me}:tester:{asset}",
        f"{me}+tester+{asset}",
    ):
        connection = await client.connect(address)
        assert (await connection.run("stdout x")).stdout == "x\n"
        connection.close()


async def test_everything_on_a_terminal_is_passed_on_and_recorded(client):
    """Resize, signal, break, input, half-close; the environment only in part (R26)."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(
        term_type="xterm-256color",
        term_size=(120, 40),
        env={"LANG": "nl_NL.UTF-8", "LC_TIME": "C", "LD_PRELOAD": "x.so", "FOO": "1"},
        encoding=None,
    )
    process.stdin.write(b"type \xff\xfe this\n")
    assert await process.stdout.readexactly(13) == b"type \xff\xfe this\n"
    for size in ((0, 0), (65535, 65535), (132, 50)):
        process.change_terminal_size(*size)
    process.send_signal("USR1")
    process.send_break(500)
    process.stdin.write(b"more")
    assert await process.stdout.readexactly(4) == b"more"
    process.stdin.write_eof()
    result = await process.wait()
    assert result.exit_status == 0
    target = client.here.target
    assert target.sizes == [(0, 0), (65535, 65535), (132, 50)]
    assert target.signals == ["USR1", "BREAK"]
    connection.close()
    session = await ended_session(client)
    events = await client.ask(recorded, session)
    opened = decode_open(next(e.data for e in events if e.kind == EventKind.OPEN))
    assert (opened.kind, opened.term, opened.columns, opened.rows) == (
        "shell",
        "xterm-256color",
        120,
        40,
    )
    assert joined(events, EventKind.INPUT) == b"type \xff\xfe this\nmore"
    assert joined(events, EventKind.OUTPUT) == b"type \xff\xfe this\nmore"
    sizes = [decode_resize(e.data) for e in events if e.kind == EventKind.RESIZE]
    assert sizes == [(0, 0), (65535, 65535), (132, 50)]
    assert joined(events, EventKind.SIGNAL) == b"USR1BREAK"
    assert events[-1].kind == EventKind.CLOSE


async def test_r26_only_harmless_environment_reaches_the_asset(client):
    """R26: TERM, LANG and LC_* pass; LD_PRELOAD does not."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    result = await connection.run(
        "env",
        env={
            "LANG": "nl_NL.UTF-8",
            "LC_TIME": "C",
            "LD_PRELOAD": "evil.so",
            "GIT_SSH_COMMAND": "id",
            "LC_BIG": "x" * 5000,
        },
    )
    assert result.stdout == "LANG=nl_NL.UTF-8\nLC_TIME=C\n"


async def test_ten_megabytes_pasted_come_back_whole(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    pasted = os.urandom(10 << 20)
    result = await connection.run("cat", input=pasted, encoding=None)
    assert result.stdout == pasted
    assert client.here.target.received == pasted
    connection.close()
    session = await ended_session(client)
    events = await client.ask(recorded, session)
    assert joined(events, EventKind.INPUT) == pasted


async def test_the_status_does_not_cut_off_the_tail_of_the_output(client, ssh_binary):
    await client.ask(client.here.grant)
    size = 30_000_000
    result = await client.run_openssh(f"flood {size}", seconds=40)
    assert result.returncode == 0
    assert len(result.stdout) == size
    session = await ended_session(client)
    events = await client.ask(recorded, session)
    assert joined(events, EventKind.OUTPUT) == result.stdout


async def test_rekeying_in_the_middle_of_a_transfer(client, ssh_binary):
    await client.ask(client.here.grant)
    result = await client.run_openssh(
        "flood 8000000", options=["-oRekeyLimit=500K"], seconds=40
    )
    assert (result.returncode, len(result.stdout)) == (0, 8_000_000)


async def test_many_channels_share_one_connection_up_to_the_limit(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    results = await asyncio.gather(*(connection.run(f"stdout {n}") for n in range(8)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(8)]
    open_ones = [await connection.create_process("cat") for _ in range(10)]
    with pytest.raises(asyncssh.ChannelOpenError) as refusal:
        await connection.create_process("cat")
    assert "too many channels" in refusal.value.reason
    open_ones[0].stdin.write_eof()
    await open_ones[0].wait()
    assert (await connection.run("stdout again")).stdout == "again\n"


async def test_the_recording_is_sealed_and_verifies(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout evidence")
    connection.close()
    session = await ended_session(client)
    recording = await client.ask(lambda: Recording.objects.get(session=session))
    assert recording.state == "sealed"
    assert await client.ask(
        recordings.verify_recording,
        recording_id=recording.pk,
        now=factories.clock(),
    )


async def test_r19_nobody_without_a_grant_learns_whether_an_asset_exists(
    client, ssh_binary
):
    """R19: refused at channel open, with one line, and exit status 255."""
    me = client.here.engineer.user.username
    answers = []
    for asset in (client.here.asset.name, "no-such-asset", "bench-1"):
        result = await client.run_openssh("exit 0", user_string=f"{me}@{asset}")
        assert result.returncode == 255
        answers.append(result.stderr.replace(asset.encode(), b"ASSET"))
    lines = {
        line
        for answer in answers
        for line in answer.splitlines()
        if b"Sluice: " in line
    }
    assert {line.partition(b"Sluice: ")[2] for line in lines} == {
        authorization.NO_ACCESS_MESSAGE.encode()
    }
    assert client.here.target.connections == 0
    assert (await client.ask(kinds)).count(Kind.CONNECTION_DENIED) == 3


@pytest.mark.parametrize("address", ["engineer@", "a@b@c@d", "a@../etc", "%u@asset"])
async def test_r37_a_malformed_user_name_is_told_so(client, ssh_binary, address):
    """R37: refused before any factor, with a line that says what to write."""
    result = await client.run_openssh("exit 0", user_string=address)
    assert result.returncode == 255
    assert b"use me@asset or me@account@asset" in result.stderr


async def test_a_revocation_cuts_at_once_and_says_why(client, ssh_binary):
    grant = await client.ask(client.here.grant)
    line, environment = client.openssh("cat", options=["-tt"])
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"x\r")
    await process.stdout.readexactly(1)
    begin = asyncio.get_running_loop().time()
    await client.ask(
        access.revoke_grant,
        grant_id=grant.pk,
        by=client.here.plant.approver,
        reason="wrong pump",
        now=factories.clock(),
    )
    _, err = await asyncio.wait_for(process.communicate(), 10)
    took = asyncio.get_running_loop().time() - begin
    assert took < 1, f"{took:.3f} s"
    assert process.returncode == 255
    # On a busy machine OpenSSH may leave before it has shown the last output, but
    # never without the reason.
    assert b"wrong pump" in err
    session = await ended_session(client)
    assert session.end_reason == "revoked"
    assert session.lease.state != LeaseState.ISSUED
    assert not client.service.core.live


@pytest.mark.parametrize("how", ["revocation", "deadline"])
async def test_of_a_crowd_each_is_told_by_the_last_message_alone(
    client, monkeypatch, ssh_binary, how
):
    """Whoever goes together with hundreds learns why, and so does the recording."""
    monkeypatch.setattr("apps.gateway.live.CROWD", 1)
    monkeypatch.setattr("apps.gateway.watchdog.CROWD", 1)
    grant = await client.ask(client.here.grant)
    running = []
    for _ in range(3):
        line, environment = client.openssh("cat", options=["-tt"])
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x\r")
        await process.stdout.readexactly(1)
        running.append(process)
    if how == "revocation":
        reason, line = "revoked", "wrong pump"
        await client.ask(
            access.revoke_grant,
            grant_id=grant.pk,
            by=client.here.plant.approver,
            reason=line,
            now=factories.clock(),
        )
    else:
        reason, line = "expired", "the time is up"
        for live in client.service.core.live.values():
            live.deadline_reached()
    async with asyncio.timeout(30):
        said = [await process.communicate() for process in running]
    assert [process.returncode for process in running] == [255] * 3
    assert all(line.encode() in err for _, err in said), said
    written = Recording.objects.exclude(state="writing").filter(
        session__end_reason=reason
    )
    await until(lambda: client.ask(lambda: written.count() == 3))
    for session in await client.ask(lambda: list(Session.objects.all())):
        told = [
            event.data
            for event in await client.ask(recorded, session)
            if event.kind is EventKind.NOTICE
        ]
        assert f"{line} ***" in told[-1].decode()


async def test_a_session_somebody_ends_ends(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100")
    session = await client.ask(lambda: Session.objects.get())
    await client.ask(
        controls.ask_terminate,
        session_id=session.pk,
        by=client.here.plant.approver,
        reason="alarm in cell 3",
        now=factories.clock(),
    )
    shown = await asyncio.wait_for(process.stdout.read(), 5)
    assert "alarm in cell 3" in shown
    assert (await ended_session(client)).end_reason == "terminated"


def seconds_late(session: Session) -> float:
    """How long after its deadline a session ended."""
    assert session.ended_at is not None
    return (session.ended_at - session.deadline).total_seconds()


async def connect_for(client: Client, seconds: float):
    """Connect with a grant that has only so many seconds left."""
    grant = await client.ask(client.here.grant)

    def shorten() -> None:
        grant.ends_at = factories.clock() + dt.timedelta(seconds=seconds)
        grant.save(update_fields=["ends_at"])

    await client.ask(shorten)
    return await client.connect()


async def test_the_deadline_is_announced_and_cuts(client):
    connection = await connect_for(client, 2.0)
    process = await connection.create_process(term_type="vt100")
    shown = await asyncio.wait_for(process.stdout.read(), 10)
    assert "1 second" in shown
    assert "*** Sluice: the time is up ***" in shown
    session = await ended_session(client)
    assert session.end_reason == "expired"
    late = seconds_late(session)
    assert -0.05 < late < 0.5


class TestFreeze:
    @pytest.fixture
    def asset_fields(self):
        return {"on_expiry": "freeze", "grace_seconds": 1}

    async def test_input_is_held_and_output_flows_until_the_grace_ends(self, client):
        connection = await connect_for(client, 1.5)
        process = await connection.create_process(term_type="vt100", encoding=None)
        process.stdin.write(b"before")
        assert await process.stdout.readexactly(6) == b"before"
        shown = b""
        async with asyncio.timeout(5):
            while b"input is held" not in shown:
                shown += await process.stdout.read(4096)
        process.stdin.write(b"after")
        rest = await asyncio.wait_for(process.stdout.read(), 5)
        assert b"the time is up ***" in rest
        assert client.here.target.received == b"before"
        session = await ended_session(client)
        assert session.end_reason == "expired"
        assert 0.8 < seconds_late(session) < 2
        assert Kind.SESSION_FROZEN in await client.ask(kinds)


class TestDrain:
    @pytest.fixture
    def asset_fields(self):
        return {"on_expiry": "drain", "grace_seconds": 5}

    async def test_what_runs_may_finish_and_nothing_new_begins(self, client):
        connection = await connect_for(client, 1.5)
        process = await connection.create_process("cat", encoding=None)
        session_id = next(iter(client.service.core.live))
        live = client.service.core.live[session_id]

        async def ending():
            return live.state == "ending"

        await until(ending)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("stdout late")

        async def noted():
            return Kind.CHANNEL_REFUSED in await client.ask(kinds)

        assert await until(noted)
        process.stdin.write(b"last words")
        process.stdin.write_eof()
        assert await process.stdout.read() == b"last words"
        session = await ended_session(client)
        assert session.end_reason == "expired"
        assert seconds_late(session) < 4


class TestInOperation:
    @pytest.fixture
    def asset_fields(self):
        return {"in_operation": True, "grace_seconds": 1}

    async def test_a_revocation_freezes_before_it_cuts(self, client):
        grant = await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process(term_type="vt100")
        await client.ask(
            access.revoke_grant,
            grant_id=grant.pk,
            by=client.here.plant.approver,
            reason="shift ends",
            now=factories.clock(),
        )
        shown = await asyncio.wait_for(process.stdout.read(), 5)
        assert "shift ends; input is held, closing in 1 s" in shown
        assert "*** Sluice: access revoked" in shown
        assert (await ended_session(client)).end_reason == "revoked"


async def test_r23_a_recording_that_fails_ends_the_session(client):
    """R23: nothing goes on unrecorded, and the engineer is told."""
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100")
    live = next(iter(client.service.core.live.values()))
    await client.ask(live.recorder.fail, OSError(28, "No space left on device"))
    shown = await asyncio.wait_for(process.stdout.read(), 5)
    assert "the recording cannot be written" in shown
    session = await ended_session(client)
    assert session.end_reason == "recording_failed"
    recording = await client.ask(lambda: Recording.objects.get(session=session))
    assert recording.state == "broken"


async def test_r23_without_a_recording_nothing_reaches_the_asset(client, settings):
    """R23: a recordings directory that cannot be written refuses the session."""
    await client.ask(client.here.grant)
    blocker = client.directory / "a-file"
    blocker.touch()
    settings.RECORDINGS_DIR = blocker
    connection = await client.connect()
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.DisconnectError)):
        await connection.run("stdout x")
    assert client.here.target.connections == 0


async def test_r23_before_the_recording_is_open_nobody_signs_in(client, monkeypatch):
    """R23: meanwhile the asset sees a key exchange and no more; then not even that."""
    await client.ask(client.here.grant)
    core, target = client.service.core, client.here.target
    may_open, opened = threading.Event(), core.recorder_thread.open

    def slow_disk(*args, **kwargs):
        if not may_open.wait(20):
            raise RecordingFailedError("the disk does not answer")
        raise RecordingFailedError("No space left on device")

    monkeypatch.setattr(core.recorder_thread, "open", slow_disk)
    connection = await client.connect()
    running = asyncio.ensure_future(connection.run("stdout x"))

    async def dialled():
        return target.open_now

    await until(dialled)
    assert not running.done()
    assert target.sign_ins == 0
    may_open.set()
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.DisconnectError)):
        await running

    async def hung_up():
        return not target.open_now

    await until(hung_up)
    assert target.sign_ins == 0
    monkeypatch.setattr(core.recorder_thread, "open", opened)
    again = await client.connect()
    assert (await again.run("stdout x")).stdout == "x\n"
    assert target.sign_ins == 1


async def test_a_client_that_vanishes_takes_the_session_along(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.create_process("cat")
    connection._transport.abort()
    session = await ended_session(client)
    assert session.end_reason == "client_lost"
    assert not client.service.core.live


async def test_stopping_the_gateway_ends_sessions_in_good_order(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    process = await connection.create_process(term_type="vt100")
    await client.service.stop(0.1)
    shown = await asyncio.wait_for(process.stdout.read(), 5)
    assert "the gateway is being stopped" in shown
    session = await asyncio.to_thread(last_session)
    assert session is not None
    assert session.end_reason == "gateway_stopped"


class TestStoppingByEndMode:
    """SIGTERM: cut is at once; freeze and drain have the grace, and no longer."""

    @pytest.fixture(params=["cut", "freeze", "drain"])
    def mode(self, request):
        return request.param

    @pytest.fixture
    def asset_fields(self, mode):
        return {"on_expiry": mode, "grace_seconds": 60}

    async def test_each_session_ends_as_its_asset_says(self, client, mode):
        await client.ask(client.here.grant)
        connection = await client.connect()
        command = await connection.create_process("cat", encoding=None)
        command.stdin.write(b"before")
        assert await command.stdout.readexactly(6) == b"before"
        stopping = asyncio.create_task(client.service.stop(2.0))
        live = client.service.core.live

        async def begun():
            states = {session.state.value for session in live.values()}
            return (
                states
                == {
                    "cut": set(),
                    "freeze": {"frozen"},
                    "drain": {"ending"},
                }[mode]
            )

        await until(begun)
        if mode != "cut":
            command.stdin.write(b"after")
        if mode == "drain":
            assert await command.stdout.readexactly(5) == b"after"
            command.stdin.write_eof()
            assert (await command.wait()).exit_status == 0
        begin = asyncio.get_running_loop().time()
        await stopping
        took = asyncio.get_running_loop().time() - begin
        if mode == "freeze":
            assert client.here.target.received == b"before"
            assert took > 0.5
        session = await asyncio.to_thread(last_session)
        assert session is not None
        assert session.end_reason == "gateway_stopped"


async def test_a_full_terminal_of_the_stock_client(client, ssh_binary):
    """A real pty on the client's side: the size as it is there arrives."""
    await client.ask(client.here.grant)
    line, environment = client.openssh("size", options=["-tt"])
    near, far = pty.openpty()
    os.set_blocking(near, False)
    try:
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 43, 131, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *line,
            stdin=far,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        out, err = await asyncio.wait_for(process.communicate(), 15)
    finally:
        os.close(near)
        os.close(far)
    assert b"131x43" in out, err
