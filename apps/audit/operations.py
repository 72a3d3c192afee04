"""The one door into the ledger."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import connection, transaction

from apps.audit import wakeup
from apps.audit.chain import GENESIS, canonical_json, leaf_hash, link_hash
from apps.audit.kinds import Kind
from apps.audit.models import AuditEvent, Outcome

# Any constant will do, as long as every writer of the ledger takes the same lock.
_LEDGER_LOCK = 0x51_1C_E0_01
_LABEL_LENGTH = 150
_HEAD = "SELECT seq, hash FROM audit_auditevent ORDER BY seq DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Party:
    """A person, a thing or a part of Sluice as the ledger keeps it."""

    type: str
    id: str
    label: str


NOBODY = Party("", "", "")


def system(part: str) -> Party:
    """Return the party for a part of Sluice that acts by itself, such as `sweep`."""
    return Party("system", f"system:{part}", part)


class RecordOutsideTransactionError(RuntimeError):
    """An audit event was written outside the transaction of what it records."""


def _plain(value: object) -> object:
    """Return `value` with identifiers and times as text; anything odd is refused."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    raise TypeError(f"{type(value).__name__} has no place in an audit event")


def _text(value: str, length: int) -> str:
    """Return `value` without control characters, cut to `length` characters."""
    if value.isprintable():
        return value[:length]
    # PostgreSQL cannot store NUL, and logs are read line by line.
    return "".join(c if c.isprintable() else "\ufffd" for c in value)[:length]


def record(
    kind: Kind,
    *,
    now: dt.datetime,
    actor: Party,
    subject: Party = NOBODY,
    source_address: str = "",
    outcome: Outcome = Outcome.SUCCESS,
    data: Mapping[str, object] | None = None,
) -> AuditEvent:
    """Append one event to the ledger, inside the caller's transaction.

    `actor` is who did it and `subject` what it was done to. Waits for other writers of
    the ledger, so that numbers are gapless and in commit order; the lock is held until
    the transaction ends. Wakes whoever listens after commit.

    Raises: RecordOutsideTransactionError when there is no transaction to share.
    """
    if not connection.in_atomic_block:
        raise RecordOutsideTransactionError(
            f"{kind} must be recorded in the transaction of the change it records"
        )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LEDGER_LOCK])
    last, previous = ledger_head()
    event = AuditEvent(
        seq=last + 1,
        kind=kind.value,
        at=now,
        actor_id=_text(actor.id, 64),
        actor_label=_text(actor.label, _LABEL_LENGTH),
        object_type=_text(subject.type, 40),
        object_id=_text(subject.id, 64),
        object_label=_text(subject.label, 200),
        source_address=_text(source_address, 64),
        outcome=outcome,
        data=canonical_json(_json_object(data or {})).decode(),
        previous_hash=previous,
    )
    event.leaf_hash = leaf_hash(event.canonical())
    event.hash = link_hash(previous, event.leaf_hash)
    event.save(force_insert=True)
    wakeup.announce(kind.value)
    return event


def _json_object(data: Mapping[str, object]) -> dict[str, object]:
    return {str(key): _plain(item) for key, item in data.items()}


def ledger_head() -> tuple[int, bytes]:
    """Return the number and chain hash of the newest event; (0, zeros) when empty."""
    # Each write asks this first: the plain statement takes a tenth of the time.
    with connection.cursor() as cursor:
        cursor.execute(_HEAD)
        row = cursor.fetchone()
    return (row[0], bytes(row[1])) if row else (0, GENESIS)


@transaction.atomic
def record_export(
    *, by: Party, source_address: str, now: dt.datetime
) -> tuple[int, bytes]:
    """Write that `by` exports the ledger; return number and chain hash of that event.

    The export goes up to and with this very event, so that it tells of itself.
    """
    event = record(
        Kind.LEDGER_EXPORTED,
        now=now,
        actor=by,
        subject=system("ledger"),
        source_address=source_address,
    )
    return event.seq, bytes(event.hash)
