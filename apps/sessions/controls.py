"""What people want of a live session: written down here, done by its gateway."""

import datetime as dt
import uuid

from django.db import transaction

from apps.access.denials import Allowed, DenialCode, Denied
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.sessions import queries
from apps.sessions.lifecycle import (
    IN_PORTAL,
    AskedBy,
)
from apps.sessions.models import (
    Session,
    SessionMessage,
)

_DETAIL_LENGTH = 300

MESSAGE_LENGTH = 300
"""Characters of one message to a live session."""

WAITING_MESSAGES = 20
"""Messages that may wait for a session to have a terminal."""


def _locked(session_id: uuid.UUID) -> Session | None:
    return (
        Session.objects.select_for_update(of=("self",))
        .select_related("asset__zone__site", "person", "account__asset")
        .filter(pk=session_id)
        .first()
    )


@transaction.atomic
def ask_terminate(
    *,
    session_id: uuid.UUID,
    by: User,
    reason: str,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> Allowed | Denied:
    """Ask for a live session to be ended; its gateway does so at once."""
    person = User.objects.get(pk=by.pk)
    session = _locked(session_id)
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_terminate(person, session)
    if not verdict:
        return verdict
    if not reason.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: the engineer is told it.")
    if session.terminate_asked_at is not None:
        return verdict
    session.terminate_asked_at, session.terminate_asked_by = now, person
    session.terminate_reason = reason.strip()[:_DETAIL_LENGTH]
    session.save(
        update_fields=["terminate_asked_at", "terminate_asked_by", "terminate_reason"]
    )
    audit.record(
        Kind.SESSION_TERMINATE_ASKED,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={"door": asked.door, "reason": session.terminate_reason},
    )
    return verdict


def _controlled(
    session_id: uuid.UUID, by: User
) -> tuple[User, Session, Allowed] | Denied:
    """Lock a session for somebody who may control it."""
    person = User.objects.get(pk=by.pk)
    session = _locked(session_id)
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_control(person, session)
    if isinstance(verdict, Denied):
        return verdict
    return person, session, verdict


@transaction.atomic
def ask_freeze(
    *,
    session_id: uuid.UUID,
    by: User,
    reason: str,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> Allowed | Denied:
    """Ask for a live session's input to be held; its gateway does so at once.

    A session that somebody froze stays as it is, with the first reason.
    """
    found = _controlled(session_id, by)
    if isinstance(found, Denied):
        return found
    person, session, verdict = found
    reason = " ".join(reason.split())[:_DETAIL_LENGTH]
    if not reason:
        return Denied(DenialCode.REASON_MISSING, "Say why: the engineer is told it.")
    if session.freeze_asked_at is not None:
        return verdict
    session.freeze_asked_at, session.freeze_asked_by = now, person
    session.freeze_reason = reason
    session.freeze_number += 1
    session.save(
        update_fields=[
            "freeze_asked_at",
            "freeze_asked_by",
            "freeze_reason",
            "freeze_number",
        ]
    )
    audit.record(
        Kind.SESSION_FREEZE_ASKED,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={"door": asked.door, "reason": reason, "number": session.freeze_number},
    )
    return verdict


@transaction.atomic
def ask_resume(
    *,
    session_id: uuid.UUID,
    by: User,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> Allowed | Denied:
    """Ask for a session that somebody froze to go on.

    Only what a person froze can be resumed: at the deadline or after a revocation the
    asset's grace time runs out.
    """
    found = _controlled(session_id, by)
    if isinstance(found, Denied):
        return found
    person, session, verdict = found
    if session.freeze_asked_at is None:
        return Denied(DenialCode.NOT_FROZEN)
    session.freeze_asked_at = session.freeze_asked_by = None
    session.freeze_reason = ""
    session.resumed_by = person
    session.freeze_number += 1
    session.save(
        update_fields=[
            "freeze_asked_at",
            "freeze_asked_by",
            "freeze_reason",
            "freeze_number",
            "resumed_by",
        ]
    )
    audit.record(
        Kind.SESSION_RESUME_ASKED,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={"door": asked.door, "number": session.freeze_number},
    )
    return verdict


@transaction.atomic
def send_message(
    *,
    session_id: uuid.UUID,
    by: User,
    text: str,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> SessionMessage | Denied:
    """Send one line to the terminals of a live session.

    It waits until the session has a terminal. Characters that could steer a terminal
    are refused, not taken out: what was sent is what is shown.
    """
    found = _controlled(session_id, by)
    if isinstance(found, Denied):
        return found
    person, session, _verdict = found
    text = text.strip()
    if not text or len(text) > MESSAGE_LENGTH or not text.isprintable():
        return Denied(DenialCode.MESSAGE_REFUSED)
    if session.messages.filter(shown_at=None).count() >= WAITING_MESSAGES:
        return Denied(
            DenialCode.MESSAGE_REFUSED,
            f"{WAITING_MESSAGES} messages wait to be shown already.",
        )
    message = SessionMessage.objects.create(
        session=session,
        number=session.messages.count() + 1,
        sender=person,
        text=text,
        sent_at=now,
    )
    audit.record(
        Kind.SESSION_MESSAGE_SENT,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={"door": asked.door, "number": message.number, "text": text},
    )
    return message
