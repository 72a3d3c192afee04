"""SFTP through the gateway: stock clients, a real sshd, each right alone."""

import asyncio
import hashlib
import json
import os

import pytest

from apps.audit.models import AuditEvent
from apps.recordings import operations as recordings
from apps.recordings.frames import EventKind
from apps.recordings.manifest import decode_note
from apps.recordings.models import FileTransfer, Recording
from apps.recordings.reader import RecordingReader
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.openssh_asset import EVERY_RIGHT, files, sshd_asset
from tests.gateway.test_live_control import freeze, resume

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)


async def test_stock_sftp_does_all_it_can(files, ssh_binary):
    await files.grant(*EVERY_RIGHT)
    content = os.urandom(3_000_000)
    (files.local / "up").write_bytes(content)
    status, said = await files.sftp(
        "mkdir new",
        "put up new/there",
        "get new/there down",
        "rename new/there new/other",
        "chmod 600 new/other",
        "symlink other new/link",
        "ln new/other new/hard",
        "ls -l new",
        "df .",
        "rm new/link",
        "rm new/hard",
    )
    assert status == 0, said
    assert (files.local / "down").read_bytes() == content
    assert (files.home / "new" / "other").read_bytes() == content
    assert (files.home / "new" / "other").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (files.home / "new").iterdir()) == ["other"]


RIGHTS = {
    "sftp-down": "get file down",
    "sftp-up": "put up there",
    "sftp-delete": "rm file",
    "sftp-rename": "rename file other",
    "sftp-mkdir": "mkdir folder",
    "sftp-chmod": "chmod 600 file",
    "sftp-symlink": "symlink file link",
}


@pytest.mark.parametrize("right", RIGHTS)
async def test_each_right_is_one_of_its_own(files, ssh_binary, right):
    """With one right its command works and every other is denied."""
    (files.local / "up").write_bytes(b"from here")
    (files.home / "file").write_bytes(b"from there")
    await files.grant(right)
    others = [command for name, command in RIGHTS.items() if name != right]
    status, said = await files.sftp(*[f"-{command}" for command in others])
    assert status == 0, said
    assert said.lower().count("permission denied") == len(others), said
    assert [path.name for path in files.home.iterdir()] == ["file"]
    assert (files.home / "file").read_bytes() == b"from there"
    assert not (files.local / "down").exists()
    status, said = await files.sftp("ls -l", RIGHTS[right])
    assert status == 0, said


async def test_without_any_right_sftp_does_not_open(files, ssh_binary):
    await files.grant("shell", "exec")
    status, said = await files.sftp("ls")
    assert status != 0
    assert "Sluice: the grant does not include sftp" in said


@pytest.mark.parametrize("form", ["-s", "-O"])
async def test_scp_in_both_forms(files, ssh_binary, form):
    """Up and down, folders and times (`-r`, `-p`)."""
    await files.grant(*EVERY_RIGHT)
    tree = files.local / "tree"
    (tree / "inner").mkdir(parents=True)
    content = os.urandom(700_000)
    (tree / "inner" / "file").write_bytes(content)
    (tree / "empty").touch()
    os.utime(tree / "inner" / "file", (1_000_000_000, 1_000_000_000))
    done = await files.run("scp", form, "-rp", "tree", f"HOST:{files.home}/there")
    assert done.returncode == 0, done.stderr
    there = files.home / "there" / "inner" / "file"
    assert there.read_bytes() == content
    assert there.stat().st_mtime == 1_000_000_000
    done = await files.run("scp", form, "-rp", f"HOST:{files.home}/there", "back")
    assert done.returncode == 0, done.stderr
    assert (files.local / "back" / "inner" / "file").read_bytes() == content
    assert (files.local / "back" / "empty").read_bytes() == b""


async def entries(files, count):
    """Return the session's manifest once it has `count` entries."""

    def look():
        found = list(FileTransfer.objects.order_by("started_at", "id"))
        return found if len(found) >= count else None

    return await until(lambda: files.client.ask(look))


