"""Where a person is signed in to the portal, and signing out elsewhere.

Django keeps portal sessions as signed text without an index by person. A plant has
hundreds of them at most, so they are read through when somebody looks at their own.
"""

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import HttpRequest

from apps.accounts import operations as accounts
from apps.accounts.models import User

_DETAILS = "portal_session"
_AGENT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalSession:
    """One place where a person is signed in."""

    # Names the session without being good for signing in.
    name: str
    signed_in_at: dt.datetime | None
    source_address: str
    agent: str
    expires_at: dt.datetime
    is_this_one: bool


def describe(request: HttpRequest, *, source_address: str, now: dt.datetime) -> None:
    """Keep with this session from where and when it was begun."""
    agent = request.headers.get("User-Agent", "")
    request.session[_DETAILS] = {
        "signed_in_at": now.isoformat(),
        "source_address": source_address,
        "agent": "".join(c for c in agent if c.isprintable())[:_AGENT_LENGTH],
    }


def sessions_of(
    user: User, *, this_key: str | None, now: dt.datetime
) -> list[PortalSession]:
    """Return where `user` is signed in, this session first, then the newest."""
    found = []
    for row, kept in _rows_of(user, now=now):
        details = kept.get(_DETAILS, {})
        began = details.get("signed_in_at")
        found.append(
            PortalSession(
                name=_name(row.session_key),
                signed_in_at=dt.datetime.fromisoformat(began) if began else None,
                source_address=details.get("source_address", ""),
                agent=details.get("agent", ""),
                expires_at=row.expire_date,
                is_this_one=row.session_key == this_key,
            )
        )
    found.sort(key=lambda session: session.expires_at, reverse=True)
    found.sort(key=lambda session: not session.is_this_one)
    return found


@transaction.atomic
def end_session(
    user: User, *, name: str, source_address: str, now: dt.datetime
) -> bool:
    """End one session of `user`; False when they have none of that name."""
    for row, _kept in _rows_of(user, now=now):
        # As bytes: of text it compares ASCII only, and raises on what else people send.
        if hmac.compare_digest(_name(row.session_key).encode(), name.encode()):
            row.delete()
            accounts.record_signed_out(
                user=user, source_address=source_address, now=now
            )
            return True
    return False


@transaction.atomic
def end_all_others(
    user: User, *, this_key: str | None, source_address: str, now: dt.datetime
) -> int:
    """End every session of `user` but this one, and their SSH graces; return how many.

    Writes one event, also when there was nothing to end.
    """
    ended = 0
    for row, _kept in _rows_of(user, now=now):
        if row.session_key != this_key:
            row.delete()
            ended += 1
    accounts.record_signed_out_everywhere(
        user=user, ended=ended, source_address=source_address, now=now
    )
    return ended


def _rows_of(
    user: User, *, now: dt.datetime
) -> Iterator[tuple[Session, dict[str, dict[str, str]]]]:
    for row in Session.objects.filter(expire_date__gt=now):
        kept = row.get_decoded()
        if kept.get(SESSION_KEY) == str(user.pk):
            yield row, kept


def _name(session_key: str) -> str:
    return hashlib.sha256(session_key.encode()).hexdigest()[:24]
