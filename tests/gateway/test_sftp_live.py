"""SFTP in a session that is frozen, cut or drained; other clients; a slow client."""

import asyncio
import datetime as dt
import hashlib
import os

import asyncssh
import paramiko
import pytest

from apps.recordings.models import FileTransfer
from apps.sessions import controls
from apps.sessions.models import Session
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.openssh_asset import files, sshd_asset

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)


def live(files):
    (session,) = files.client.service.core.live.values()
    return session


async def test_a_freeze_holds_a_transfer_and_loses_nothing(files):
    """Both directions stand still, by flow control; then it goes on to the end."""
    content = os.urandom(6_000_000)
    (files.home / "file").write_bytes(content)
    await files.grant("sftp-down")
    connection = await files.client.connect(files.address)
    async with connection.start_sftp_client() as sftp:
        async with sftp.open(f"{files.home}/file", "rb", block_size=0) as file:
            head = await file.read(1000, 0)
            live(files).hold("held")
            rest = asyncio.ensure_future(file.read(30_000, 1000))
            done, _ = await asyncio.wait({rest}, timeout=0.5)
            assert not done, "it went on in a frozen session"
            live(files).release("go on")
            assert head + await rest == content[:31_000]
        assert await sftp.realpath(".") == str(files.home)
        await sftp.get(f"{files.home}/file", files.local / "all")
    assert (files.local / "all").read_bytes() == content


async def test_the_requests_that_wait_in_a_freeze_come_in_order(files):
    await files.grant("sftp-mkdir", "sftp-delete")
    connection = await files.client.connect(files.address)
    async with connection.start_sftp_client() as sftp:
        live(files).hold("held")
        asked = [
            asyncio.ensure_future(step)
            for name in ("a", "b")
            for step in (sftp.mkdir(name), sftp.rmdir(name), sftp.mkdir(name))
        ]
        done, _ = await asyncio.wait(asked, timeout=0.3)
        assert not done
        assert not list(files.home.iterdir())
        live(files).release("go on")
        await asyncio.gather(*asked)
    assert sorted(path.name for path in files.home.iterdir()) == ["a", "b"]


async def test_a_cut_ends_a_transfer_at_once_and_it_is_partial(files):
    await files.grant("sftp-up")
    connection = await files.client.connect(files.address)
    sftp = await connection.start_sftp_client()
    file = await sftp.open(f"{files.home}/file", "wb", block_size=0)
    await file.write(b"x" * 10_000)
    session = live(files)
    session.time_is_up()
    with pytest.raises((asyncssh.Error, OSError)):
        await file.write(b"y" * 10_000)
    await session.ended.wait()

    def look():
        return list(FileTransfer.objects.all())

    (row,) = await until(lambda: files.client.ask(look))
    assert (row.action, row.result, row.size) == ("upload", "partial", 10_000)
    assert row.sha256 == hashlib.sha256(b"x" * 10_000).hexdigest()
    assert (files.home / "file").read_bytes() == b"x" * 10_000


async def test_a_drain_lets_a_running_transfer_finish(files):
    await files.change(on_expiry="drain", grace_seconds=60)
    await files.grant("sftp-up")
    connection = await files.client.connect(files.address)
    sftp = await connection.start_sftp_client()
    file = await sftp.open(f"{files.home}/file", "wb", block_size=0)
    await file.write(b"x" * 10_000)
    session = live(files)
    session.time_is_up()
    assert not session.is_active()
    await file.write(b"y" * 10_000)
    await file.close()
    with pytest.raises((asyncssh.Error, OSError)):
        await connection.start_sftp_client()
    sftp.exit()
    await session.ended.wait()
    assert (files.home / "file").read_bytes() == b"x" * 10_000 + b"y" * 10_000
    (row,) = await files.client.ask(lambda: list(FileTransfer.objects.all()))
    assert row.result == "complete"


async def test_a_revocation_ends_a_transfer(files):
    await files.grant("sftp-up")
    connection = await files.client.connect(files.address)
    sftp = await connection.start_sftp_client()
    file = await sftp.open(f"{files.home}/file", "wb", block_size=0)
    await file.write(b"x")

    def terminate():
        return controls.ask_terminate(
            session_id=Session.objects.get().pk,
            by=files.client.here.plant.approver,
            reason="enough",
            now=factories.clock(),
        )

    session = live(files)
    await files.client.ask(terminate)
    await asyncio.wait_for(session.ended.wait(), 20)
    with pytest.raises((asyncssh.Error, OSError)):
        await file.write(b"y")


