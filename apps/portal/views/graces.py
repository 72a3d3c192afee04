"""Ending the time in which the key alone signs in over SSH: one's own, a person's."""

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from apps.accounts import ssh_sign_in
from apps.accounts.models import User
from apps.audit.kinds import Kind
from apps.portal.roles import only_for, signed_in


@require_POST
def end_own(request: HttpRequest) -> HttpResponse:
    _end(request, signed_in(request))
    return redirect("portal:my-access")


@require_POST
@only_for("administrator")
def end_of_person(request: HttpRequest, person_id: uuid.UUID) -> HttpResponse:
    person = get_object_or_404(User, pk=person_id)
    _end(request, person)
    return redirect("portal:person-detail", person_id=person.pk)


def _end(request: HttpRequest, person: User) -> None:
    ssh_sign_in.end_graces(
        user_id=person.pk,
        because=Kind.GRACE_ENDED,
        by=signed_in(request).party,
        now=timezone.now(),
    )
    messages.success(request, "The next sign-in over SSH needs the one-time code.")
