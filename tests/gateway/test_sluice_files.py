"""`sluice` commands on sessions without a terminal: files and forwards."""

import asyncio
import json
import os

import pytest

from apps.sessions.models import Session
from tests.gateway.conftest import enrol, until
from tests.gateway.forwards import destination, echo, grant_forwards
from tests.gateway.openssh_asset import files, sshd_asset
from tests.gateway.test_sluice import open_watches, sluice
from tests.servers import sshd
from tests.targets import Target

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)

ODD = "bell\x07 \x1b]0;title\x07.txt"


@pytest.fixture
def target(tmp_path, sshd_binary):
    with sshd.running(tmp_path / "sshd-of-forwards", sshd_binary) as running:
        yield Target(
            port=running.port,
            host_key=running.host_key,
            login=running.login,
            client_key=sshd.private_key(running),
        )


async def approver_desk(client):
    person = await client.ask(enrol, client.here.plant.approver)
    return await client.connect(person.user.username, person=person)


async def state_is(client, state):
    async def is_so():
        return (await client.ask(Session.objects.get)).state == state

    await until(is_so)


async def test_a_file_transfer_is_watched_frozen_and_ended(files):
    """Watchers read a line for each file, in which no name steers a terminal."""
    client, content = files.client, os.urandom(3_000_000)
    (files.home / ODD).write_bytes(b"small")
    (files.home / "big").write_bytes(content)
    await files.grant("sftp-down")
    connection = await client.connect(files.address)
    desk = await approver_desk(client)
    async with connection.start_sftp_client() as sftp:
        [short] = [
            line.split()[0]
            for line in (await sluice(desk, "sessions"))[1].splitlines()[1:]
        ]
        watching = asyncio.ensure_future(sluice(desk, "watch", short))
        await until(lambda: client.ask(open_watches))
        await sftp.get(f"{files.home}/{ODD}", files.local / "odd")
        async with sftp.open(f"{files.home}/big", "rb", block_size=0) as file:
            await file.read(1000, 0)
            asked = ("freeze", short, "--reason", "gas", "--yes")
            assert (await sluice(desk, *asked))[0] == 0
            await state_is(client, "frozen")
            rest = asyncio.ensure_future(file.read(100_000, 1000))
            done, _ = await asyncio.wait({rest}, timeout=0.3)
            assert not done
            # There is no terminal: nothing to hand over.
            said = await sluice(desk, "handover", short, "anna", "--yes")
            assert said[0] == 1
            assert (await sluice(desk, "resume", short, "--yes"))[0] == 0
            assert await rest == content[1000:101_000]
        asked = ("terminate", short, "--reason", "over", "--yes")
        assert (await sluice(desk, *asked))[0] == 0
        status, out, _ = await asyncio.wait_for(watching, 20)
    assert status == 0
    assert "download" in out
    assert "title" in out
    assert "\x1b]" not in out
    assert "\x07" not in out


async def test_a_forward_is_frozen_both_ways_and_ended(client):
    async with destination(echo) as there:
        await client.ask(grant_forwards, client.here, there.service)
        connection = await client.connect()
        reader, writer = await connection.open_connection("127.0.0.1", there.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        desk = await approver_desk(client)
        [told] = json.loads((await sluice(desk, "sessions", "--json"))[1])["sessions"]
        short = told["short_id"]
        asked = ("freeze", short, "--reason", "gas", "--yes")
        assert (await sluice(desk, *asked))[0] == 0
        await state_is(client, "frozen")
        writer.write(b"held")
        waiting = asyncio.ensure_future(reader.readexactly(4))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        assert (await sluice(desk, "resume", short, "--yes"))[0] == 0
        assert await asyncio.wait_for(waiting, 20) == b"held"
        asked = ("terminate", short, "--reason", "over", "--yes")
        assert (await sluice(desk, *asked))[0] == 0
        assert await asyncio.wait_for(reader.read(), 20) == b""
