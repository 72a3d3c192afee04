"""The page of a browser terminal, and the page of watching a live session."""

import uuid

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from apps.access import queries as access
from apps.portal.content_policy import with_terminal
from apps.portal.roles import signed_in
from apps.sessions import queries


@with_terminal
@require_GET
def terminal(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    grant = get_object_or_404(access.grants_of(person), pk=grant_id)
    if not grant.is_active(now):
        return redirect("portal:request-detail", request_id=grant.request_id)
    context = {"grant": grant, "asset": grant.asset, "now": now}
    return render(request, "portal/terminal.html", context)


@with_terminal
@require_GET
def watch_session(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    session = get_object_or_404(queries.sessions_visible_to(person), pk=session_id)
    if not session.is_live:
        return redirect("portal:session-detail", session_id=session.pk)
    if not queries.may_watch(person, session):
        raise Http404
    context = {
        "session": session,
        "asset": session.asset,
        "now": now,
        "may_control": bool(queries.may_control(person, session)),
        "may_terminate": bool(queries.may_terminate(person, session)),
        "sent": session.messages.select_related("sender"),
    }
    return render(request, "portal/watch.html", context)
