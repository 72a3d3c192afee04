"""Devices that do SSH their own way: what OpenSSH's client survives, Sluice does."""

import asyncio
import dataclasses
import signal
from functools import partial
from typing import Any

import asyncssh
import pytest

from apps.gateway.upstream import SENTENCES, UpstreamProblem
from apps.recordings.frames import EventKind
from apps.sessions.models import Session
from tests.gateway.conftest import until
from tests.gateway.differential import OnTerminal
from tests.gateway.test_sessions import joined, recorded
from tests.gateway.test_upstream import OLD
from tests.odd_devices import (
    HABITS,
    behind,
    odd_channels,
    passing,
    prompting_target,
)
from tests.targets import echo_target


@pytest.fixture
async def granted(client):
    await client.ask(client.here.grant)
    return client


def upstream_of(client) -> Any:
    (live,) = client.service.core.live.values()
    return live._upstream.connection


def hurry(connection: Any, *, count: int) -> None:
    """Send keepalives 20 times a second instead of every 30."""
    connection._keepalive_interval = 0.05
    connection._keepalive_count_max = count
    connection._cancel_keepalive_timer()
    connection._set_keepalive_timer()


ON_TERMINALS = [habit for habit in HABITS if habit != "refuses exec"]
ON_COMMANDS = [
    habit
    for habit in HABITS
    if not habit.endswith(("keepalives", "window-change", "pty", "twice", "channel"))
]


class TestHabits:
    @pytest.fixture
    def habit(self, request):
        return request.param

    @pytest.fixture
    def target_context(self, habit):
        return odd_channels(habit)

    @pytest.mark.parametrize("habit", ON_TERMINALS, indirect=True)
    async def test_a_terminal_works(self, granted, habit, ssh_binary):
        line, environment = granted.openssh(options=["-t", "-oSetEnv=LC_X=1"])
        terminal = OnTerminal(line, environment)
        terminal.type(b"hello\r")
        await terminal.wait_for(b"echo hello")
        if habit != "refuses pty":
            terminal.resize(120, 40)
            await terminal.wait_for(
                b"" if habit == "answers window-change" else b"size 120 40"
            )
        else:
            assert b"the asset gave no terminal" in terminal.received
        if "keepalives" in habit:
            await self.survives_keepalives(granted)
        terminal.type(b"again\r")
        await terminal.wait_for(b"echo again")
        terminal.type(b"exit 9\r")
        seen = await terminal.ended()
        # OpenSSH's client makes 255 of an end without a status.
        assert seen.status == (255 if habit == "no status" else 9)
        if habit in {"speaks first", "never answers"}:
            assert b"first" in seen.output or b"no answer" in seen.output

    async def survives_keepalives(self, client):
        """More of them than a peer that had answered one may leave unanswered."""
        connection = upstream_of(client)
        sent = []
        original = connection._send_global_request

        def note(request, *arguments, **named):
            sent.append(request)
            original(request, *arguments, **named)

        connection._send_global_request = note
        hurry(connection, count=1)

        async def several():
            return len(sent) >= 3

        await until(several)
        assert not connection.is_closed()

    @pytest.mark.parametrize("habit", ON_COMMANDS, indirect=True)
    async def test_a_command_ends_as_it_should(self, granted, habit, ssh_binary):
        options = ["-oSetEnv=LC_X=1", "-oSendEnv=LC_X"]
        result = await granted.run_openssh("say it", options=options)
        if habit == "refuses exec":
            assert result.returncode == 255
            assert b"the asset refused the exec: it does not do that" in result.stderr
            return
        expected = {"no status": 255, "two statuses": 9}.get(habit, 0)
        assert result.stdout.endswith(b"say it\n")
        assert result.returncode == expected


async def test_a_device_that_answered_before_and_is_silent_now_is_given_up(granted):
    """R20: keepalives find a peer that has gone."""
    connection = await granted.connect()
    await connection.create_process("cat")
    upstream = upstream_of(granted)
    await upstream._make_keepalive_request()
    upstream._send_global_request = lambda *_, **__: None
    hurry(upstream, count=2)

    async def over():
        return not granted.service.core.live

    assert await until(over)


