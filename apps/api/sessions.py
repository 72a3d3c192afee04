"""Live sessions: read, watched over, held, let go, ended."""

import datetime as dt
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema

from apps.access.denials import Allowed, Denied
from apps.accounts.api_tokens import CONTROL, READ
from apps.accounts.models import User
from apps.api.callers import caller
from apps.api.problems import Problem, ProblemError, not_found
from apps.sessions import controls, handover, queries
from apps.sessions.lifecycle import AskedBy
from apps.sessions.models import Session

router = Router()

IN_API = AskedBy("api")
MOST = 200
ERRORS = dict.fromkeys((400, 401, 403, 404, 422), Problem)
CONTROL_ERRORS = {**ERRORS, HTTPStatus.CONFLICT: Problem}


class May(Schema):
    """What the caller may do with the session now."""

    watch: bool
    control: bool
    terminate: bool
    hand_over: bool


class LiveSession(Schema):
    """A session that has not ended. Times are UTC."""

    id: uuid.UUID
    short_id: str
    person: str
    asset: str
    account: str
    site: str
    door: str
    source_address: str
    state: str
    opened_at: dt.datetime
    deadline: dt.datetime
    frozen_by: str | None = Field(
        description="Who wants it frozen; `state` says whether it is."
    )
    locked_at: dt.datetime | None = Field(
        description="Since when its terminals are locked, as nobody typed."
    )
    typist: str = Field(description="Whose typing passes: `person`, or somebody else.")
    may: May


class Sessions(Schema):
    """The live sessions the caller may see; what ends first, first."""

    sessions: list[LiveSession]
    more: bool = Field(description=f"More than {MOST} are live; the rest is left out.")


class Reason(Schema):
    """Why; the engineer is told it."""

    reason: Annotated[str, Field(min_length=1, max_length=300)]


class Message(Schema):
    """One line for the engineer's terminals."""

    text: Annotated[str, Field(min_length=1, max_length=300)]


class Receiver(Schema):
    """Who is to type: somebody who watches and may."""

    to: Annotated[str, Field(min_length=1, max_length=64)]


class Done(Schema):
    """The gateway was told, and acts at once."""

    accepted: bool = True


def _visible(person: User) -> QuerySet[Session]:
    return queries.live_sessions_visible_to(person).select_related(
        "freeze_asked_by", "typist"
    )


def _shown(person: User, session: Session) -> LiveSession:
    frozen_by = session.freeze_asked_by
    return LiveSession(
        id=session.pk,
        short_id=session.short_id,
        person=session.person.username,
        asset=session.asset.name,
        account=session.account.name,
        site=session.asset.zone.site.name,
        door=session.door,
        source_address=session.source_address,
        state=session.state,
        opened_at=session.opened_at,
        deadline=session.deadline,
        frozen_by=frozen_by.username if frozen_by else None,
        locked_at=session.locked_at,
        typist=(session.typist or session.person).username,
        may=May(
            watch=bool(queries.may_watch(person, session)),
            control=bool(queries.may_control(person, session)),
            terminate=bool(queries.may_terminate(person, session)),
            hand_over=bool(queries.may_hand_over(person, session)),
        ),
    )


def _found(person: User, session_id: uuid.UUID) -> Session:
    session = _visible(person).filter(pk=session_id).first()
    if session is None:
        raise not_found()
    return session


def _done(verdict: object) -> Done:
    """Return the answer. Raises: ProblemError with the denial's code."""
    if isinstance(verdict, Denied):
        raise ProblemError(HTTPStatus.CONFLICT, verdict.code, verdict.message)
    return Done()


@router.get("/sessions", response={200: Sessions, **ERRORS}, url_name="sessions")
def sessions(request: HttpRequest) -> Sessions:
    """List the live sessions you may see."""
    person = caller(request, READ)
    found = list(_visible(person).order_by("deadline")[: MOST + 1])
    return Sessions(
        sessions=[_shown(person, session) for session in found[:MOST]],
        more=len(found) > MOST,
    )


@router.get(
    "/sessions/{uuid:session_id}",
    response={200: LiveSession, **ERRORS},
    url_name="session",
)
def session(request: HttpRequest, session_id: uuid.UUID) -> LiveSession:
    """Return one live session."""
    person = caller(request, READ)
    return _shown(person, _found(person, session_id))


@router.post(
    "/sessions/{uuid:session_id}/freeze",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-freeze",
)
def freeze(request: HttpRequest, session_id: uuid.UUID, body: Reason) -> Done:
    """Hold what the engineer types."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_control)
    return _done(
        controls.ask_freeze(
            session_id=found.pk,
            by=person,
            reason=body.reason,
            now=timezone.now(),
            asked=IN_API,
        )
    )


@router.post(
    "/sessions/{uuid:session_id}/resume",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-resume",
)
def resume(request: HttpRequest, session_id: uuid.UUID) -> Done:
    """Let a session go on that somebody froze."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_control)
    return _done(
        controls.ask_resume(
            session_id=found.pk, by=person, now=timezone.now(), asked=IN_API
        )
    )


@router.post(
    "/sessions/{uuid:session_id}/messages",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-message",
)
def message(request: HttpRequest, session_id: uuid.UUID, body: Message) -> Done:
    """Write one line to the engineer's terminals."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_control)
    return _done(
        controls.send_message(
            session_id=found.pk,
            by=person,
            text=body.text,
            now=timezone.now(),
            asked=IN_API,
        )
    )


@router.post(
    "/sessions/{uuid:session_id}/terminate",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-terminate",
)
def terminate(request: HttpRequest, session_id: uuid.UUID, body: Reason) -> Done:
    """End a session: one's own, or as approver of its site."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_terminate)
    return _done(
        controls.ask_terminate(
            session_id=found.pk,
            by=person,
            reason=body.reason,
            now=timezone.now(),
            asked=IN_API,
        )
    )


@router.post(
    "/sessions/{uuid:session_id}/handover",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-handover",
)
def hand_over(request: HttpRequest, session_id: uuid.UUID, body: Receiver) -> Done:
    """Hand the typing to somebody who watches: in one's own session, or one's site."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_hand_over)
    return _done(
        handover.hand_over(
            session_id=found.pk,
            by=person,
            to=body.to,
            now=timezone.now(),
            asked=IN_API,
        )
    )


@router.post(
    "/sessions/{uuid:session_id}/take-back",
    response={200: Done, **CONTROL_ERRORS},
    url_name="session-take-back",
)
def take_back(request: HttpRequest, session_id: uuid.UUID) -> Done:
    """Return the typing to the session's engineer."""
    person = caller(request, CONTROL)
    found = _permitted(person, session_id, queries.may_take_back)
    return _done(
        handover.take_back(
            session_id=found.pk, by=person, now=timezone.now(), asked=IN_API
        )
    )


def _permitted(
    person: User,
    session_id: uuid.UUID,
    may: Callable[[User, Session], Allowed | Denied],
) -> Session:
    """Return the session; who may not do that with it is told that there is none."""
    found = _found(person, session_id)
    if not may(person, found):
        raise not_found()
    return found
