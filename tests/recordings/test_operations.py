"""Recordings in the database: sealed once, read back, recovered, opened by auditors."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest
from django.db import DatabaseError, transaction

from apps.access.authorization import authorize_connection
from apps.access.denials import Denied
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.recordings import operations, queries
from apps.recordings.frames import EventKind
from apps.recordings.lifecycle import TRANSITIONS, RecordingState
from apps.recordings.models import Recording, Viewing
from apps.recordings.writer import RecorderThread
from apps.sessions import gateways
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import EndReason
from tests import factories
from tests.factories import clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


@pytest.fixture(autouse=True)
def recordings_dir(settings, tmp_path):
    settings.RECORDINGS_DIR = tmp_path / "recordings"
    return settings.RECORDINGS_DIR


def _session(here):
    gateway = gateways.register_gateway(
        name="gateway-1", version="0", ssh_address="", link_address="", now=clock()
    )
    grant = factories.grant(here)
    permit = _permit(here, grant)
    return sessions.open_session(
        permit=permit, gateway_id=gateway.pk, client="test", now=clock()
    )


def _permit(here, grant):
    permit = authorize_connection(
        user=grant.person,
        asset_name=here.asset.name,
        account_name=None,
        source_address="192.0.2.7",
        door="ssh",
        now=clock(),
    )
    assert permit
    return permit


def _write(start, *, seal=True):
    """Record a little through the real writer; returns what the seal says, if any."""

    async def run():
        thread = RecorderThread()
        thread.start()
        try:
            recorder = await asyncio.to_thread(
                thread.open,
                start.path,
                header=start.header,
                data_key=start.data_key,
                signer=start.signer,
                loop=asyncio.get_running_loop(),
            )
            recorder.add(EventKind.INPUT, 1, b"uptime\r")
            recorder.add(EventKind.OUTPUT, 1, b"up 3 days\r\n")
            return await asyncio.wrap_future(recorder.close())
        finally:
            await asyncio.to_thread(thread.stop)

    sealed = asyncio.run(run())
    if not seal:
        _cut_seal(start.path)
    return sealed


def _cut_seal(path: Path) -> None:
    """Leave the file as a killed gateway does: without its seal."""
    content = path.read_bytes()
    at = content.rindex(b"SEAL") if b"SEAL" in content else len(content)
    path.write_bytes(content[:at])


def _sealed(here):
    session = _session(here)
    start = operations.start_recording(session_id=session.pk, now=clock())
    sealed = _write(start)
    sessions.close_session(
        session_id=session.pk, reason=EndReason.FINISHED, now=clock()
    )
    assert operations.seal_recording(
        recording_id=start.recording_id, sealed=sealed, now=clock()
    )
    return Recording.objects.get(pk=start.recording_id), start


def test_the_table_of_states_is_whole():
    assert set(TRANSITIONS) == set(RecordingState)


def test_a_recording_is_sealed_and_read_back():
    """R29: each stored recording is verified after writing."""
    recording, start = _sealed(factories.plant())
    assert recording.state == RecordingState.SEALED
    assert recording.bytes_in == 7
    assert recording.bytes_out == 11
    assert operations.verify_due(now=clock()) == 1
    recording.refresh_from_db()
    assert recording.state == RecordingState.VERIFIED
    for path in (start.path, *start.path.parents[:4]):
        assert path.stat().st_mode & 0o077 == 0, path
    for kind in (
        Kind.RECORDING_STARTED,
        Kind.RECORDING_SEALED,
        Kind.RECORDING_VERIFIED,
    ):
        assert AuditEvent.objects.filter(kind=kind).count() == 1


def test_the_data_key_does_not_show():
    session = _session(factories.plant())
    start = operations.start_recording(session_id=session.pk, now=clock())
    assert repr(start.data_key) not in repr(start)


def test_one_flipped_byte_is_an_alarm():
    """R29: a corrupt byte is never silent."""
    recording, start = _sealed(factories.plant())
    content = bytearray(start.path.read_bytes())
    content[len(content) // 2] ^= 1
    start.path.write_bytes(content)
    assert not operations.verify_recording(recording_id=recording.pk, now=clock())
    recording.refresh_from_db()
    assert recording.state == RecordingState.BROKEN
    assert recording.problem
    assert AuditEvent.objects.filter(kind=Kind.RECORDING_BROKEN).count() == 1


def test_a_missing_file_is_an_alarm():
    recording, start = _sealed(factories.plant())
    start.path.unlink()
    assert not operations.verify_recording(recording_id=recording.pk, now=clock())
    recording.refresh_from_db()
    assert recording.state == RecordingState.BROKEN


def test_another_sealed_file_in_its_place_is_found():
    """A whole recording with a good seal, but not this session's."""
    here = factories.plant()
    recording, start = _sealed(here)
    _other, other_start = _sealed(factories.plant())
    start.path.write_bytes(other_start.path.read_bytes())
    assert not operations.verify_recording(recording_id=recording.pk, now=clock())


