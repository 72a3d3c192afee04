"""More time for a grant: asking for it, and deciding on it."""

import datetime as dt
import uuid
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from apps.access import operations as access
from apps.access import queries
from apps.access.denials import Denied
from apps.access.models import GrantExtension
from apps.portal.destinations import safe_destination
from apps.portal.forms.access import AskExtensionForm, DecisionForm
from apps.portal.roles import only_for, signed_in
from apps.portal.source import source_address
from apps.portal.views.deciding import Decision, decision_page


@require_POST
def ask_extension(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    grant = get_object_or_404(queries.grants_of(person), pk=grant_id)
    form = AskExtensionForm(request.POST, rules=queries.rules())
    back = safe_destination(request, request.POST.get("next", ""))
    if not form.is_valid():
        messages.error(request, "Say for how many minutes more, and why.")
        return redirect(back)
    asked = access.ask_extension(
        grant_id=grant.pk,
        by=person,
        minutes=form.cleaned_data["minutes"],
        reason=form.cleaned_data["reason"],
        source_address=source_address(request),
        now=timezone.now(),
    )
    if isinstance(asked, Denied):
        messages.error(request, asked.message)
    else:
        messages.success(
            request,
            f"You asked for {asked.minutes} minutes more on {grant.asset.name}. "
            "The end moves when an approver agrees, and not before.",
        )
    return redirect(back)


@require_http_methods(["GET", "POST"])
@only_for("approver")
def decide_extension(request: HttpRequest, extension_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    asked = get_object_or_404(queries.extensions_visible_to(person), pk=extension_id)
    form = DecisionForm(
        request.POST or None, asked=asked.minutes, rules=queries.rules()
    )
    known: dict[str, Any] = {"extension_id": asked.pk, "approver": person, "now": now}
    return decision_page(
        request,
        Decision(
            asked=asked,
            form=form,
            approve=partial(access.approve_extension, **known),
            deny=partial(access.deny_extension, **known),
            approved=lambda grant: (
                f"Approved: the access of {asked.requester.username} ends at "
                f"{grant.ends_at:%H:%M} UTC now."
            ),
            may_decide=lambda: queries.may_decide_extension(person, asked, now=now),
            template="portal/extension_detail.html",
            picture=lambda: _picture(asked),
        ),
    )


def _picture(asked: GrantExtension) -> dict[str, object]:
    return {
        "grant": asked.grant,
        "zone": asked.grant.asset.zone.site.time_zone,
        "new_end": asked.grant.ends_at + dt.timedelta(minutes=asked.minutes),
    }
