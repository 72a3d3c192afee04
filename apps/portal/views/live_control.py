"""Controlling a live session: freeze, resume, message, and who types.

Approvers of its site only; who types is its engineer's matter as well.

The pages show what the rows say, so that a form posted twice, or by two people at once,
does no harm. Every answer leads back to the page it came from.
"""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from apps.access.denials import Allowed, Denied
from apps.accounts.models import User
from apps.portal.forms.access import ReasonForm
from apps.portal.forms.sessions import MessageForm, ReceiverForm
from apps.portal.roles import signed_in
from apps.sessions import controls, handover, queries
from apps.sessions.models import Session


@require_POST
def freeze_session(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, session = _controlled(request, session_id)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say why: the engineer is told it. Nothing is frozen.")
        return _back(request, session)
    return _do(
        request,
        session,
        controls.ask_freeze,
        "The gateway holds the input now.",
        by=person,
        reason=form.cleaned_data["reason"],
    )


@require_POST
def resume_session(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, session = _controlled(request, session_id)
    return _do(
        request,
        session,
        controls.ask_resume,
        "The gateway lets input through again.",
        by=person,
    )


@require_POST
def send_message(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, session = _controlled(request, session_id)
    form = MessageForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Write one line. Nothing was sent.")
        return _back(request, session)
    return _do(
        request,
        session,
        controls.send_message,
        "The message is on its way to the terminal.",
        by=person,
        text=form.cleaned_data["text"],
    )


@require_POST
def hand_over(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, session = _typing(request, session_id, queries.may_hand_over)
    form = ReceiverForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say to whom. Nothing was handed over.")
        return _back(request, session)
    to = form.cleaned_data["to"]
    return _do(
        request,
        session,
        handover.hand_over,
        f"The gateway lets {to} type now.",
        by=person,
        to=to,
    )


@require_POST
def take_back(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    person, session = _typing(request, session_id, queries.may_take_back)
    done = "The engineer types again."
    return _do(request, session, handover.take_back, done, by=person)


def _typing(
    request: HttpRequest,
    session_id: uuid.UUID,
    may: Callable[[User, Session], Allowed | Denied],
) -> tuple[User, Session]:
    """Return who asks and the session; 404 unless they may say who types in it.

    One that has ended is answered with a sentence, to those who could.
    """
    person = signed_in(request)
    session = get_object_or_404(queries.sessions_visible_to(person), pk=session_id)
    is_theirs = person.pk == session.person_id or person.is_approver
    if not (may(person, session) if session.is_live else is_theirs):
        raise Http404
    return person, session


def _controlled(request: HttpRequest, session_id: uuid.UUID) -> tuple[User, Session]:
    """Return who asks and the session; 404 unless they may control it.

    One that has ended is answered with a sentence, to those who could control it.
    """
    person = signed_in(request)
    session = get_object_or_404(queries.sessions_visible_to(person), pk=session_id)
    is_theirs = person.is_approver and session.person_id != person.pk
    if not is_theirs or (session.is_live and not queries.may_control(person, session)):
        raise Http404
    return person, session


def _do(
    request: HttpRequest,
    session: Session,
    operation: Callable[..., Any],
    done: str,
    **arguments: Any,
) -> HttpResponse:
    verdict = operation(session_id=session.pk, now=timezone.now(), **arguments)
    if isinstance(verdict, Denied):
        messages.error(request, verdict.message)
    else:
        messages.success(request, done)
    return _back(request, session)


def _back(request: HttpRequest, session: Session) -> HttpResponse:
    page = "watch" if request.POST.get("from") == "watch" else "detail"
    return redirect(f"portal:session-{page}", session_id=session.pk)
