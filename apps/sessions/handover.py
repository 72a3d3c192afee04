"""Who types in a live session: handing it to somebody who watches, and back.

The engineer, or who controls the session, gives it to somebody else; never to
themselves, so that it takes two. What the rows say is what is wanted; the gateway
carries it out, and writes that down.
"""

import datetime as dt
import uuid

from django.db import transaction

from apps.access.denials import Allowed, DenialCode, Denied
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.operations import Party
from apps.sessions import queries
from apps.sessions.lifecycle import IN_PORTAL, AskedBy, SessionState
from apps.sessions.models import Session


def _locked(session_id: uuid.UUID) -> Session | None:
    # Never the typist with it: after waiting for the lock PostgreSQL has the new row of
    # the session beside the old ones it was joined to.
    return (
        Session.objects.select_for_update(of=("self",))
        .select_related("asset__zone__site", "person", "account__asset")
        .filter(pk=session_id, ended_at=None)
        .first()
    )


@transaction.atomic
def hand_over(
    *,
    session_id: uuid.UUID,
    by: User,
    to: str,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> Allowed | Denied:
    """Hand the typing to the person with the handle `to`; the gateway does so at once.

    Whether there is no such person, or they do not watch, or may not type, is answered
    alike. Two at once cannot both win: who comes second has to take it back first.
    """
    person = User.objects.get(pk=by.pk)
    session = _locked(session_id)
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_hand_over(person, session)
    if isinstance(verdict, Denied):
        return verdict
    if session.typist_id is not None:
        return Denied(DenialCode.HANDED_OVER_ALREADY)
    if not _is_calm(session):
        return Denied(DenialCode.HANDOVER_NOT_NOW)
    receiver = _receiver(session, to, now=now)
    if receiver is None or receiver.pk == person.pk:
        return Denied(DenialCode.RECEIVER_REFUSED)
    _give(session, receiver)
    audit.record(
        Kind.SESSION_HANDED_OVER,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={
            "door": asked.door,
            "to": receiver.username,
            "number": session.typist_number,
        },
    )
    return verdict


def _receiver(session: Session, handle: str, *, now: dt.datetime) -> User | None:
    wanted = handle.strip().lower()
    for user in queries.receivers(session, now=now):
        if user.username.lower() == wanted:
            return user
    return None


def _is_calm(session: Session) -> bool:
    """Say whether input flows, and there is one place only where it can go."""
    terminals = list(
        session.channels.filter(closed_at=None, has_pty=True).values_list(
            "kind", flat=True
        )
    )
    return (
        session.state == SessionState.ACTIVE
        and session.freeze_asked_at is None
        and session.terminate_asked_at is None
        and session.locked_at is None
        and terminals == ["shell"]
    )


def _give(session: Session, typist: User | None) -> None:
    session.typist = typist
    session.typist_number += 1
    session.save(update_fields=["typist", "typist_number"])


@transaction.atomic
def take_back(
    *,
    session_id: uuid.UUID,
    by: User,
    now: dt.datetime,
    asked: AskedBy = IN_PORTAL,
) -> Allowed | Denied:
    """Return the typing to the session's engineer; the gateway does so at once.

    The engineer may at any time, whoever controls the session, and who types now.
    """
    person = User.objects.get(pk=by.pk)
    session = _locked(session_id)
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_take_back(person, session)
    if isinstance(verdict, Denied):
        return verdict
    if session.typist_id is None:
        return Denied(DenialCode.NOT_HANDED_OVER)
    _return(session, by=person.party, why=f"by {person.username}", asked=asked, now=now)
    return verdict


@transaction.atomic
def end_hand_over(
    *, session_id: uuid.UUID, number: int, why: str, now: dt.datetime
) -> bool:
    """Write down that the gateway gave the typing back; it has done so already.

    `number` is the hand-over that ended: False when another came since.
    """
    session = _locked(session_id)
    if session is None or session.typist_id is None or session.typist_number != number:
        return False
    _return(
        session,
        by=audit.system("gateway"),
        why=why,
        asked=AskedBy("gateway"),
        now=now,
    )
    return True


def _return(
    session: Session, *, by: Party, why: str, asked: AskedBy, now: dt.datetime
) -> None:
    held_by = session.typist.username if session.typist is not None else ""
    _give(session, None)
    audit.record(
        Kind.SESSION_TAKEN_BACK,
        now=now,
        actor=by,
        subject=session.party,
        source_address=asked.source_address,
        data={
            "door": asked.door,
            "from": held_by,
            "why": why[:200],
            "number": session.typist_number,
        },
    )


@transaction.atomic
def note_typist(
    *, session_id: uuid.UUID, number: int, typist: str, now: dt.datetime
) -> bool:
    """Write down whose typing the gateway lets through since now."""
    session = _locked(session_id)
    if session is None or session.typist_noted >= number:
        return False
    session.typist_noted = number
    session.save(update_fields=["typist_noted"])
    audit.record(
        Kind.SESSION_TYPIST_CHANGED,
        now=now,
        actor=audit.system("gateway"),
        subject=session.party,
        data={"typist": typist, "number": number},
    )
    return True
