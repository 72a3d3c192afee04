"""Sessions, live and past, and ending one."""

import datetime as dt
import uuid

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access.denials import Denied
from apps.accounts.models import User
from apps.inventory.crypto_profiles import PROFILES
from apps.portal.forms.access import ReasonForm
from apps.portal.forms.sessions import SessionFilterForm
from apps.portal.roles import signed_in
from apps.portal.way import way_of
from apps.recordings import queries as recordings
from apps.recordings.models import FileTransfer, Recording
from apps.sessions import controls, queries
from apps.sessions.models import Session

_PER_PAGE = 25
_FILES_PER_PAGE = 100


@require_GET
def sessions(request: HttpRequest) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    form = SessionFilterForm(request.GET)
    visible = queries.sessions_visible_to(person).select_related("recording")
    found = _filtered(visible, form) if form.is_valid() else visible.none()
    live = list(found.filter(ended_at=None).order_by("deadline"))
    past = found.filter(ended_at__isnull=False).order_by("-opened_at")
    page = Paginator(past, _PER_PAGE).get_page(request.GET.get("page"))
    return render(
        request,
        "portal/sessions.html",
        {
            "form": form,
            "filtered": any(request.GET.get(name) for name in form.fields),
            "live": live,
            "page": page,
            "now": now,
            "sees_others": person.is_approver or person.is_auditor,
            "may_replay": person.is_auditor,
        },
    )


def _filtered(found: QuerySet[Session], form: SessionFilterForm) -> QuerySet[Session]:
    wanted = form.cleaned_data
    if wanted["asset"]:
        found = found.filter(asset__name__icontains=wanted["asset"])
    if wanted["person"]:
        found = found.filter(
            Q(person__username__icontains=wanted["person"])
            | Q(person__full_name__icontains=wanted["person"])
        )
    if wanted["state"]:
        found = found.filter(ended_at__isnull=wanted["state"] == "live")
    since, until = form.period()
    if since is not None:
        found = found.filter(opened_at__gte=since)
    if until is not None:
        found = found.filter(opened_at__lt=until)
    return found


@require_GET
def session_detail(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, now = signed_in(request), timezone.now()
    session = get_object_or_404(
        queries.sessions_visible_to(person).select_related(
            "lease__receipt", "grant__request__requester"
        ),
        pk=session_id,
    )
    recording = Recording.objects.filter(session=session).first()
    grant_is_active = session.grant.is_active(now)
    return render(
        request,
        "portal/session_detail.html",
        {
            "session": session,
            "channels": session.channels.all(),
            "recording": recording,
            "files": _files(request, recording),
            "may_replay": recording is not None
            and bool(recordings.may_view(person, recording)),
            "may_watch": bool(queries.may_watch(person, session)),
            "may_terminate": bool(queries.may_terminate(person, session)),
            "may_control": bool(queries.may_control(person, session)),
            "sent": session.messages.select_related("sender"),
            **typing_context(person, session, now=now),
            "may_revoke": grant_is_active
            and bool(access.may_revoke(person, session.grant)),
            "crypto": PROFILES[session.crypto_profile],
            "form": ReasonForm(),
            "may_ask_more": grant_is_active
            and session.is_live
            and session.person_id == person.pk,
            "extension": session.grant.extensions.first(),
            "steps": way_of(session.grant.request, now=now),
            "zone": session.asset.zone.site.time_zone,
            "lasted": session.duration(now),
            "now": now,
        },
    )


def typing_context(
    person: User, session: Session, *, now: dt.datetime
) -> dict[str, object]:
    """Return what `portal/session_typing.html` shows: who types, and who could."""
    may = session.is_live and bool(queries.may_hand_over(person, session))
    free = may and session.typist_id is None
    return {
        "may_hand_over": may,
        "may_take_back": session.typist_id is not None
        and bool(queries.may_take_back(person, session)),
        "receivers": [
            user
            for user in (queries.receivers(session, now=now) if free else [])
            if user.pk != person.pk
        ],
        "watching": User.objects.filter(
            pk__in=session.watches.filter(ended_at=None).values("person")
        ).order_by("username")
        if session.is_live
        else [],
    }


def _files(
    request: HttpRequest, recording: Recording | None
) -> Page[FileTransfer] | None:
    """Return the page of the session's manifest that was asked for, if it has one."""
    if recording is None:
        return None
    files = recording.files.order_by("-ended_at", "-id")
    found = Paginator(files, _FILES_PER_PAGE)
    return found.get_page(request.GET.get("page")) if found.count else None


@require_POST
def terminate_session(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person = signed_in(request)
    session = get_object_or_404(queries.sessions_visible_to(person), pk=session_id)
    if session.is_live and not queries.may_terminate(person, session):
        raise Http404
    form = ReasonForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say why: the engineer is told it. Nothing was ended.")
        return redirect("portal:session-detail", session_id=session.pk)
    verdict = controls.ask_terminate(
        session_id=session.pk,
        by=person,
        reason=form.cleaned_data["reason"],
        now=timezone.now(),
    )
    if isinstance(verdict, Denied):
        messages.error(request, verdict.message)
    else:
        messages.success(request, "The gateway ends the session now.")
    return redirect("portal:session-detail", session_id=session.pk)
