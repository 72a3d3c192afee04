"""R19, R37: whatever a signed-in client asks for, in whatever form.

The messages are well-formed, with every field of every kind drawn at random. The asset
is a strict recorder: without a grant not even its port is touched.
"""

import asyncio
from contextlib import suppress

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
)
from asyncssh.packet import Boolean, Byte, String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts import operations as accounts
from tests import factories
from tests.gateway.conftest import until

NUMBERS = st.sampled_from([0, 1, 22, 80, 0x7FFF, 0xFFFF, 1 << 20, 0xFFFFFFFF]).map(
    UInt32
)
WORDS = st.sampled_from(
    [b"", b"\x00", b"a\x00b", b"../../etc", b"%u%h", b"\xff\xfe", b"127.0.0.1", b"::1"]
)
STRINGS = st.one_of(WORDS, st.binary(max_size=40), st.just(b"x" * 5000)).map(String)
BOOLEANS = st.booleans().map(Boolean)
MODES = st.lists(st.tuples(st.integers(0, 255).map(Byte), NUMBERS), max_size=4).map(
    lambda modes: String(b"".join(code + value for code, value in modes))
)


def fields(*parts):
    return st.tuples(*parts).map(b"".join)


REQUESTS = {
    "pty-req": fields(STRINGS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, MODES),
    "x11-req": fields(BOOLEANS, STRINGS, STRINGS, NUMBERS),
    "env": fields(STRINGS, STRINGS),
    "shell": st.just(b""),
    "exec": STRINGS,
    "subsystem": STRINGS,
    "window-change": fields(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    "xon-xoff": BOOLEANS,
    "signal": STRINGS,
    "break": NUMBERS,
    "exit-status": NUMBERS,
    "exit-signal": fields(STRINGS, BOOLEANS, STRINGS, STRINGS),
    "auth-agent-req@openssh.com": st.just(b""),
    "eow@openssh.com": st.just(b""),
    "keepalive@openssh.com": st.just(b""),
    "nobody@example.com": STRINGS,
}
ON_A_CHANNEL = st.one_of(
    *(
        st.tuples(st.just(name), BOOLEANS, payload).map(
            lambda parts: (
                MSG_CHANNEL_REQUEST,
                String(parts[0]) + parts[1] + parts[2],
            )
        )
        for name, payload in REQUESTS.items()
    ),
    STRINGS.map(lambda data: (MSG_CHANNEL_DATA, data)),
    NUMBERS.map(lambda amount: (MSG_CHANNEL_WINDOW_ADJUST, amount)),
    st.sampled_from([(MSG_CHANNEL_EOF, b""), (MSG_CHANNEL_CLOSE, b"")]),
)
GLOBAL = {
    "tcpip-forward": fields(STRINGS, NUMBERS),
    "cancel-tcpip-forward": fields(STRINGS, NUMBERS),
    "streamlocal-forward@openssh.com": STRINGS,
    "cancel-streamlocal-forward@openssh.com": STRINGS,
    "hostkeys-prove-00@openssh.com": STRINGS,
    "hostkeys-00@openssh.com": STRINGS,
    "no-more-sessions@openssh.com": st.just(b""),
    "keepalive@openssh.com": st.just(b""),
    "nobody@example.com": STRINGS,
}
OPENS = {
    "session": st.just(b""),
    "direct-tcpip": fields(STRINGS, NUMBERS, STRINGS, NUMBERS),
    "forwarded-tcpip": fields(STRINGS, NUMBERS, STRINGS, NUMBERS),
    "direct-streamlocal@openssh.com": fields(STRINGS, STRINGS, NUMBERS),
    "forwarded-streamlocal@openssh.com": fields(STRINGS, STRINGS),
    "x11": fields(STRINGS, NUMBERS),
    "auth-agent@openssh.com": st.just(b""),
    "tun@openssh.com": fields(NUMBERS, NUMBERS),
    "": STRINGS,
}
ON_THE_CONNECTION = st.one_of(
    *(
        st.tuples(st.just(name), BOOLEANS, payload).map(
            lambda parts: (
                MSG_GLOBAL_REQUEST,
                String(parts[0]) + parts[1] + parts[2],
            )
        )
        for name, payload in GLOBAL.items()
    ),
    *(
        st.tuples(st.just(name), NUMBERS, NUMBERS, NUMBERS, payload).map(
            lambda parts: (MSG_CHANNEL_OPEN, String(parts[0]) + b"".join(parts[1:]))
        )
        for name, payload in OPENS.items()
    ),
)


async def talk(client, messages, on_a_channel):
    """Send these on a new connection; any end is fine, a hang is not."""
    connection = await client.connect()
    with suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(0.5):
            for kind, payload in messages:
                connection.send_packet(kind, payload)
            loop = asyncio.get_running_loop()
            channel = asyncssh.channel.SSHClientChannel(
                connection, loop, "strict", None, "strict", 1 << 16, 1 << 15
            )
            await channel._open(b"session")
            channel._session = asyncssh.SSHClientSession()
            for kind, payload in on_a_channel:
                channel.send_packet(kind, payload)
            await connection.wait_closed()
    connection.abort()
    await connection.wait_closed()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("granted", [False, True])
async def test_r37_whatever_is_asked_for_is_survived(client, caplog, granted):
    """R19, R37: no fault, no hang, and nothing at the asset without a permit."""
    if granted:
        await client.ask(client.here.grant)
    loop, engineer = asyncio.get_running_loop(), client.here.engineer

    def fresh_codes():
        engineer.codes = accounts.make_recovery_codes(
            user=engineer.user, now=factories.clock()
        )

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(ON_THE_CONNECTION, max_size=6), st.lists(ON_A_CHANNEL, max_size=8))
    def fuzz(messages, on_a_channel):
        if len(engineer.codes) < 2:
            fresh_codes()
        told = asyncio.run_coroutine_threadsafe(
            talk(client, messages, on_a_channel), loop
        )
        told.result(30)
        if not granted:
            assert client.here.target.connections == 0

    await client.ask(fuzz)

    async def quiet():
        return not (client.service.core.live or client.service._door.connections)

    await until(quiet)
    await client.ask(fresh_codes)
    await client.ask(client.here.grant)
    connection = await client.connect()
    assert (await connection.run("stdout on")).stdout == "on\n"
    connection.abort()
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []
