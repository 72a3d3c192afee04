"""What waits for an approver, and deciding on it."""

import datetime as dt
import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from apps.access import operations as access
from apps.access import queries
from apps.access.denials import Allowed, Denied
from apps.access.models import AccessRequest, Grant
from apps.accounts.models import User
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.queries import conduit_to, gateway_zone
from apps.portal.forms.access import DecisionForm
from apps.portal.roles import only_for, signed_in
from apps.portal.source import source_address
from apps.portal.way import way_of
from apps.sessions.models import Session

_INVALID = 422
_PER_PAGE = 25


@require_GET
@only_for("approver")
def approvals(request: HttpRequest) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    waiting = queries.requests_awaiting(person, now=now)
    decided = (
        queries.requests_visible_to(person)
        .filter(decided_at__isnull=False, asset__zone__site__memberships__user=person)
        .order_by("-decided_at")[:10]
    )
    page = Paginator(waiting, _PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "decided": decided,
        "now": now,
        "extensions": queries.extensions_awaiting(person, now=now),
    }
    return render(request, "portal/approvals.html", context)


@require_http_methods(["GET", "POST"])
@only_for("approver")
def approval_detail(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    asked = get_object_or_404(queries.requests_visible_to(person), pk=request_id)
    form = DecisionForm(
        request.POST or None,
        asked=asked.minutes,
        rules=queries.rules(),
        initial={"version": asked.version, "minutes": asked.minutes},
    )
    if request.method == "POST" and form.is_valid():
        denial = _decide(request, asked, person, form, now=now)
        if denial is None:
            return redirect("portal:approvals")
        form.add_error(None, denial.message)
        asked.refresh_from_db()
    may_decide = queries.may_decide(person, asked, now=now)
    return render(
        request,
        "portal/approval_detail.html",
        {
            "form": form,
            "may_decide": isinstance(may_decide, Allowed),
            "why_not": may_decide.message if isinstance(may_decide, Denied) else "",
            **_picture(asked, now=now),
        },
        status=_INVALID if form.errors else 200,
    )


def _decide(
    request: HttpRequest,
    asked: AccessRequest,
    person: User,
    form: DecisionForm,
    *,
    now: dt.datetime,
) -> Denied | None:
    """Call the one operation the verdict asks for; a refusal is returned."""
    if form.cleaned_data["verdict"] == "deny":
        return _deny(request, asked, person, form, now=now)
    grant = access.approve_request(
        request_id=asked.pk,
        version=form.cleaned_data["version"],
        approver=person,
        minutes=form.cleaned_data["minutes"],
        comment=form.cleaned_data["comment"],
        source_address=source_address(request),
        now=now,
    )
    if isinstance(grant, Denied):
        return grant
    who, until = asked.requester.username, f"{grant.ends_at:%H:%M} UTC"
    messages.success(
        request, f"Approved: {who} may use {asked.asset.name} until {until}."
    )
    return None


def _deny(
    request: HttpRequest,
    asked: AccessRequest,
    person: User,
    form: DecisionForm,
    *,
    now: dt.datetime,
) -> Denied | None:
    denied = access.deny_request(
        request_id=asked.pk,
        version=form.cleaned_data["version"],
        approver=person,
        comment=form.cleaned_data["comment"],
        source_address=source_address(request),
        now=now,
    )
    if isinstance(denied, Denied):
        return denied
    messages.success(
        request, f"Denied: {asked.requester.username} is shown your reason."
    )
    return None


def _picture(asked: AccessRequest, *, now: dt.datetime) -> dict[str, object]:
    """Return what an approver should know before deciding."""
    asset = asked.asset
    before = Grant.objects.filter(person=asked.requester, asset=asset)
    return {
        "asked": asked,
        "asset": asset,
        "from_zone": gateway_zone(asset.zone.site),
        "conduit": conduit_to(asset),
        "crypto": PROFILES[asset.crypto_profile],
        "others": Session.objects.live().filter(asset=asset).select_related("person"),
        "is_first_time": not before.exclude(request=asked).exists(),
        "earlier_grants": before.exclude(request=asked).count(),
        "steps": way_of(asked, now=now),
        "zone": asset.zone.site.time_zone,
    }
