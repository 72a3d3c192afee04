"""The gateway as a whole: other clients, rubbish from a signed-in one, taking over."""

import asyncio
import dataclasses
import time
from contextlib import AsyncExitStack, suppress

import asyncssh
import paramiko
import pytest
from asyncssh.packet import String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts import operations as accounts
from apps.gateway import fastpath
from apps.gateway.owned_tasks import OwnedTasks
from apps.gateway.service import GatewayService
from apps.sessions.lifecycle import EndReason
from apps.sessions.models import GatewayNode, Session
from tests import factories
from tests.gateway.conftest import Client, CodeTyper, running, until


async def test_paramiko_signs_in_and_runs_a_command(client):
    """Another SSH implementation than the two the other tests use."""
    await client.ask(client.here.grant)
    engineer = client.here.engineer
    key_file = client.directory / "paramiko-key"
    key_file.write_bytes(engineer.key.export_private_key("openssh"))

    def run():
        with paramiko.Transport(("127.0.0.1", client.port)) as transport:
            transport.start_client(timeout=10)
            assert transport.get_remote_server_key().get_base64() in (
                client.service.host_key_line
            )
            key = paramiko.Ed25519Key.from_private_key_file(str(key_file))
            address = client.here.address
            left = transport.auth_publickey(address, key)
            assert left == ["keyboard-interactive"]
            code = engineer.code()
            assert (
                transport.auth_interactive(
                    address, lambda title, text, prompts: [code for _ in prompts]
                )
                == []
            )
            channel = transport.open_session()
            channel.exec_command("both hello")
            out, err = channel.makefile().read(), channel.makefile_stderr().read()
            return out, err, channel.recv_exit_status()

    assert await asyncio.to_thread(run) == (b"hello\n", b"hello\n", 0)


async def test_it_also_works_without_the_fast_path(here, settings_of_gateway, tmp_path):
    async with running(settings_of_gateway) as service:
        fastpath.disable("a test")
        try:
            client = Client(service, here, tmp_path)
            async with client._stack:
                await client.ask(here.grant)
                connection = await client.connect()
                result = await connection.run("flood 5000000", encoding=None)
                assert len(result.stdout or b"") == 5_000_000
        finally:
            fastpath.enable()


REQUESTS = st.sampled_from(
    [
        b"shell",
        b"exec",
        b"subsystem",
        b"pty-req",
        b"window-change",
        b"signal",
        b"break",
        b"env",
        b"x11-req",
        b"auth-agent-req@openssh.com",
        b"exit-status",
        b"eow@openssh.com",
        b"\xff",
        b"",
    ]
)
PAYLOADS = st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=40).map(String),
    st.builds(lambda a, b: String(a) + String(b), st.binary(max_size=9), st.binary()),
    st.lists(st.integers(0, 0xFFFFFFFF), max_size=5).map(
        lambda numbers: b"".join(UInt32(number) for number in numbers)
    ),
)


async def rubbish(client, packets, channel_packets):
    """Send odd packets on a signed-in connection; any end is fine, no hang is."""
    connection = await asyncssh.connect(
        "127.0.0.1",
        client.port,
        username=client.here.address,
        client_keys=[client.here.engineer.key],
        known_hosts=(
            [asyncssh.import_public_key(client.service.host_key_line)],
            [],
            [],
        ),
        client_factory=client.typer,
        agent_path=None,
        config=None,
    )
    with suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(2):
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
            for name, payload in channel_packets:
                channel.send_packet(98, String(name), b"\x01", payload)
            for kind, payload in packets:
                connection.send_packet(kind, payload)
            await connection.wait_closed()
    connection.abort()
    await connection.wait_closed()


