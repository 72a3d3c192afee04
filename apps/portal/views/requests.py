"""Asking for access, and one request's page."""

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.access import operations as access
from apps.access import queries
from apps.access.denials import Denied
from apps.access.lifecycle import RequestState
from apps.access.models import Grant
from apps.accounts.models import User
from apps.inventory.models import Conduit, TargetAccount
from apps.inventory.queries import conduit_to, requestable_assets
from apps.portal.forms.access import RequestForm
from apps.portal.roles import only_for, signed_in
from apps.portal.source import source_address
from apps.portal.way import names, waiting_for, way_of

_INVALID = 422
_FIRST_MINUTES = 30


@require_http_methods(["GET", "POST"])
@only_for("engineer")
def new_request(request: HttpRequest) -> HttpResponse:
    person = signed_in(request)
    form = _form(request, person)
    if request.method == "POST" and form.is_valid():
        account = get_object_or_404(TargetAccount, pk=form.cleaned_data["target"])
        asked = access.submit_request(
            requester=person,
            asset_id=account.asset_id,
            account_id=account.pk,
            services=form.cleaned_data["services"],
            minutes=form.cleaned_data["minutes"],
            reason=form.cleaned_data["reason"],
            work_order=form.cleaned_data["work_order"],
            source_address=source_address(request),
            now=timezone.now(),
        )
        if not isinstance(asked, Denied):
            messages.success(request, "Asked. This page shows when it is decided.")
            return redirect("portal:request-detail", request_id=asked.pk)
        form.add_error(None, asked.message)
    return render(
        request,
        "portal/request_new.html",
        {"form": form},
        status=_INVALID if form.errors else 200,
    )


def _form(request: HttpRequest, person: User) -> RequestForm:
    accounts = list(
        TargetAccount.objects.filter(
            asset__in=requestable_assets(person)
        ).select_related("asset__zone__site")
    )
    # A link from an asset's page has chosen already: only what its conduit carries.
    wanted = request.GET.get("account", "")
    chosen = next((a for a in accounts if str(a.pk) == wanted), None)
    conduit = conduit_to(chosen.asset) if chosen else None
    services = frozenset(conduit.services) if conduit else _services(accounts)
    return RequestForm(
        request.POST or None,
        accounts=accounts,
        rules=queries.rules(),
        services=services,
        initial={
            "target": str(chosen.pk) if chosen else "",
            "minutes": min(_FIRST_MINUTES, queries.rules().maximum_minutes),
            "services": sorted(services) if conduit else ["shell"],
        },
    )


def _services(accounts: list[TargetAccount]) -> frozenset[str]:
    """Return what the conduits to any of these accounts' zones carry."""
    conduits = Conduit.objects.filter(
        to_zone__in={account.asset.zone_id for account in accounts},
        from_zone__hosts_gateway=True,
    )
    return frozenset(name for conduit in conduits for name in conduit.services)


@require_GET
def request_detail(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    asked = get_object_or_404(queries.requests_visible_to(person), pk=request_id)
    is_waiting = asked.state == RequestState.PENDING and now < asked.lapses_at
    return render(
        request,
        "portal/request_detail.html",
        {
            "asked": asked,
            "grant": Grant.objects.filter(request=asked).first(),
            "is_own": asked.requester_id == person.pk,
            "is_waiting": is_waiting,
            "may_decide": bool(queries.may_decide(person, asked, now=now)),
            "waiting_for": names(waiting_for(asked)) if is_waiting else "",
            "steps": way_of(asked, now=now),
            "zone": asked.asset.zone.site.time_zone,
        },
    )


@require_POST
def withdraw_request(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    asked = queries.requests_visible_to(person).filter(pk=request_id).first()
    if asked is None or asked.requester_id != person.pk:
        raise Http404
    if access.withdraw_request(request_id=request_id, by=person, now=timezone.now()):
        messages.success(request, "The request is withdrawn.")
    else:
        messages.error(request, "It was decided already: look at what came of it.")
    return redirect("portal:request-detail", request_id=request_id)
