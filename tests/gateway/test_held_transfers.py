"""A stock client with a forward and a file transfer in one session that is held."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager

import pytest

from apps.inventory import operations as inventory
from apps.recordings.models import FileTransfer
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.forwards import connected, destination, local_port, tunnel
from tests.gateway.openssh_asset import EVERY_RIGHT, files, sshd_asset
from tests.gateway.test_live_control import freeze, noted, resume

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(180)

SLOW = ["-l", "80000"]
"""Ten megabytes a second, so that a transfer is still running when it is held."""

MOST_BUFFERED = 8 << 20


async def let(files, *services):
    def change():
        inventory.change_conduit(
            conduit_id=files.client.here.plant.conduit.pk,
            services=[*EVERY_RIGHT, *services],
            by=factories.SET_UP,
            now=factories.clock(),
        )
        factories.grant(
            files.client.here.plant, account=files.account, services=services
        )

    await files.client.ask(change)


@asynccontextmanager
async def shared(files, there, port):
    """A stock client that forwards `port`, and whose connection others may share."""
    mux = f"-oControlPath={files.client.directory / 'mux'}"
    async with tunnel(
        files.client,
        "-N",
        "-oControlMaster=yes",
        mux,
        f"-L{port}:{there.text}",
        user_string=files.address,
    ):
        yield mux


async def sftp(files, mux, *commands):
    """Run stock sftp over the shared connection."""
    return await files.run(
        "sftp",
        "HOST",
        given="\n".join(commands).encode() + b"\n",
        options=["-q", mux, *SLOW, "-b", "-"],
        seconds=120,
    )


class Talker:
    """Sends for as long as it is let, and reads what the destination echoes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.bytes_sent = self.bytes_got = 0
        self.enough = asyncio.Event()

    async def send(self):
        while not self.enough.is_set():
            piece = os.urandom(1 << 15)
            self.sent.update(piece)
            self.bytes_sent += len(piece)
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)
        self.writer.write_eof()

    async def read(self):
        while piece := await self.reader.read(1 << 16):
            self.got.update(piece)
            self.bytes_got += len(piece)


async def echo(here, reader, writer):
    while data := await reader.read(1 << 16):
        here.connections += len(data)
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def buffered(session):
    """Return the bytes that the gateway holds for the session's channels."""
    held = 0
    for relay in session.relays.values():
        for channel in (relay._front, relay._back):
            held += channel._send_buf_len
            held += sum(len(data) for data, _ in channel._recv_buf)
        inspector = getattr(relay, "_inspector", None)
        if inspector is not None:
            held += sum(map(len, inspector._waiting))
    return held


async def stands_still(look):
    """Return what `look` returns once it has been the same for a second."""
    async with asyncio.timeout(60):
        last = None
        while (seen := look()) != last:
            last = seen
            await asyncio.sleep(1)
        return seen


def size_of(path):
    return path.stat().st_size if path.exists() else 0


async def test_a_freeze_by_a_person_holds_forward_and_download(files, ssh_binary):
    """Bytes stop both ways, nothing piles up, and after the resume none is missing."""
    content = os.urandom(30_000_000)
    (files.home / "file").write_bytes(content)
    copy, port = files.local / "copy", local_port()
    async with destination(echo) as there:
        await let(files, "sftp-down", there.service)
        async with shared(files, there, port) as mux, connected(port) as streams:
            talker = Talker(*streams)
            talking = asyncio.gather(talker.send(), talker.read())
            download = asyncio.create_task(sftp(files, mux, "get file copy"))
            await until(lambda: told(size_of(copy) and talker.bytes_got))
            (session,) = files.client.service.core.live.values()
            await freeze(files.client)
            await noted(files.client, "frozen")

            def moved():
                return (
                    size_of(copy),
                    talker.bytes_sent,
                    talker.bytes_got,
                    there.connections,
                    buffered(session),
                )

            held = await stands_still(moved)
            assert held[0] < len(content), "the download was over before the freeze"
            assert held[-1] < MOST_BUFFERED
            assert not download.done()
            await resume(files.client)
            await until(lambda: told(talker.bytes_got > held[2]))
            talker.enough.set()
            done = await download
            await talking
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(copy.read_bytes()).digest() == (
        hashlib.sha256(content).digest()
    )
    assert talker.got.digest() == talker.sent.digest()
    assert talker.bytes_got == talker.bytes_sent > held[2]

    def look():
        return FileTransfer.objects.filter(action="download").first()

    row = await until(lambda: files.client.ask(look))
    assert (row.result, row.size) == ("complete", len(content))
    assert row.sha256 == hashlib.sha256(content).hexdigest()


async def test_a_drain_lets_forward_and_upload_finish_and_opens_no_more(
    files, ssh_binary
):
    content = os.urandom(20_000_000)
    (files.local / "file").write_bytes(content)
    port = local_port()
    await files.change(on_expiry="drain", grace_seconds=120)
    async with destination(echo) as there:
        await let(files, "sftp-up", there.service)
        async with shared(files, there, port) as mux, connected(port) as streams:
            talker = Talker(*streams)
            talking = asyncio.gather(talker.send(), talker.read())
            upload = asyncio.create_task(sftp(files, mux, "put file there"))
            await until(lambda: told(size_of(files.home / "there")))
            await until(lambda: told(talker.bytes_got))
            (session,) = files.client.service.core.live.values()
            session.time_is_up()
            assert not upload.done()
            at_the_deadline = talker.bytes_got
            refused = await sftp(files, mux, "pwd")
            assert refused.returncode != 0
            async with connected(port) as (reader, _):
                assert await asyncio.wait_for(reader.read(), 30) == b""
            await until(lambda: told(talker.bytes_got > at_the_deadline))
            done = await upload
            assert not session.ended.is_set(), "the forward is still there"
            talker.enough.set()
            await talking
            await asyncio.wait_for(session.ended.wait(), 30)
    assert done.returncode == 0, done.stderr
    assert (files.home / "there").read_bytes() == content
    assert talker.got.digest() == talker.sent.digest()
    assert (await files.settled()).end_reason == "expired"
    (row,) = await files.client.ask(lambda: list(FileTransfer.objects.all()))
    assert (row.action, row.result) == ("upload", "complete")


async def told(value):
    return value
