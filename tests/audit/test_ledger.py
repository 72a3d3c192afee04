"""The ledger: chained, gapless, append-only, in the transaction of what it records."""

import datetime as dt
import threading

import pytest
from django.db import DatabaseError, connection, connections, transaction

from apps.audit import operations as audit
from apps.audit import queries, wakeup
from apps.audit.chain import GENESIS
from apps.audit.kinds import SENTENCES, Kind
from apps.audit.models import AuditEvent
from tests.factories import SET_UP, clock

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def _record(kind: Kind = Kind.SITE_CHANGED, **data: object) -> AuditEvent:
    with transaction.atomic():
        return audit.record(kind, now=clock(), actor=SET_UP, data=data)


def test_every_kind_has_a_sentence():
    assert set(SENTENCES) == set(Kind)
    assert all(text.endswith(".") for text in SENTENCES.values())


def test_events_are_numbered_and_chained():
    before, head = audit.ledger_head()
    first, second = _record(a=1), _record(b=[1, "zwei", None])
    assert [first.seq, second.seq] == [before + 1, before + 2]
    assert bytes(first.previous_hash) == (head if before else GENESIS)
    assert bytes(second.previous_hash) == bytes(first.hash)
    assert queries.verify_chain()


def test_the_stored_event_hashes_to_what_was_chained():
    made = _record(
        text='quote " and umlaut ü', at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    )
    stored = AuditEvent.objects.get(pk=made.pk)
    assert stored.canonical() == made.canonical()
    assert queries.verify_chain()


@pytest.mark.parametrize("change", ["update", "delete"])
def test_the_database_refuses_to_change_an_event(change):
    event = _record()
    rows = AuditEvent.objects.filter(pk=event.pk)
    changes = {
        "update": lambda: rows.update(actor_label="nobody"),
        "delete": rows.delete,
    }
    with (
        pytest.raises(DatabaseError, match="ledger_is_append_only"),
        transaction.atomic(),
    ):
        changes[change]()
    assert AuditEvent.objects.get(pk=event.pk).actor_label == SET_UP.label


@pytest.mark.django_db(transaction=True)
def test_recording_outside_a_transaction_is_refused():
    """R22: an event belongs to the transaction of what it records."""
    with pytest.raises(audit.RecordOutsideTransactionError):
        audit.record(Kind.SITE_CHANGED, now=clock(), actor=SET_UP)


def test_values_that_are_not_plain_are_refused():
    with pytest.raises(TypeError, match="object has no place"):
        _record(odd=object())


def test_control_characters_do_not_reach_the_ledger():
    with transaction.atomic():
        event = audit.record(
            Kind.SITE_CHANGED,
            now=clock(),
            actor=audit.Party("person", "1", "eve\r\n\x00admin"),
        )
    assert event.actor_label == "eve\ufffd\ufffd\ufffdadmin"


@pytest.mark.django_db(transaction=True)
def test_parallel_writers_leave_no_gap_and_no_fork():
    """Eight writers at a barrier: numbers are gapless, the chain has one line."""
    writers, each = 8, 5
    barrier = threading.Barrier(writers)
    before, _ = audit.ledger_head()

    def write() -> None:
        barrier.wait()
        for number in range(each):
            _record(number=number)
        connections.close_all()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.ledger_head()[0] == before + writers * each
    verdict = queries.verify_chain()
    assert verdict, verdict.reason


def test_verification_names_the_first_altered_event():
    events = [_record(number=number) for number in range(3)]
    _drop_triggers()
    AuditEvent.objects.filter(pk=events[1].pk).update(actor_label="somebody else")
    verdict = queries.verify_chain()
    assert not verdict
    assert verdict.broken_at == events[1].seq


def test_verification_finds_a_missing_event():
    events = [_record(number=number) for number in range(3)]
    _drop_triggers()
    AuditEvent.objects.filter(pk=events[1].pk).delete()
    verdict = queries.verify_chain()
    assert verdict.broken_at == events[1].seq
    assert "missing" in verdict.reason


def _drop_triggers() -> None:
    """Take the triggers away, as somebody with the database's own rights could."""
    with connection.cursor() as cursor:
        for name in ("ledger_is_never_changed", "ledger_is_never_deleted"):
            if connection.vendor == "postgresql":
                cursor.execute(f"DROP TRIGGER IF EXISTS {name} ON audit_auditevent")
            else:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


@pytest.mark.django_db(transaction=True)
def test_listeners_wake_after_commit_only():
    heard: list[str] = []
    forget = wakeup.listen(heard.append)
    try:
        with transaction.atomic():
            audit.record(Kind.SITE_CHANGED, now=clock(), actor=SET_UP)
            assert heard == []
        assert heard == [Kind.SITE_CHANGED]
        with transaction.atomic():
            audit.record(Kind.SITE_CHANGED, now=clock(), actor=SET_UP)
            transaction.set_rollback(True)
        assert heard == [Kind.SITE_CHANGED]
    finally:
        forget()


def test_search_narrows_by_each_filter():
    _record(Kind.SITE_ADDED, note="needle")
    _record(Kind.ZONE_ADDED)
    assert queries.search(kind="inventory.").count() >= 2
    assert queries.search(kind=Kind.SITE_ADDED, text="needle").count() == 1
    assert queries.search(actor="nobody at all").count() == 0
    assert queries.search(until=clock() - dt.timedelta(days=1)).count() == 0
