"""Who looks at a live session: begun and ended by the gateway that shows it."""

import datetime as dt
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from django.db import transaction

from apps.access.denials import DenialCode, Denied
from apps.accounts.models import User
from apps.accounts.queries import sign_in_stands
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.sessions import queries
from apps.sessions.lifecycle import AskedBy
from apps.sessions.models import Session, Watch


@transaction.atomic
def begin_watch(
    *,
    user: User,
    session_id: uuid.UUID,
    asked: AskedBy,
    can_type: bool,
    now: dt.datetime,
) -> Watch | Denied:
    """Write down that `user` looks at a live session from now on, where they may.

    `can_type`: there is a keyboard, so that typing could be handed over to it. Who may
    not is told the same as for a session that does not exist.
    """
    person = User.objects.get(pk=user.pk)
    session = (
        queries.sessions_visible_to(person)
        .select_for_update(of=("self",))
        .select_related("account__asset")
        .filter(pk=session_id)
        .first()
    )
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_watch(person, session)
    if isinstance(verdict, Denied):
        return verdict
    watch = Watch.objects.create(
        session=session,
        person=person,
        door=asked.door,
        source_address=asked.source_address,
        can_type=can_type,
        began_at=now,
    )
    audit.record(
        Kind.SESSION_WATCHED,
        now=now,
        actor=person.party,
        subject=session.party,
        source_address=asked.source_address,
        data={"door": asked.door},
    )
    return watch


@transaction.atomic
def end_watch(*, watch_id: uuid.UUID, why: str, now: dt.datetime) -> bool:
    """Write down that somebody looks no more, and why; False when that was known."""
    watch = (
        Watch.objects.select_for_update(of=("self",))
        .select_related("person", "session__person", "session__account__asset")
        .filter(pk=watch_id, ended_at=None)
        .first()
    )
    if watch is None:
        return False
    watch.ended_at = now
    watch.save(update_fields=["ended_at"])
    audit.record(
        Kind.SESSION_WATCH_ENDED,
        now=now,
        actor=watch.person.party,
        subject=watch.session.party,
        source_address=watch.source_address,
        data={"door": watch.door, "why": why[:200]},
    )
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """One who looks just now. By SSH it takes a sign-in that still stands."""

    watch_id: uuid.UUID
    key_id: uuid.UUID | None = None
    signed_in_at: dt.datetime | None = None


def denied_now(looking: Collection[Looking]) -> frozenset[uuid.UUID]:
    """Make the decision again; return the watches that must end. Reads everything anew.

    One that is not found, or was ended, must end, too.
    """
    rows = {
        watch.pk: watch
        for watch in Watch.objects.select_related(
            "person", "session__asset__zone__site"
        ).filter(pk__in=[one.watch_id for one in looking], ended_at=None)
    }
    return frozenset(
        one.watch_id for one in looking if not _stands(one, rows.get(one.watch_id))
    )


def _stands(one: Looking, watch: Watch | None) -> bool:
    if watch is None:
        return False
    session: Session = watch.session
    if session.is_live and not queries.may_watch(watch.person, session):
        return False
    if one.key_id is None or one.signed_in_at is None:
        return True
    return sign_in_stands(watch.person, one.key_id, at=one.signed_in_at)
