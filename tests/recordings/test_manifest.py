"""The manifest of a session: its payload, its rows, and the ledger beside them."""

import datetime as dt
import json

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.audit import operations as audit
from apps.audit.models import AuditEvent
from apps.recordings import operations
from apps.recordings.cast import cast_lines
from apps.recordings.frames import Event, EventKind, LayoutError, encode_open
from apps.recordings.manifest import (
    FileAction,
    FileNote,
    FileResult,
    decode_note,
    encode_note,
    printable,
    sentence,
    text_of,
)
from apps.recordings.models import FileTransfer, Recording
from tests import factories
from tests.factories import clock
from tests.portal import plant_work

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=dt.UTC)
DIGEST = "ab" * 32


def note(**changes: object) -> FileNote:
    values: dict = {
        "action": FileAction.UPLOAD,
        "path": "/srv/file",
        "result": FileResult.COMPLETE,
        "started_at": NOW,
        "ended_at": NOW,
        "size": 5,
        "sha256": DIGEST,
    }
    return FileNote(**{**values, **changes})


NOTES = st.builds(
    FileNote,
    action=st.sampled_from(FileAction),
    path=st.binary(max_size=40).map(text_of),
    second_path=st.binary(max_size=40).map(text_of),
    result=st.sampled_from(FileResult),
    started_at=st.just(NOW),
    ended_at=st.just(NOW),
    size=st.integers(0, 2**63),
    sha256=st.sampled_from(["", DIGEST]),
    reason=st.text(max_size=40),
)


@given(NOTES)
def test_an_entry_survives_the_recording_whatever_its_path(entry: FileNote) -> None:
    assert decode_note(encode_note(entry)) == entry
    assert sentence(entry).count("\n") == 0
    assert printable(entry.path).isprintable()
    event = Event(EventKind.FILE, 1, 0, encode_note(entry))
    for line in cast_lines([event], header={}):
        assert line.count("\n") == 1
        json.loads(line.encode())


@given(st.binary(max_size=80))
def test_a_malformed_entry_is_said_to_be_one(payload: bytes) -> None:
    with pytest.raises(LayoutError):
        decode_note(payload)
    with pytest.raises(LayoutError):
        decode_note(encode_note(note()).replace(b"upload", b"up"))


def test_packets_of_files_are_not_replayed() -> None:
    events = [
        Event(EventKind.OPEN, 1, 0, encode_open("sftp")),
        Event(EventKind.INPUT, 1, 1, b"\x00packets"),
        Event(EventKind.OUTPUT, 1, 2, b"\x00packets"),
        Event(EventKind.FILE, 1, 3, encode_note(note())),
        Event(EventKind.OUTPUT, 2, 4, b"seen"),
    ]
    shown = "".join(cast_lines(events, header={}, include_input=True))
    assert "packets" not in shown
    assert "seen" in shown
    assert "upload /srv/file (5 bytes) complete" in shown


@pytest.fixture
def recording(db: None) -> Recording:
    here = factories.plant()
    session = plant_work.live_session(factories.grant(here), plant_work.gateway())
    started = operations.start_recording(session_id=session.pk, now=clock())
    return Recording.objects.get(pk=started.recording_id)


def ledger() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(kind__startswith="recordings.files"))


@pytest.mark.both_databases
def test_entries_become_rows_with_their_event(recording: Recording) -> None:
    """R22; what is not text is escaped, since a database keeps only text."""
    entries = [
        (1, note(path=text_of(b"/srv/\xff\0\n"))),
        (2, note(result=FileResult.DENIED, sha256="", size=0, reason="no right")),
    ]
    operations.note_files(
        recording_id=recording.pk, notes=entries, left_out=0, now=clock()
    )
    first, second = FileTransfer.objects.order_by("channel")
    assert first.path == "/srv/\\xff\\x00\\n"
    assert (second.result, second.reason) == ("denied", "no right")
    assert [(event.kind, event.outcome) for event in ledger()] == [
        ("recordings.files.noted", "success"),
        ("recordings.files.refused", "denied"),
    ]


@pytest.mark.both_databases
def test_what_was_left_out_is_said(recording: Recording) -> None:
    for count in (3, 4):
        operations.note_files(
            recording_id=recording.pk, notes=[], left_out=count, now=clock()
        )
    recording.refresh_from_db()
    assert recording.files_left_out == 7
    assert [json.loads(event.data)["left_out"] for event in ledger()] == [3, 4]


@pytest.mark.both_databases
def test_r22_without_the_event_there_is_no_row(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the ledger is full")

    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(RuntimeError):
        operations.note_files(
            recording_id=recording.pk, notes=[(1, note())], left_out=0, now=clock()
        )
    assert not FileTransfer.objects.exists()


@pytest.mark.both_databases
def test_a_complete_file_has_its_checksum(recording: Recording) -> None:
    with (
        pytest.raises(IntegrityError, match="complete_file_has_its_checksum"),
        transaction.atomic(),
    ):
        operations.note_files(
            recording_id=recording.pk,
            notes=[(1, note(sha256=""))],
            left_out=0,
            now=clock(),
        )
