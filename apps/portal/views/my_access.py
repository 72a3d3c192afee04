"""The start page: what one may reach now, what one waits for, what was."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from apps.access import queries
from apps.access.lifecycle import RequestState
from apps.access.models import AccessRequest, Grant, GrantExtension
from apps.accounts.models import User
from apps.accounts.queries import graces_of
from apps.inventory.models import EndMode
from apps.inventory.services import forwards_of
from apps.portal.roles import signed_in
from apps.portal.ssh_door import ssh_door
from apps.portal.templatetags.sluice import duration
from apps.portal.way import names, waiting_for
from apps.sessions.models import Session
from apps.vault.models import Lease

_PER_PAGE = 10

_AT_THE_END = {
    EndMode.CUT: "then everything is cut",
    EndMode.FREEZE: "then input freezes, {grace} grace",
    EndMode.DRAIN: "then no new channel, running ones get {grace}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveGrant:
    """A grant that holds now, and how to use it."""

    grant: Grant
    command: str
    file_commands: tuple[str, ...]
    jump_command: str
    # Destination and command of each forward.
    forwards: list[tuple[str, str]]
    live_sessions: int
    note: str
    extension: GrantExtension | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRequest:
    """A request nobody has decided yet, and who could."""

    asked: AccessRequest
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierGrant:
    """A grant that has ended: how, and what became of its credentials."""

    grant: Grant
    state: str
    leases: list[Lease]


@require_GET
def my_access(request: HttpRequest) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    grants = queries.grants_of(person).prefetch_related(
        Prefetch("sessions", Session.objects.select_related("lease__receipt")),
        Prefetch("extensions", GrantExtension.objects.select_related("decided_by")),
    )
    waiting = queries.requests_visible_to(person).filter(
        requester=person, state=RequestState.PENDING, lapses_at__gt=now
    )
    active = grants.active(at=now)  # type: ignore[attr-defined]
    past = grants.exclude(pk__in=active.values("pk")).order_by("-ends_at")
    page = Paginator(past, _PER_PAGE).get_page(request.GET.get("page"))
    return render(
        request,
        "portal/my_access.html",
        {
            "now": now,
            "active": _active(person, list(active.order_by("ends_at"))),
            "waiting": [
                WaitingRequest(asked=asked, waiting_for=names(waiting_for(asked)))
                for asked in waiting
            ],
            "earlier": [_earlier(grant, now=now) for grant in page],
            "page": page,
            "graces": graces_of(person, now=now),
            "unanswered": _unanswered(person, now=now),
        },
    )


def _active(person: User, grants: list[Grant]) -> list[ActiveGrant]:
    door = ssh_door()
    accounts = Counter(
        asset_id for asset_id, _ in {(g.asset_id, g.account_id) for g in grants}
    )
    found = []
    for grant in grants:
        # With grants for several accounts of one asset, the gateway must be told which.
        account = grant.account.name if accounts[grant.asset_id] > 1 else None
        grace = duration(dt.timedelta(seconds=grant.asset.grace_seconds))
        minutes = duration(grant.ends_at - grant.starts_at)
        then = _AT_THE_END[EndMode(grant.asset.on_expiry)].format(grace=grace)
        command = door.command(person.username, grant.asset.name, account)
        found.append(
            ActiveGrant(
                grant=grant,
                file_commands=door.file_commands(
                    person.username, grant.asset.name, account, grant.services
                ),
                command=command,
                jump_command=door.jump_command(
                    person.username, grant.asset.name, grant.account.name
                ),
                forwards=[
                    (str(there), door.forward_command(command, there))
                    for there in sorted(forwards_of(grant.services))
                ],
                live_sessions=sum(s.is_live for s in grant.sessions.all()),
                extension=next(iter(grant.extensions.all()), None),
                note=f"of {minutes}, ends {grant.ends_at:%H:%M} UTC, {then}",
            )
        )
    return found


def _earlier(grant: Grant, *, now: dt.datetime) -> EarlierGrant:
    return EarlierGrant(
        grant=grant,
        state=grant.state(now).value,
        leases=[s.lease for s in grant.sessions.all() if s.lease is not None],
    )


def _unanswered(person: User, *, now: dt.datetime) -> list[AccessRequest]:
    """Return the newest requests that came to nothing, so that they do not vanish."""
    return list(
        queries.requests_visible_to(person)
        .filter(
            requester=person,
            state__in=[RequestState.DENIED, RequestState.LAPSED],
            submitted_at__gt=now - dt.timedelta(days=7),
        )
        .order_by("-submitted_at")[:5]
    )