def test_what_was_sealed_is_immutable_in_the_database():
    recording, _start = _sealed(factories.plant())
    with (
        pytest.raises(DatabaseError, match="sealed_recording_is_immutable"),
        transaction.atomic(),
    ):
        Recording.objects.filter(pk=recording.pk).update(root_hash="00")


def test_what_a_lost_gateway_left_is_sealed_as_recovered():
    session = _session(factories.plant())
    start = operations.start_recording(session_id=session.pk, now=clock())
    _write(start, seal=False)
    later = clock() + dt.timedelta(seconds=2)
    assert operations.recover_orphans(now=later) == 0, "the session is live"
    sessions.close_session(
        session_id=session.pk, reason=EndReason.GATEWAY_LOST, now=clock()
    )
    later = clock() + dt.timedelta(seconds=2)
    assert operations.recover_orphans(now=later) == 1
    assert operations.recover_orphans(now=later) == 0
    recording = Recording.objects.get()
    assert recording.sealed_how == "recovered"
    assert recording.bytes_out == 11
    assert operations.verify_recording(recording_id=recording.pk, now=later)


def test_a_recording_without_its_file_cannot_be_recovered_silently():
    session = _session(factories.plant())
    operations.start_recording(session_id=session.pk, now=clock())
    sessions.close_session(
        session_id=session.pk, reason=EndReason.GATEWAY_LOST, now=clock()
    )
    operations.recover_orphans(now=clock() + dt.timedelta(seconds=2))
    assert Recording.objects.get().state == RecordingState.BROKEN


def test_only_auditors_of_the_site_open_a_recording():
    here, elsewhere = factories.plant(), factories.plant()
    recording, _start = _sealed(here)
    people = {
        "auditor": here.auditor,
        "engineer": here.engineer,
        "approver": here.approver,
        "administrator": here.administrator,
        "foreign auditor": elsewhere.auditor,
    }
    opened = set()
    for name, person in people.items():
        reader = operations.open_for_viewing(
            recording_id=recording.pk,
            viewer=person,
            how="replay",
            source_address="192.0.2.9",
            now=clock(),
        )
        if isinstance(reader, Denied):
            assert recording not in queries.recordings_visible_to(person)
            continue
        with reader:
            data = b"".join(
                event.data
                for event in reader.events()
                if event.kind == EventKind.OUTPUT
            )
        assert data == b"up 3 days\r\n"
        opened.add(name)
    assert opened == {"auditor"}
    assert Viewing.objects.get().viewer == here.auditor
    assert AuditEvent.objects.filter(kind=Kind.RECORDING_REFUSED).count() == 4


def test_an_auditor_does_not_audit_themselves():
    here = factories.plant()
    recording, _start = _sealed(here)
    type(here.engineer).objects.filter(pk=here.engineer.pk).update(is_auditor=True)
    here.engineer.refresh_from_db()
    assert not queries.may_view(here.engineer, recording)


def test_a_path_out_of_the_directory_is_refused():
    """R5: store keys are confined."""
    recording, _start = _sealed(factories.plant())
    recording.store_key = "../../etc/passwd"
    with pytest.raises(ValueError, match="outside"):
        operations.path_of(recording)
