"""The odd targets behave as other tests rely on."""

import asyncio
import contextlib
import socket

import asyncssh
import pytest

from tests import targets


@contextlib.asynccontextmanager
async def connect(target: targets.Target, **options):
    async with asyncssh.connect(
        target.address,
        target.port,
        username=target.login,
        known_hosts=asyncssh.import_known_hosts(
            f"[{target.address}]:{target.port} {target.host_key}\n"
        ),
        config=None,
        **{"client_keys": [target.client_key], **options},
    ) as connection:
        yield connection


async def test_hanging_target_says_nothing():
    async with targets.hanging_target() as target:
        with pytest.raises(TimeoutError):
            await asyncssh.connect(
                target.address, target.port, config=None, connect_timeout=0.3
            )
        assert target.connections == 1


async def test_closing_target_hangs_up():
    async with targets.closing_target() as target:
        with pytest.raises((asyncssh.ConnectionLost, ConnectionResetError)):
            await asyncssh.connect(target.address, target.port, config=None)
        assert target.connections == 1


async def test_another_host_key_is_noticed():
    other = asyncssh.generate_private_key("ssh-ed25519")
    async with targets.echo_target(host_key=other) as target:
        target.host_key = (
            asyncssh.generate_private_key("ssh-ed25519")
            .export_public_key("openssh")
            .decode()
        )
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            async with connect(target):
                pass


async def test_echo_by_key_and_by_password():
    async with targets.echo_target() as target:
        async with connect(target) as connection:
            both = await connection.run("both words")
            assert (both.stdout, both.stderr) == ("words\n", "words\n")
            assert (await connection.run("exit 42")).exit_status == 42
            ended = await connection.run("signal SEGV")
            assert ended.exit_signal is not None
            assert ended.exit_signal[0] == "SEGV"
            assert (await connection.run("cat", input="as is")).stdout == "as is"
            flood = await connection.run("flood 300000")
            assert len(str(flood.stdout)) == 300000
            waiting = await connection.create_process("await-signal")
            await waiting.stdout.readline()
            waiting.send_signal("USR1")
            assert await waiting.stdout.readline() == "USR1\n"
            size = await connection.run("size", term_type="xterm", term_size=(100, 30))
            assert str(size.stdout).strip() == "100x30"
        assert target.signals == ["USR1"]
        assert bytes(target.received) == b"as is"
        async with connect(
            target, client_keys=None, password=target.password
        ) as connection:
            assert (await connection.run("stdout in")).stdout == "in\n"
        with pytest.raises(asyncssh.PermissionDenied):
            async with connect(target, client_keys=None, password="wrong"):
                pass


async def test_flooding_target_never_ends_and_waits_for_a_slow_reader():
    async with targets.flooding_target() as target, connect(target) as connection:
        process = await connection.create_process(encoding=None)
        received = 0
        while received < 3_000_000:
            piece = await process.stdout.read(65536)
            assert piece, "the flood ended"
            received += len(piece)


async def test_deaf_target_takes_one_window_and_no_more():
    async with targets.deaf_target() as target, connect(target) as connection:
        process = await connection.create_process(encoding=None)
        await process.stdout.readline()
        process.stdin.write(bytes(20_000_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await process.stdin.drain()


def test_target_in_background_serves_a_plain_test():
    with (
        targets.in_background(targets.echo_target()) as target,
        socket.create_connection((target.address, target.port)) as client,
    ):
        assert client.recv(4) == b"SSH-"
