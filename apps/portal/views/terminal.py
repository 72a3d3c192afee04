"""The page of a browser terminal, and the page of watching a live session."""

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from apps.access import queries as access
from apps.accounts.notices import agree, consent_due
from apps.portal.content_policy import with_terminal
from apps.portal.forms.signin import ConsentForm
from apps.portal.roles import signed_in
from apps.portal.source import source_address
from apps.portal.views.sessions import typing_context
from apps.portal.websocket_people import AGREED_TO
from apps.sessions import queries

_INVALID = 422


@with_terminal
@require_GET
def terminal(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    grant = get_object_or_404(access.grants_of(person), pk=grant_id)
    if not grant.is_active(now):
        return redirect("portal:request-detail", request_id=grant.request_id)
    if consent_due(request.session.get(AGREED_TO, "")) is not None:
        return redirect("portal:terminal-consent", grant_id=grant.pk)
    context = {"grant": grant, "asset": grant.asset, "now": now}
    return render(request, "portal/terminal.html", context)


@require_http_methods(["GET", "POST"])
def terminal_consent(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    """Ask for consent before the first terminal of a sign-in, as the gateway does."""
    person = signed_in(request)
    grant = get_object_or_404(access.grants_of(person), pk=grant_id)
    notice = consent_due(request.session.get(AGREED_TO, ""))
    if notice is None:
        return redirect("portal:terminal", grant_id=grant.pk)
    form = ConsentForm(request.POST or None, initial={"notice": notice.pk})
    if request.method == "POST" and form.is_valid():
        if agree(
            user=person,
            notice_id=form.cleaned_data["notice"],
            source_address=source_address(request),
            now=timezone.now(),
        ):
            request.session[AGREED_TO] = str(form.cleaned_data["notice"])
            return redirect("portal:terminal", grant_id=grant.pk)
        form = ConsentForm(initial={"notice": notice.pk})
        messages.error(request, "The text has changed: read it again.")
    return render(
        request,
        "portal/terminal_consent.html",
        {"grant": grant, "asset": grant.asset, "notice": notice, "form": form},
        status=_INVALID if request.method == "POST" else 200,
    )


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
        **typing_context(person, session, now=now),
        "sent": session.messages.select_related("sender"),
    }
    return render(request, "portal/watch.html", context)
