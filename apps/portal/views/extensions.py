"""More time for a grant: asking for it, and deciding on it."""

import datetime as dt
import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from apps.access import operations as access
from apps.access import queries
from apps.access.denials import Allowed, Denied
from apps.access.models import GrantExtension
from apps.accounts.models import User
from apps.portal.destinations import safe_destination
from apps.portal.forms.access import AskExtensionForm, DecideExtensionForm
from apps.portal.roles import only_for, signed_in
from apps.portal.source import source_address

_INVALID = 422


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
    form = DecideExtensionForm(
        request.POST or None,
        asked=asked.minutes,
        rules=queries.rules(),
        initial={"minutes": asked.minutes},
    )
    if request.method == "POST" and form.is_valid():
        denial = _decide(request, asked, person, form, now=now)
        if denial is None:
            return redirect("portal:approvals")
        form.add_error(None, denial.message)
        asked.refresh_from_db()
    may_decide = queries.may_decide_extension(person, asked, now=now)
    return render(
        request,
        "portal/extension_detail.html",
        {
            "form": form,
            "asked": asked,
            "grant": asked.grant,
            "zone": asked.grant.asset.zone.site.time_zone,
            "new_end": asked.grant.ends_at + dt.timedelta(minutes=asked.minutes),
            "may_decide": isinstance(may_decide, Allowed),
            "why_not": may_decide.message if isinstance(may_decide, Denied) else "",
        },
        status=_INVALID if form.errors else 200,
    )


def _decide(
    request: HttpRequest,
    asked: GrantExtension,
    person: User,
    form: DecideExtensionForm,
    *,
    now: dt.datetime,
) -> Denied | None:
    """Call the one operation the verdict asks for; a refusal is returned."""
    who = asked.requester.username
    if form.cleaned_data["verdict"] == "deny":
        denied = access.deny_extension(
            extension_id=asked.pk,
            approver=person,
            comment=form.cleaned_data["comment"],
            source_address=source_address(request),
            now=now,
        )
        if isinstance(denied, Denied):
            return denied
        messages.success(request, f"Denied: {who} is shown your reason.")
        return None
    grant = access.approve_extension(
        extension_id=asked.pk,
        approver=person,
        minutes=form.cleaned_data["minutes"],
        comment=form.cleaned_data["comment"],
        source_address=source_address(request),
        now=now,
    )
    if isinstance(grant, Denied):
        return grant
    messages.success(
        request,
        f"Approved: the access of {who} ends at {grant.ends_at:%H:%M} UTC now.",
    )
    return None
