"""What waits for an approver, and deciding on it."""

import datetime as dt
import uuid
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from apps.access import operations as access
from apps.access import queries
from apps.access.models import AccessRequest, Grant
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.queries import conduit_to, gateway_zone
from apps.portal.forms.access import DecisionForm
from apps.portal.roles import only_for, signed_in
from apps.portal.views.deciding import Decision, decision_page
from apps.portal.way import way_of
from apps.sessions.models import Session

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
        version=asked.version,
    )

    def known() -> dict[str, Any]:
        return {
            "request_id": asked.pk,
            "version": form.cleaned_data["version"],
            "approver": person,
            "now": now,
        }

    return decision_page(
        request,
        Decision(
            asked=asked,
            form=form,
            approve=lambda **said: access.approve_request(**known(), **said),
            deny=lambda **said: access.deny_request(**known(), **said),
            approved=lambda grant: (
                f"Approved: {asked.requester.username} may use {asked.asset.name} "
                f"until {grant.ends_at:%H:%M} UTC."
            ),
            may_decide=lambda: queries.may_decide(person, asked, now=now),
            template="portal/approval_detail.html",
            picture=lambda: _picture(asked, now=now),
        ),
    )


def _picture(asked: AccessRequest, *, now: dt.datetime) -> dict[str, object]:
    """Return what an approver should know before deciding."""
    asset = asked.asset
    before = Grant.objects.filter(person=asked.requester, asset=asset)
    return {
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