async def recorded(files):
    """Return the events of the newest session, sealed and read back."""
    session = await files.settled()

    def look():
        recording = Recording.objects.get(session=session)
        if recording.state not in {"sealed", "verified"}:
            return None
        with RecordingReader(
            recordings.path_of(recording), recordings.data_key_of(recording)
        ) as reader:
            return list(reader.events()), recordings.verify_recording(
                recording_id=recording.pk, now=factories.clock()
            )

    return await until(lambda: files.client.ask(look))


async def test_every_file_is_in_the_manifest_with_its_checksum(files, ssh_binary):
    """R22: in the recording as an event, as a row, and in the ledger."""
    content = os.urandom(2_500_000)
    (files.local / "up").write_bytes(content)
    (files.home / "file").write_bytes(content[:1_000_001])
    await files.grant("sftp-up", "sftp-down")
    status, said = await files.sftp(
        "put up there", "get file down", "-rm there", "-get none"
    )
    assert status == 0, said
    events, intact = await recorded(files)
    assert intact
    # What was asked and answered is there; no piece of a content is.
    said = b"".join(
        e.data for e in events if e.kind in {EventKind.INPUT, EventKind.OUTPUT}
    )
    assert b"/there" in said
    assert len(said) < 100_000
    assert not any(
        content[start : start + 32] in said for start in range(0, len(content), 10_007)
    )
    notes = [decode_note(e.data) for e in events if e.kind is EventKind.FILE]
    rows = await entries(files, len(notes))
    for found in (notes, rows):
        shown = [(f.action, f.path.rpartition("/")[2], f.result, f.size) for f in found]
        assert shown == [
            ("upload", "there", "complete", len(content)),
            ("download", "file", "complete", 1_000_001),
            ("remove", "there", "denied", 0),
        ]
        assert [f.sha256 for f in found] == [
            hashlib.sha256(content).hexdigest(),
            hashlib.sha256(content[:1_000_001]).hexdigest(),
            "",
        ]
    events = await files.client.ask(
        lambda: list(AuditEvent.objects.filter(kind__startswith="recordings.files"))
    )
    in_ledger = [file for event in events for file in json.loads(event.data)["files"]]
    assert sorted(file["result"] for file in in_ledger) == [
        "complete",
        "complete",
        "denied",
    ]
    assert {event.outcome for event in events} == {"success", "denied"}


async def test_a_transfer_that_is_cut_is_partial(files, ssh_binary):
    (files.home / "file").write_bytes(os.urandom(400_000))
    await files.grant("sftp-down")
    connection = await files.client.connect(files.address)
    async with connection.start_sftp_client() as sftp:
        file = await sftp.open(f"{files.home}/file", "rb", block_size=0)
        assert len(await file.read(100_000)) == 100_000
        connection.abort()
        await connection.wait_closed()
    (row,) = await entries(files, 1)
    assert (row.result, row.size, row.reason) == (
        "partial",
        100_000,
        "it was not closed",
    )
    head = (files.home / "file").read_bytes()[:100_000]
    assert row.sha256 == hashlib.sha256(head).hexdigest()


async def test_a_freeze_by_hand_stops_a_transfer_and_loses_nothing(files, ssh_binary):
    """Both ways by flow control; when it goes on, the file arrives whole."""
    await files.grant(*EVERY_RIGHT)
    content = os.urandom(60_000_000)
    (files.local / "up").write_bytes(content)
    there = files.home / "there"
    transfer = asyncio.create_task(files.sftp("put up there", seconds=100))

    async def begun():
        return there.exists() and there.stat().st_size > 0

    await until(begun, seconds=30)
    session = await freeze(files.client)
    live = files.client.service.core.live[session.pk]

    async def still():
        """Nothing has moved since the look before."""
        size = there.stat().st_size
        await asyncio.sleep(0.5)
        return live.is_frozen and there.stat().st_size == size

    await until(still, seconds=30)
    assert there.stat().st_size < len(content)
    assert not transfer.done()
    await resume(files.client)
    status, said = await transfer
    assert status == 0, said
    assert there.read_bytes() == content
