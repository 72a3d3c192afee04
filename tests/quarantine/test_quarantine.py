"""The store of held uploads and what becomes of their rows."""

import datetime as dt
import threading
import uuid

import pytest
from django.db import IntegrityError, connections, transaction

from apps.access.denials import DenialCode, Denied
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent
from apps.quarantine import operations
from apps.quarantine.lifecycle import TRANSITIONS, HeldState
from apps.quarantine.models import HeldUpload
from apps.quarantine.store import ContentBrokenError, HeldWriter, read_content
from apps.vault.models import StoredSecret
from tests import factories
from tests.portal import plant_work

KEY = bytes(range(32))


@pytest.fixture
def written(tmp_path):
    row_id, path = uuid.uuid4(), tmp_path / "x.held"
    writer = HeldWriter(path, data_key=KEY, row_id=row_id, minimum_free_bytes=0)
    for piece in (b"a" * 70_000, b"", b"b" * 2_500_000):
        writer.append(piece)
    writer.finish()
    return path, row_id


def test_content_comes_back_and_is_not_in_the_clear(written):
    path, row_id = written
    content = b"".join(read_content(path, data_key=KEY, row_id=row_id))
    assert content == b"a" * 70_000 + b"b" * 2_500_000
    assert b"aaaa" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["cut", "flip", "more", "row", "key", "piece"])
def test_content_that_was_changed_is_not_read(written, change):
    path, row_id = written
    key, data = KEY, bytearray(path.read_bytes())
    if change == "cut":
        # Exactly the last piece, which says that it is the last.
        data = data[:-20]
    elif change == "flip":
        data[1000] ^= 1
    elif change == "more":
        data += b"\0"
    elif change == "row":
        row_id = uuid.uuid4()
    elif change == "key":
        key = bytes(32)
    else:
        data[14:18] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ContentBrokenError):
        list(read_content(path, data_key=key, row_id=row_id))


def test_a_full_disk_is_an_error_before_it_is_full(tmp_path):
    writer = HeldWriter(
        tmp_path / "x", data_key=KEY, row_id=uuid.uuid4(), minimum_free_bytes=1 << 62
    )
    with pytest.raises(OSError, match="nearly full"):
        writer.append(b"x")
    writer.close()


def made():
    """Return a plant and a held upload of its engineer."""
    plant = factories.plant()
    session = plant_work.live_session(factories.grant(plant), plant_work.gateway())
    return plant, plant_work.held_upload(session)


def decide(operation, held, by, reason="looked at"):
    return operation(
        held_id=held.pk,
        by=by,
        reason=reason,
        source_address="192.0.2.1",
        now=factories.clock(),
    )


@pytest.mark.django_db
def test_rejected_content_is_destroyed_with_its_key():
    plant, held = made()
    denied = decide(operations.reject_upload, held, plant.approver, reason=" ")
    assert isinstance(denied, Denied)
    assert denied.code is DenialCode.REASON_MISSING
    assert decide(operations.reject_upload, held, plant.approver)
    held.refresh_from_db()
    assert (held.state, held.secret_id) == ("rejected", None)
    assert not StoredSecret.objects.filter(purpose="held upload").exists()
    assert AuditEvent.objects.filter(kind=Kind.UPLOAD_REJECTED).count() == 1


@pytest.mark.django_db
def test_the_database_itself_keeps_the_uploader_from_releasing():
    _plant, held = made()
    with pytest.raises(IntegrityError), transaction.atomic():
        HeldUpload.objects.filter(pk=held.pk).update(
            decided_by=held.uploader,
            decided_at=factories.clock(),
            decision_reason="mine",
        )


@pytest.mark.django_db
def test_what_nobody_took_in_time_expires_and_the_row_stays(settings):
    plant, held = made()
    _other, released = made()
    assert decide(operations.release_upload, released, _other.approver)
    soon = factories.clock() + dt.timedelta(days=settings.HELD_UPLOAD_DAYS - 1)
    assert operations.expire_due(now=soon) == 0
    assert operations.expire_due(now=soon + dt.timedelta(days=2)) == 2
    for row in (held, released):
        row.refresh_from_db()
        assert (row.state, row.secret_id) == ("expired", None)
    assert isinstance(
        operations.open_for_scan(
            held_id=held.pk,
            by=plant.approver,
            source_address="192.0.2.1",
            now=factories.clock(),
        ),
        Denied,
    )


@pytest.mark.django_db
def test_what_a_lost_gateway_was_receiving_is_broken():
    plant = factories.plant()
    session = plant_work.live_session(factories.grant(plant), plant_work.gateway())
    now = factories.clock()
    begun = operations.begin_upload(session_id=session.pk, path=b"x", now=now)
    assert operations.give_up_orphans(now=now + dt.timedelta(hours=1)) == 0
    plant_work.end(session)
    assert operations.give_up_orphans(now=now + dt.timedelta(hours=1)) == 1
    assert HeldUpload.objects.get(pk=begun.held_id).state == HeldState.BROKEN


@pytest.mark.django_db
def test_the_content_is_for_whoever_decides_and_that_is_written_down():
    plant, held = made()

    def scan(person):
        return operations.open_for_scan(
            held_id=held.pk,
            by=person,
            source_address="192.0.2.1",
            now=factories.clock(),
        )

    for person in (plant.engineer, plant.auditor, plant.administrator):
        assert isinstance(scan(person), Denied)
    assert b"".join(scan(plant.approver)) == b"a program for a PLC"
    assert AuditEvent.objects.filter(kind=Kind.UPLOAD_SCANNED).count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_decide_at_once_have_one_winner():
    plant, held = made()
    barrier, answers = threading.Barrier(2), []

    def run(operation, person):
        try:
            barrier.wait(20)
            answers.append(decide(operation, held, person))
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=each)
        for each in (
            (operations.release_upload, plant.approver),
            (operations.reject_upload, plant.second_approver),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(isinstance(answer, Denied) for answer in answers) == [False, True]
    kinds = [Kind.UPLOAD_RELEASED, Kind.UPLOAD_REJECTED]
    assert AuditEvent.objects.filter(kind__in=kinds).count() == 1


def test_the_table_of_states_has_no_way_around_a_decision():
    assert TRANSITIONS[HeldState.HELD] >= {HeldState.RELEASED, HeldState.REJECTED}
    into = [a for a, after in TRANSITIONS.items() if HeldState.DELIVERED in after]
    assert into == [HeldState.RELEASED]
    for end in ("broken", "expired", "rejected", "delivered"):
        assert not TRANSITIONS[HeldState(end)]
