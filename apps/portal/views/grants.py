"""Giving a grant back, and revoking one."""

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from apps.access import operations as access
from apps.access import queries
from apps.access.denials import Denied
from apps.portal.destinations import safe_destination
from apps.portal.forms.access import ReasonForm
from apps.portal.roles import signed_in


@require_POST
def finish_grant(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    grant = get_object_or_404(queries.grants_of(person), pk=grant_id)
    if access.finish_grant(grant_id=grant.pk, by=person, now=timezone.now()):
        messages.success(
            request,
            f"You gave the access to {grant.asset.name} back. Sessions end now.",
        )
    else:
        messages.error(request, "That access had ended already.")
    return redirect("portal:my-access")


@require_POST
def revoke_grant(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    grant = get_object_or_404(queries.grants_visible_to(person), pk=grant_id)
    if not queries.may_revoke(person, grant):
        raise Http404
    form = ReasonForm(request.POST)
    back = safe_destination(request, request.POST.get("next", ""))
    if not form.is_valid():
        messages.error(
            request, "Say why: the engineer is told it. Nothing was revoked."
        )
        return redirect(back)
    verdict = access.revoke_grant(
        grant_id=grant.pk,
        by=person,
        reason=form.cleaned_data["reason"],
        now=timezone.now(),
    )
    if isinstance(verdict, Denied):
        messages.error(request, verdict.message)
    else:
        messages.success(
            request,
            f"The grant of {grant.person.username} is revoked. Sessions end now.",
        )
    return redirect(back)