class TestTinyWindows:
    @pytest.fixture(params=[(1, 64), (7, 64), (256, 1024)])
    def target_context(self, request):
        window, packet = request.param
        return echo_target(window=window, max_pktsize=packet)

    async def test_input_goes_a_few_bytes_at_a_time(self, granted, ssh_binary):
        given = bytes(range(256)) * 8
        result = await granted.run_openssh("cat", given=given)
        assert (result.returncode, result.stdout) == (0, given)

    async def test_the_engineers_side_may_be_tiny_as_well(self, granted):
        connection = await granted.connect()
        given = bytes(range(256)) * 4
        result = await connection.run(
            "cat", input=given, encoding=None, window=3, max_pktsize=64
        )
        assert result.stdout == given


class TestCharsets:
    async def test_bytes_stay_as_they_are(self, granted, ssh_binary):
        """Latin-1, code page 437, CRLF: in both directions and in the recording."""
        given = bytes(range(0x80, 0x100)) + b"\r\nna\xefve\r\n\x1b[1m\xb3\x1b[0m\r"
        result = await granted.run_openssh("cat", given=given)
        assert result.stdout == given
        assert bytes(granted.here.target.received) == given

        def look():
            session = Session.objects.exclude(ended_at=None).first()
            if session is None or session.recording.state != "sealed":
                return None
            return recorded(session)

        events = await until(lambda: granted.ask(look))
        assert joined(events, EventKind.INPUT) == given
        assert joined(events, EventKind.OUTPUT) == given


class TestSlow:
    @pytest.fixture
    def target_context(self):
        return behind(partial(passing, piece=1))

    async def test_a_device_that_sends_byte_by_byte(self, granted, ssh_binary):
        result = await granted.run_openssh("hello")
        assert (result.returncode, result.stdout) == (0, b"hello\n")


class TestThinking:
    @pytest.fixture
    def target_context(self):
        key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        return behind(partial(passing, thinks=2), host_key=key, **OLD)

    @pytest.fixture
    def asset_fields(self):
        return {"crypto_profile": "legacy-sha1"}

    @pytest.fixture
    def settings_of_gateway(self, settings_of_gateway):
        impatient = dataclasses.replace(settings_of_gateway.upstream, kex_seconds=1.5)
        return dataclasses.replace(settings_of_gateway, upstream=impatient)

    @pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")
    async def test_an_old_profile_gives_more_time(self, granted, ssh_binary):
        """Longer than a device with today's algorithms may take."""
        result = await granted.run_openssh("hello")
        assert (result.returncode, result.stdout) == (0, b"hello\n"), result.stderr


async def test_a_client_that_has_stopped_is_given_up(granted, ssh_binary):
    """Its machine still answers TCP, but nobody answers the keepalives."""
    line, environment = granted.openssh("cat")
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"here\n")
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"here\n"
        process.send_signal(signal.SIGSTOP)
        (connection,) = granted.service._door.connections
        hurry(connection, count=2)

        async def over():
            return not granted.service.core.live

        assert await until(over)
    finally:
        process.kill()
        await process.communicate()


class TestGreeting:
    @pytest.fixture(
        params=[
            [b"Welcome to pump 7\r\n", b"\xff\xfe not text\r\n", b"\r\n"],
            [b"x" * 200 + b"\n"],
        ]
    )
    def target_context(self, request):
        return behind(partial(passing, before=request.param))

    async def test_lines_before_the_version(self, granted, ssh_binary):
        """RFC 4253 4.2 lets a server send them."""
        result = await granted.run_openssh("hello")
        assert (result.returncode, result.stdout) == (0, b"hello\n")