async def test_r37_rubbish_from_a_signed_in_client_is_survived(client):
    """R37: fuzzed channel requests and messages; the gateway serves on."""
    await client.ask(client.here.grant)
    loop = asyncio.get_running_loop()
    engineer = client.here.engineer

    def fresh_codes():
        engineer.codes = accounts.make_recovery_codes(
            user=engineer.user, now=factories.clock()
        )

    client.typer = lambda: CodeTyper(engineer.code())

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(st.tuples(st.integers(1, 127), PAYLOADS), max_size=4),
        st.lists(st.tuples(REQUESTS, PAYLOADS), max_size=6),
    )
    def fuzz(packets, channel_packets):
        if len(engineer.codes) < 2:
            fresh_codes()
        asyncio.run_coroutine_threadsafe(
            rubbish(client, packets, channel_packets), loop
        ).result(20)

    await client.ask(fuzz)
    await client.ask(fresh_codes)
    connection = await client.connect()
    assert (await connection.run("stdout on")).stdout == "on\n"
    connection.abort()

    async def quiet():
        return not client.service.core.live

    await until(quiet)


async def test_many_sessions_are_cut_at_once(client):
    """All clients see the end within a moment of each other; both legs are gone."""
    await client.ask(client.here.grant)
    typers = client.here.engineer.codes[:10]
    connections = [await client.connect() for _ in typers]
    processes = [await c.create_process(term_type="vt100") for c in connections]
    core = client.service.core
    assert len(core.live) == len(connections)
    begin = time.perf_counter()
    for session in list(core.live.values()):
        session.end(EndReason.REVOKED, "all out")
    took = time.perf_counter() - begin
    assert took < 0.05
    for process in processes:
        assert "all out" in await asyncio.wait_for(process.stdout.read(), 5)
    await asyncio.gather(*(c.wait_closed() for c in connections))
    assert time.perf_counter() - begin < 1


async def test_a_gateway_that_lost_its_name_to_another_stops_itself(
    here, settings_of_gateway, tmp_path
):
    """The newer one takes over; the older one ends its sessions and itself."""
    async with AsyncExitStack() as stack:
        older = await stack.enter_async_context(running(settings_of_gateway))
        client = Client(older, here, tmp_path)
        await client.ask(here.grant)
        connection = await client.connect()
        process = await connection.create_process(term_type="vt100")
        other_place = tmp_path / "other"
        other_place.mkdir()
        newer = await stack.enter_async_context(
            running(dataclasses.replace(settings_of_gateway, data_dir=other_place))
        )
        shown = await asyncio.wait_for(process.stdout.read(), 5)
        assert "the gateway is being stopped" in shown
        await asyncio.wait_for(older.finished.wait(), 10)

        def look():
            return (
                list(Session.objects.values_list("end_reason", flat=True)),
                GatewayNode.objects.filter(stopped_at=None).count(),
            )

        assert await newer.core.blocking.run(look) == (["gateway_lost"], 1)


async def test_a_taken_port_is_an_error_and_leaves_nothing(
    transactional_db, settings_of_gateway, free_port
):
    taken = dataclasses.replace(settings_of_gateway, ssh_port=free_port)
    blocker = await asyncio.start_server(lambda r, w: None, "127.0.0.1", free_port)
    service = GatewayService(taken)
    with pytest.raises(OSError, match="in use"):
        await service.start()
    assert service.finished.is_set()
    blocker.close()
    await blocker.wait_closed()


async def test_owned_tasks_are_awaited_heard_and_ended(caplog):
    tasks = OwnedTasks("test")

    async def fail(error):
        raise error

    tasks.spawn(fail(ValueError("loud")), "one")
    tasks.spawn(fail(KeyError("quiet")), "two", expected=(KeyError,))
    assert await tasks.wait(5)
    assert "loud" in caplog.text
    assert "quiet" not in caplog.text
    tasks.spawn(asyncio.sleep(60), "three")
    assert not await tasks.wait(0.01)
    own = tasks.spawn(tasks.cancel(), "the one that cancels")
    await own
    assert len(tasks) == 0