async def test_a_client_that_does_not_read_its_denials_has_to_wait(files):
    """The gateway's own answers are bounded, too: it stops reading requests."""
    await files.grant("sftp-down")
    connection = await files.client.connect(files.address)
    writer, reader, _ = await connection.open_session(
        subsystem="sftp", encoding=None, window=1 << 14
    )
    reader.channel.pause_reading()
    name = b"x" * 200
    body = len(name).to_bytes(4, "big") + name
    writer.write(b"\0\0\0\5\1\0\0\0\3")
    session = live(files)
    (relay,) = session.relays.values()
    await until(lambda: _is(relay._inspector._agreed))
    flood = b"".join(
        (5 + len(body)).to_bytes(4, "big") + b"\x0d" + number.to_bytes(4, "big") + body
        for number in range(100_000)
    )
    writer.write(flood)
    await until(lambda: _is(bool(relay._front_holds)))
    channel = relay._front
    await until(lambda: _is(channel._recv_window < channel._init_recv_window // 2))
    assert channel._send_buf_len < 1 << 21
    connection.abort()


async def _is(value):
    return value


async def test_paramiko(files):
    """Its own way of signing in, prefetching and of sizes."""
    content = os.urandom(1_500_000)
    (files.local / "up").write_bytes(content)
    await files.grant("sftp-up", "sftp-down", "sftp-mkdir", "sftp-delete")
    person = files.client.here.engineer
    key = paramiko.Ed25519Key.from_private_key_file(str(_key_file(files, person)))
    code = person.code()

    def use() -> str:
        transport = paramiko.Transport(("127.0.0.1", files.client.port))
        try:
            transport.start_client(timeout=20)
            assert transport.auth_publickey(files.address, key) == [
                "keyboard-interactive"
            ]
            transport.auth_interactive(files.address, lambda *_: [code])
            sftp = paramiko.SFTPClient.from_transport(transport)
            sftp.chdir(str(files.home))
            sftp.put(str(files.local / "up"), "there", confirm=True)
            sftp.get("there", str(files.local / "back"))
            with sftp.open("there", "rb") as file:
                file.seek(1_000_000)
                assert file.read(10) == content[1_000_000:1_000_010]
            sftp.mkdir("folder")
            with pytest.raises(PermissionError, match="Sluice"):
                sftp.rename("there", "folder/there")
            sftp.rmdir("folder")
            return "done"
        finally:
            transport.close()

    assert await asyncio.to_thread(use) == "done"
    assert (files.local / "back").read_bytes() == content
    await files.settled()

    def look():
        found = {
            (row.action, row.result): row.sha256 for row in FileTransfer.objects.all()
        }
        return found if len(found) >= 5 else None

    found = await until(lambda: files.client.ask(look))
    digest = hashlib.sha256(content).hexdigest()
    assert found[("upload", "complete")] == digest
    assert found[("download", "complete")] == digest
    assert found[("download", "partial")] == ""


def _key_file(files, person):
    path = files.client.directory / "paramiko-key"
    path.touch(mode=0o600)
    path.write_bytes(person.key.export_private_key("openssh"))
    return path


async def test_asyncssh(files):
    """Many parts at once, in both directions, and whole trees."""
    content = os.urandom(5_000_000)
    tree = files.local / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_bytes(content)
    await files.grant("sftp-up", "sftp-down", "sftp-mkdir")
    connection = await files.client.connect(files.address)
    async with connection.start_sftp_client() as sftp:
        await sftp.put(tree, f"{files.home}/there", recurse=True, preserve=True)
        await sftp.get(f"{files.home}/there", files.local / "back", recurse=True)
    assert (files.local / "back" / "inner" / "file").read_bytes() == content

    def look():
        found = list(FileTransfer.objects.filter(size=len(content)))
        return found if len(found) == 2 else None

    for row in await until(lambda: files.client.ask(look)):
        assert (row.result, row.sha256) == (
            "complete",
            hashlib.sha256(content).hexdigest(),
        )
        assert row.ended_at - row.started_at < dt.timedelta(minutes=1)
