"""R18 and R20: strangers, slow peers and hostile ones cost a bounded amount."""

import asyncio
import resource
from dataclasses import replace
from typing import cast

import asyncssh
import pytest

from apps.gateway.limits import LoginLimits
from apps.gateway.live import Core
from apps.gateway.server import Engineer
from tests.gateway.conftest import Client, running, until
from tests.targets import deaf_target, flooding_target


def resident() -> int:
    """Bytes this process holds in memory now (Linux)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def held(core: Core) -> int:
    """Bytes of channel data the gateway holds for all sessions."""
    total = 0
    for live in core.live.values():
        total += live.recorder.backlog
        engineer = cast(Engineer, live._client)
        ends = [engineer.connection, live._upstream.connection]
        for end in ends:
            if end._transport is not None:
                total += end._transport.get_write_buffer_size()
            total += len(end._inpbuf)
            for channel in end._channels.values():
                total += channel._send_buf_len
                total += sum(len(data) for data, _ in channel._recv_buf)
    return total


class TestFloodingAsset:
    @pytest.fixture
    def target_context(self):
        return flooding_target()

    async def test_r20_an_unread_flood_is_held_back_at_the_asset(self, client):
        """R20: an endless output, and a client with a huge window that stalls."""
        await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process(
            encoding=None, window=1 << 30, max_pktsize=1 << 15
        )
        connection._transport.pause_reading()
        before = resident()
        core = client.service.core
        sizes = []
        for _ in range(40):
            await asyncio.sleep(0.05)
            sizes.append(held(core))
        assert max(sizes) < 24 << 20
        assert resident() - before < 60 << 20
        assert sizes[-1] == sizes[-10], "still growing"
        # It is only held back: the flood goes on when the client reads again.
        connection._transport.resume_reading()
        got = 0
        async with asyncio.timeout(20):
            while got < 40 << 20:
                got += len(await process.stdout.read(1 << 20))


class TestDeafAsset:
    @pytest.fixture
    def target_context(self):
        return deaf_target()

    async def test_r20_input_for_a_deaf_asset_is_held_back_at_the_client(self, client):
        """R20, the other direction: the client's own window stops it."""
        await client.ask(client.here.grant)
        connection = await client.connect()
        process = await connection.create_process(encoding=None)
        core = client.service.core
        before = resident()
        piece = bytes(1 << 20)
        sent = 0
        while sent < 64 << 20:
            process.stdin.write(piece)
            sent += len(piece)
            await asyncio.sleep(0)
        sizes = []
        for _ in range(20):
            await asyncio.sleep(0.05)
            sizes.append(held(core))
        assert max(sizes) < 16 << 20
        assert process.channel.get_write_buffer_size() > 48 << 20
        assert resident() - before < 160 << 20, "the client's own 64 MB included"


@pytest.fixture
def strict(settings_of_gateway):
    return replace(
        settings_of_gateway,
        login=LoginLimits(total=8, per_source=5, login_seconds=1.5),
    )


async def silent(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def test_r18_silent_strangers_are_closed_in_time(here, strict, tmp_path):
    """R18: slow-loris connections are capped and closed; a genuine login succeeds."""
    async with running(strict) as service:
        client = Client(service, here, tmp_path)
        await client.ask(here.grant)
        strangers = [await silent(service.ssh_port) for _ in range(30)]
        gate = service._door.gate

        async def settled():
            return gate.refused >= 25

        await until(settled)
        assert len(gate) == 5
        begin = asyncio.get_running_loop().time()
        ends = await asyncio.wait_for(
            asyncio.gather(
                *(reader.read() for reader, _ in strangers), return_exceptions=True
            ),
            5,
        )
        assert asyncio.get_running_loop().time() - begin < 3
        assert len(ends) == 30
        assert len(gate) == 0
        connection = await client.connect()
        assert (await connection.run("stdout x")).stdout == "x\n"
        connection.abort()
        for _, writer in strangers:
            writer.close()


async def test_r18_a_login_while_strangers_hold_on(here, settings_of_gateway, tmp_path):
    """R18: slow senders of one byte at a time do not keep anybody out."""
    async with running(settings_of_gateway) as service:
        client = Client(service, here, tmp_path)
        await client.ask(here.grant)
        strangers = [await silent(service.ssh_port) for _ in range(15)]
        for _, writer in strangers:
            writer.write(b"S")
        connection = await asyncio.wait_for(client.connect(), 3)
        assert (await connection.run("stdout x")).stdout == "x\n"
        connection.abort()
        for _, writer in strangers:
            writer.close()


async def test_a_signed_in_client_no_longer_counts_as_a_stranger(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    assert len(client.service._door.gate) == 0


async def test_nothing_is_left_after_many_sessions(client):
    """No task, channel, live session or connection outlives its session."""
    await client.ask(client.here.grant)
    before = len(asyncio.all_tasks())
    codes = client.here.engineer.codes
    for number in range(len(codes)):
        connection = await client.connect()
        process = await connection.create_process("cat")
        if number % 3 == 0:
            connection._transport.abort()
        elif number % 3 == 1:
            connection.close()
        else:
            next(iter(client.service.core.live.values()))._upstream.close_now()
            connection.abort()
        del process
    core = client.service.core

    async def quiet():
        return not core.live and not len(core.tasks)

    await until(quiet)
    await asyncio.sleep(0.1)
    assert len(client.service._door.connections) == 0
    assert len(asyncio.all_tasks()) <= before + 1


async def test_stopping_refuses_newcomers(client):
    await client.ask(client.here.grant)
    connection = await client.connect()
    await connection.run("stdout x")
    client.service.core.draining = True
    late = await client.connect()
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.DisconnectError)):
        await late.run("stdout y")
    client.service.core.draining = False