class TestVersion:
    @pytest.fixture(params=["Cisco-1.25", "-", "x (y; z) <script>", "9" * 200])
    def target_context(self, request):
        return echo_target(server_version=request.param)

    async def test_odd_versions(self, granted, ssh_binary):
        result = await granted.run_openssh("stdout x")
        assert (result.returncode, result.stdout) == (0, b"x\n")


class OneAtATime:
    """Takes one connection, and turns the first two after its end away."""

    def __init__(self) -> None:
        self.busy = False
        self.recovering = 0
        self.turned_away = 0

    async def serve(self, reader, writer, port):
        if self.busy or self.recovering:
            self.recovering = max(self.recovering - 1, 0)
            self.turned_away += 1
            return
        self.busy = True
        try:
            await passing(reader, writer, port)
        finally:
            self.busy, self.recovering = False, 2


class TestOneSession:
    @pytest.fixture
    def device(self):
        return OneAtATime()

    @pytest.fixture
    def target_context(self, device):
        return behind(device.serve)

    @pytest.fixture
    def asset_fields(self):
        return {"session_limit": 1}

    async def test_a_busy_device_is_tried_again(self, granted, device, ssh_binary):
        for number in range(2):
            result = await granted.run_openssh(f"number {number}")
            assert result.returncode == 0, result.stderr
        assert device.turned_away >= 2

    async def test_two_at_once_get_one_session(self, granted):
        """Whoever comes second is told; nothing waits for the first to end."""
        persons = [granted.here.engineer.code() for _ in range(2)]
        gate = asyncio.Barrier(2)

        async def come(code: str) -> str:
            connection = await granted.connect(code=code)
            await gate.wait()
            try:
                process = await connection.create_process(term_type="vt100")
            except asyncssh.ChannelOpenError as error:
                return error.reason
            process.stdin.write("hi\r")
            return await process.stdout.readuntil("echo hi")

        said = await asyncio.gather(*(come(code) for code in persons))
        assert sum("echo hi" in text for text in said) == 1, said
        assert sum("session" in text for text in said) == 1, said


ROUNDS = {
    "one": [("", "", "", [("Password: ", False)])],
    "odd text": [("", "\x1b[2J\u5bc6\u7801", "", [("\u5bc6\u7801\uff1a", False)])],
    "name and password": [
        ("Pump", "Sign in", "", [("User name: ", True), ("Password: ", False)])
    ],
    "one after the other": [
        ("", "", "", [("login: ", True)]),
        ("", "", "", [("Secret? ", False)]),
        ("", "Welcome", "", []),
    ],
}
EXPIRED = [
    ("", "", "", [("Password: ", False)]),
    ("", "Your password has expired", "", [("New password: ", False)]),
]
TOO_MUCH = [("", "", "", [("Password: ", False), ("Token code: ", False)])]
QUESTION = [("", "", "", [("Do you agree? ", True)])]


class TestPrompts:
    @pytest.fixture(params=list(ROUNDS))
    def rounds(self, request):
        return ROUNDS[request.param]

    @pytest.fixture
    def target_context(self, rounds):
        return prompting_target(rounds)

    async def test_signing_in_by_prompts(self, granted, ssh_binary):
        result = await granted.run_openssh("x")
        assert (result.returncode, result.stdout) == (0, b"x\n"), result.stderr


class TestImpossiblePrompts:
    @pytest.fixture(
        params=[
            (EXPIRED, UpstreamProblem.CREDENTIAL_EXPIRED),
            (TOO_MUCH, UpstreamProblem.QUESTION_UNKNOWN),
            (QUESTION, UpstreamProblem.QUESTION_UNKNOWN),
        ],
        ids=["expired", "token", "question"],
    )
    def case(self, request):
        return request.param

    @pytest.fixture
    def target_context(self, case):
        return prompting_target(case[0])

    async def test_what_cannot_be_answered_is_said(self, granted, case, ssh_binary):
        result = await granted.run_openssh("stdout x")
        assert result.returncode == 255
        assert f"Sluice: {SENTENCES[case[1]]}".encode() in result.stderr
        assert granted.here.target.sessions == 0
