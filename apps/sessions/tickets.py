"""Tickets by which a portal opens one terminal or watch at a gateway (R2)."""

import datetime as dt
import hashlib
import secrets
import uuid
from dataclasses import dataclass

from django.db import transaction

from apps.access import authorization
from apps.access.denials import DenialCode, Denied
from apps.access.models import Grant
from apps.accounts.models import User
from apps.accounts.notices import consent_due
from apps.sessions import queries
from apps.sessions.models import ConnectionTicket, Session, TicketPurpose

_TICKET_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemedTicket:
    """What a ticket was for, after it was used up."""

    purpose: TicketPurpose
    user: User
    grant_id: uuid.UUID | None
    session_id: uuid.UUID | None
    source_address: str


def _hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _make_ticket(
    *,
    purpose: TicketPurpose,
    person: User,
    grant: Grant | None,
    session: Session | None,
    source_address: str,
    now: dt.datetime,
) -> str:
    token = secrets.token_urlsafe(32)
    ConnectionTicket.objects.filter(expires_at__lt=now - dt.timedelta(days=1)).delete()
    ConnectionTicket.objects.create(
        token_hash=_hash_of(token),
        purpose=purpose,
        person=person,
        grant=grant,
        session=session,
        source_address=source_address,
        made_at=now,
        expires_at=now + dt.timedelta(seconds=_TICKET_SECONDS),
    )
    return token


@transaction.atomic
def issue_terminal_ticket(
    *,
    user: User,
    grant_id: uuid.UUID,
    source_address: str,
    now: dt.datetime,
    agreed_to: str = "",
) -> str | Denied:
    """Return a ticket for one browser terminal on one's own active grant.

    `agreed_to`: id of the notice they agreed to at this sign-in, or empty. The gateway
    makes the whole decision again when the ticket is redeemed.
    """
    person = User.objects.get(pk=user.pk)
    grant = Grant.objects.active(at=now).filter(pk=grant_id, person=person).first()
    if grant is None or person.disabled_at is not None:
        return Denied(DenialCode.NO_GRANT, authorization.NO_ACCESS_MESSAGE)
    if consent_due(agreed_to) is not None:
        return Denied(DenialCode.CONSENT_MISSING)
    return _make_ticket(
        purpose=TicketPurpose.TERMINAL,
        person=person,
        grant=grant,
        session=None,
        source_address=source_address,
        now=now,
    )


@transaction.atomic
def issue_watch_ticket(
    *, user: User, session_id: uuid.UUID, source_address: str, now: dt.datetime
) -> str | Denied:
    """Return a ticket to watch one live session; the watch itself is written down by
    the gateway (`watches.begin_watch`), which makes the decision again."""
    person = User.objects.get(pk=user.pk)
    session = (
        queries.sessions_visible_to(person)
        .select_related("account__asset")
        .filter(pk=session_id)
        .first()
    )
    if session is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_watch(person, session)
    if isinstance(verdict, Denied):
        return verdict
    return _make_ticket(
        purpose=TicketPurpose.WATCH,
        person=person,
        grant=None,
        session=session,
        source_address=source_address,
        now=now,
    )


@transaction.atomic
def redeem_ticket(*, token: str, now: dt.datetime) -> RedeemedTicket | None:
    """Use a ticket up; None when unknown, used, expired or its person disabled."""
    changed = ConnectionTicket.objects.filter(
        token_hash=_hash_of(token), used_at=None, expires_at__gt=now
    ).update(used_at=now)
    if changed != 1:
        return None
    ticket = ConnectionTicket.objects.select_related("person").get(
        token_hash=_hash_of(token)
    )
    if ticket.person.disabled_at is not None:
        return None
    return RedeemedTicket(
        purpose=TicketPurpose(ticket.purpose),
        user=ticket.person,
        grant_id=ticket.grant_id,
        session_id=ticket.session_id,
        source_address=ticket.source_address,
    )
