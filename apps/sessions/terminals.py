"""What a gateway writes of a session's terminals: shown messages, locks, codes."""

import datetime as dt
import uuid
from collections.abc import Collection

from django.db import transaction

from apps.accounts.operations import FactorVerdict, verify_second_factor
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.sessions.models import Session


@transaction.atomic
def note_messages_shown(
    *, session_id: uuid.UUID, numbers: Collection[int], now: dt.datetime
) -> int:
    """Note that terminals of the session have shown these messages; returns how many
    were not noted before."""
    session = (
        Session.objects.select_for_update(of=("self",))
        .select_related("person", "account__asset")
        .get(pk=session_id)
    )
    changed = session.messages.filter(number__in=numbers, shown_at=None).update(
        shown_at=now
    )
    if changed:
        audit.record(
            Kind.SESSION_MESSAGE_SHOWN,
            now=now,
            actor=audit.system("gateway"),
            subject=session.party,
            data={"numbers": sorted(numbers)},
        )
    return changed


@transaction.atomic
def note_locked(*, session_id: uuid.UUID, now: dt.datetime) -> bool:
    """Note that the terminals of a session lock because nobody typed."""
    session = (
        Session.objects.select_for_update(of=("self",))
        .select_related("person", "account__asset")
        .filter(pk=session_id, ended_at=None, locked_at=None)
        .first()
    )
    if session is None:
        return False
    session.locked_at = now
    session.save(update_fields=["locked_at"])
    audit.record(
        Kind.SESSION_LOCKED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
    )
    return True


@transaction.atomic
def unlock_session(
    *, session_id: uuid.UUID, code: str, now: dt.datetime
) -> FactorVerdict:
    """Unlock the terminals of a session with a one-time code of its engineer."""
    session = (
        Session.objects.select_for_update(of=("self",))
        .select_related("person", "account__asset")
        .get(pk=session_id)
    )
    verdict = verify_second_factor(user=session.person, code=code, now=now)
    if verdict:
        session.locked_at = None
        session.save(update_fields=["locked_at"])
    audit.record(
        Kind.SESSION_UNLOCKED if verdict else Kind.SESSION_UNLOCK_REFUSED,
        now=now,
        actor=session.person.party,
        subject=session.party,
        outcome=Outcome.SUCCESS if verdict else Outcome.DENIED,
    )
    return verdict
