"""Uploads held for release: stock sftp and scp, a real sshd, and a second person."""

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import pytest
from django.conf import settings

from apps.access.denials import Denied
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.quarantine import operations as quarantine
from apps.quarantine.models import HeldUpload
from apps.recordings.models import FileTransfer
from tests import factories
from tests.gateway.conftest import until
from tests.gateway.openssh_asset import EVERY_RIGHT, files, sshd_asset

__all__ = ["files", "sshd_asset"]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def holding(files):
    """An asset whose uploads are held, and a grant for all there is."""
    await files.change(uploads_held=True)
    await files.grant(*EVERY_RIGHT)
    return files


async def held_rows(files, count, *states):
    """Return the held uploads once there are `count` of them in these states."""

    def look():
        rows = list(HeldUpload.objects.order_by("began_at"))
        return (
            rows
            if [row.state for row in rows if row.state in states][count - 1 :]
            else None
        )

    return await until(lambda: files.client.ask(look), 30)


async def release(files, held, by=None):
    return await files.client.ask(
        quarantine.release_upload,
        held_id=held.pk,
        by=by or files.client.here.plant.approver,
        reason="scanned and clean",
        source_address="192.0.2.7",
        now=factories.clock(),
    )


def content_on_disk(needle):
    """Say whether any file of the gateway's data holds `needle`."""
    root = Path(settings.SLUICE_DATA_DIR)
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and needle in path.read_bytes()
    ]


@pytest.mark.parametrize("program", ["sftp", "scp"])
async def test_an_upload_is_held_released_and_delivered(holding, ssh_binary, program):
    """It is not on the asset and not in the clear anywhere until somebody released
    it; then the next session of the same person delivers it."""
    needle = b"the recipe of this plant"
    content = os.urandom(9_000_000) + needle
    (holding.local / "up").write_bytes(content)
    if program == "sftp":
        status, said = await holding.sftp("put -p up there")
        assert status == 0, said
    else:
        done = await holding.run("scp", "-p", "up", "HOST:there")
        assert done.returncode == 0, done.stderr
    (held,) = await held_rows(holding, 1, "held")
    assert held.size == len(content)
    assert held.sha256 == hashlib.sha256(content).hexdigest()
    assert list(holding.home.iterdir()) == []
    assert content_on_disk(needle) == []
    note = await until(lambda: holding.client.ask(FileTransfer.objects.first))
    assert (note.result, note.sha256) == ("held", held.sha256)
    await holding.settled()
    assert isinstance(await release(holding, held), HeldUpload)
    assert list(holding.home.iterdir()) == []
    async with live_shell(holding):
        await held_rows(holding, 1, "delivered")
    assert (holding.home / "there").read_bytes() == content
    assert [path.name for path in holding.home.iterdir()] == ["there"]
    assert not quarantine.file_of(held).exists()

    def delivered():
        return FileTransfer.objects.filter(
            result="complete", reason__startswith="delivered after release by"
        ).first()

    note = await until(lambda: holding.client.ask(delivered))
    assert note.sha256 == held.sha256


@contextlib.asynccontextmanager
async def live_shell(files):
    """A session that lives while its shell is open."""
    connection = await files.client.connect(files.address)
    async with connection, connection.create_process():
        yield


async def test_a_live_session_delivers_at_once(holding, ssh_binary):
    (holding.local / "up").write_bytes(b"new program")
    (holding.home / "there").write_bytes(b"old program")
    async with live_shell(holding):
        status, said = await holding.sftp("put up there", "ls -l")
        assert status == 0, said
        assert (holding.home / "there").read_bytes() == b"old program"
        (held,) = await held_rows(holding, 1, "held")
        assert await release(holding, held)
        await held_rows(holding, 1, "delivered")
    assert (holding.home / "there").read_bytes() == b"new program"


async def test_a_delivery_that_fails_stays_released_with_its_problem(
    holding, ssh_binary
):
    (holding.local / "up").write_bytes(b"new program")
    async with live_shell(holding):
        status, said = await holding.sftp("put up missing/there")
        assert status == 0, said
        (held,) = await held_rows(holding, 1, "held")
        assert await release(holding, held)

        def problem():
            row = HeldUpload.objects.get(pk=held.pk)
            return row if row.problem else None

        row = await until(lambda: holding.client.ask(problem), 30)
    assert row.state == "released"
    assert list(holding.home.iterdir()) == []


async def test_who_may_not_release(holding, ssh_binary):
    """The uploader, an administrator, the auditor, an approver of another site."""
    (holding.local / "up").write_bytes(b"new program")
    status, said = await holding.sftp("put up there")
    assert status == 0, said
    (held,) = await held_rows(holding, 1, "held")
    plant = holding.client.here.plant
    other = await holding.client.ask(factories.plant)
    people = [plant.engineer, plant.administrator, plant.auditor, other.approver]
    for person in people:
        assert isinstance(await release(holding, held, by=person), Denied)

    def look():
        return (
            HeldUpload.objects.get(pk=held.pk).state,
            AuditEvent.objects.filter(kind=Kind.UPLOAD_REFUSED).count(),
        )

    assert await holding.client.ask(look) == ("held", len(people))


@pytest.mark.parametrize(
    "command", ["put -a up there", "rename there other", "rm there"]
)
async def test_what_would_go_around_the_hold_is_refused(holding, ssh_binary, command):
    (holding.local / "up").write_bytes(b"new program, the longer one")
    if command.startswith("put"):
        (holding.home / "there").write_bytes(b"old")
        before = []
    else:
        before = ["put up there"]
    status, said = await holding.sftp(*before, f"-{command}")
    assert status == 0, said
    assert "unsupported" in said or "denied" in said

    def reason():
        return FileTransfer.objects.filter(
            result="denied", reason__contains="held for release"
        ).exists()

    assert await until(lambda: holding.client.ask(reason))
    there = holding.home / "there"
    assert not there.exists() or there.read_bytes() == b"old"


async def test_scp_of_old_says_what_to_use_instead(holding, ssh_binary):
    (holding.local / "up").write_bytes(b"new program")
    done = await holding.run("scp", "-O", "up", "HOST:there")
    assert done.returncode != 0
    assert b"uploads are held for release here: use sftp" in done.stderr
    assert list(holding.home.iterdir()) == []


async def test_an_upload_cut_short_is_broken(holding, ssh_binary):
    """It can never be released, and nothing of it stays."""
    (holding.local / "up").write_bytes(os.urandom(50_000_000))
    line = asyncio.ensure_future(
        holding.run(
            "sftp", "HOST", given=b"put up there\n", options=["-l", "800", "-b", "-"]
        )
    )
    await held_rows(holding, 1, "receiving")
    for session in list(holding.client.service.core.live.values()):
        session.client_lost(OSError("the cable was pulled"))
    assert (await line).returncode != 0
    (held,) = await held_rows(holding, 1, "broken")
    assert isinstance(await release(holding, held), Denied)
    assert not quarantine.file_of(held).exists()
    assert list(holding.home.iterdir()) == []
