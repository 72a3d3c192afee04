"""Reading sessions: who sees them, and which live ones must end now."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from django.db.models import Exists, F, OuterRef, Prefetch, Q, QuerySet

from apps.access import queries as access
from apps.access.denials import Allowed, DenialCode, Denied
from apps.access.models import Grant
from apps.access.queries import standing
from apps.accounts.models import User
from apps.inventory.queries import is_member, sites_of
from apps.sessions.lifecycle import EndReason, SessionState
from apps.sessions.models import GatewayNode, Session, SessionMessage
from apps.vault.models import Lease, LeaseState

# A gateway that is only started again withdraws its own: it reaches the assets.
_ADOPTED_AFTER = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionVerdict:
    """A live session that must end: why, by whom, and what the engineer is told."""

    session_id: uuid.UUID
    reason: EndReason
    message: str
    by: str = ""


_Row = tuple[uuid.UUID, uuid.UUID, dt.datetime, dt.datetime, uuid.UUID | None]


def verdicts(*, gateway_id: uuid.UUID, now: dt.datetime) -> list[SessionVerdict]:
    """Make the decision again for each live session of this gateway.

    Returns only those that must end, with the reason; reads everything anew. The look
    at those that go on is made often, so of them it reads the least.
    """
    live = (
        Session.objects.live()
        .filter(gateway_id=gateway_id)
        .values_list(
            "pk", "grant_id", "deadline", "grant__ends_at", "terminate_asked_by_id"
        )
    )
    # django-stubs do not see that nobody may have asked.
    rows = cast(list[_Row], list(live))
    if not rows:
        return []
    decisions = standing({grant_id for _, grant_id, *_ in rows}, now=now)
    found: list[SessionVerdict] = []
    by_grant: dict[uuid.UUID, SessionVerdict] = {}
    for session_id, grant_id, deadline, ends_at, asked_by in rows:
        decision = decisions[grant_id]
        denied = isinstance(decision, Denied)
        if asked_by is None and not denied and now < max(deadline, ends_at):
            continue
        verdict = by_grant.get(grant_id) if asked_by is None else None
        if verdict is not None and denied:
            # The sessions of a grant that is gone all end for the same reason.
            found.append(replace(verdict, session_id=session_id))
            continue
        session = Session.objects.select_related(
            "terminate_asked_by", "grant__revoked_by"
        ).get(pk=session_id)
        verdict = _verdict(session, decision, now=now)
        if verdict is not None:
            found.append(verdict)
            if session.terminate_asked_by is None:
                by_grant[grant_id] = verdict
    return found


def withdrawn(
    live: Mapping[uuid.UUID, Sequence[uuid.UUID]], *, now: dt.datetime
) -> list[SessionVerdict]:
    """Return verdicts on the sessions whose grant holds no more.

    `live` are the sessions of a gateway by grant, as it knows them: no row of a session
    is read, so that it takes as long for hundreds of them as for one.
    """
    found: list[SessionVerdict] = []
    for grant_id, decision in standing(live, now=now).items():
        if not isinstance(decision, Denied):
            continue
        grant = Grant.objects.select_related("revoked_by").filter(pk=grant_id).first()
        reason, message, by = _denied_end(grant, decision)
        found += [
            SessionVerdict(session_id=session_id, reason=reason, message=message, by=by)
            for session_id in live[grant_id]
        ]
    return found


def _verdict(
    session: Session, decision: Allowed | Denied, *, now: dt.datetime
) -> SessionVerdict | None:
    if session.terminate_asked_by is not None:
        by = session.terminate_asked_by.username
        return SessionVerdict(
            session_id=session.pk,
            reason=EndReason.TERMINATED,
            message=f"ended by {by}: {session.terminate_reason}",
            by=by,
        )
    if isinstance(decision, Denied):
        return _denied_verdict(session.pk, session.grant, decision)
    if now >= max(session.deadline, session.grant.ends_at):
        return SessionVerdict(
            session_id=session.pk, reason=EndReason.EXPIRED, message="the time is up"
        )
    return None


def extended(*, gateway_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the live sessions of this gateway whose grant ends later than they do."""
    return list(
        Session.objects.live()
        .filter(
            gateway_id=gateway_id,
            grant__ends_at__gt=F("deadline"),
            grant__revoked_at=None,
            grant__finished_at=None,
        )
        .values_list("pk", flat=True)
    )


def _denied_verdict(
    session_id: uuid.UUID, grant: Grant | None, decision: Denied
) -> SessionVerdict:
    reason, message, by = _denied_end(grant, decision)
    return SessionVerdict(session_id=session_id, reason=reason, message=message, by=by)


def _denied_end(grant: Grant | None, decision: Denied) -> tuple[EndReason, str, str]:
    """Return why a session of a denied grant ends, the words for it, and by whom."""
    if decision.code == DenialCode.GRANT_REVOKED and grant is not None:
        if grant.revoked_by is None:
            # Revoked between the two looks: who and why must not be lost.
            grant = Grant.objects.select_related("revoked_by").get(pk=grant.pk)
        if grant.revoked_by is not None:
            by = grant.revoked_by.username
            message = f"access revoked by {by}: {grant.revoke_reason}"
            return EndReason.REVOKED, message, by
    if decision.code == DenialCode.GRANT_EXPIRED:
        return EndReason.EXPIRED, "the time is up", ""
    if decision.code == DenialCode.GRANT_FINISHED:
        return EndReason.FINISHED, "you gave the access back", ""
    # Whatever else changed (the person, the conduit, the host key), access is gone.
    return EndReason.REVOKED, f"access withdrawn: {decision.message}", ""


def sessions_visible_to(user: User) -> QuerySet[Session]:
    """Return the sessions `user` may see: own; approvers' and auditors', the site's."""
    visible = Q(person=user)
    if user.is_approver or user.is_auditor:
        visible |= Q(asset__zone__site__in=sites_of(user))
    return Session.objects.select_related(
        "person", "asset__zone__site", "account", "grant__request", "lease", "gateway"
    ).filter(visible)


def live_sessions_visible_to(user: User) -> QuerySet[Session]:
    """Return the live ones among `sessions_visible_to`."""
    return sessions_visible_to(user).filter(ended_at=None)


def may_watch(user: User, session: Session) -> Allowed | Denied:
    """Say whether `user`, approver or auditor of the site, may watch it live."""
    if user.disabled_at is not None or not (user.is_approver or user.is_auditor):
        return Denied(DenialCode.NOT_PERMITTED)
    if user.pk == session.person_id:
        return Denied(DenialCode.NOT_PERMITTED)
    if not is_member(user, session.asset.zone.site):
        return Denied(DenialCode.NOT_PERMITTED)
    if not session.is_live:
        return Denied(DenialCode.NOT_PERMITTED, "The session has ended.")
    return Allowed("approver or auditor of the site")


def may_terminate(user: User, session: Session) -> Allowed | Denied:
    """Say whether `user` may end it: its person, or an approver of the site."""
    if user.disabled_at is not None:
        return Denied(DenialCode.PERSON_DISABLED)
    if not session.is_live:
        return Denied(DenialCode.NOT_PERMITTED, "The session has ended already.")
    if user.pk == session.person_id:
        return Allowed("own session")
    if not user.is_approver:
        return Denied(DenialCode.NOT_PERMITTED)
    if not is_member(user, session.asset.zone.site):
        return Denied(DenialCode.NOT_PERMITTED)
    return Allowed("approver of the site")


def may_control(user: User, session: Session) -> Allowed | Denied:
    """Say whether `user` may freeze, resume and write to it: approvers of the site.

    Never the session's own person, whatever their roles are (R17).
    """
    if user.disabled_at is not None:
        return Denied(DenialCode.PERSON_DISABLED)
    if not session.is_live:
        return Denied(DenialCode.NOT_PERMITTED, "The session has ended already.")
    if not user.is_approver or not is_member(user, session.asset.zone.site):
        return Denied(DenialCode.NOT_PERMITTED)
    if user.pk == session.person_id:
        return Denied(DenialCode.OWN_SESSION)
    return Allowed("approver of the site")


def may_hand_over(user: User, session: Session) -> Allowed | Denied:
    """Say whether `user` may decide who else types: its person, or who controls it."""
    if user.disabled_at is None and session.is_live and user.pk == session.person_id:
        return Allowed("own session")
    return may_control(user, session)


def may_take_back(user: User, session: Session) -> Allowed | Denied:
    """Say whether `user` may return the typing: also who has it now."""
    if session.typist_id is not None and user.pk == session.typist_id:
        return Allowed("who types")
    return may_hand_over(user, session)


def may_type(user: User, session: Session, *, now: dt.datetime) -> Allowed | Denied:
    """Say whether typing may be handed to `user`, and may stay with them.

    They may watch it, and hold a grant of their own with which they could open a shell
    on the same account now: so nobody types on an asset whose access was not approved.
    """
    verdict = may_watch(user, session)
    if not verdict:
        return verdict
    if typing_until(user, session, now=now) is None:
        return Denied(DenialCode.RECEIVER_REFUSED)
    return Allowed("a grant of their own")


def typing_until(
    user: User, session: Session, *, now: dt.datetime
) -> dt.datetime | None:
    """Return when the access ends by which `user` may type; None without any."""
    return access.usable_until(
        user, account_id=session.account_id, service="shell", now=now
    )


def receivers(session: Session, *, now: dt.datetime) -> list[User]:
    """Return who watches at a keyboard just now and could be handed the typing."""
    people = User.objects.filter(
        pk__in=session.watches.filter(ended_at=None, can_type=True).values("person")
    ).order_by("username")
    return [user for user in people if may_type(user, session, now=now)]


def typing_no_longer(*, gateway_id: uuid.UUID, now: dt.datetime) -> list[uuid.UUID]:
    """Return the live sessions of this gateway whose receiver may type no longer."""
    handed = (
        Session.objects.live()
        .filter(gateway_id=gateway_id, typist__isnull=False)
        .select_related("typist", "asset__zone__site")
    )
    return [
        session.pk
        for session in handed
        if session.typist is None or not may_type(session.typist, session, now=now)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMessage:
    """A message that no terminal has shown yet."""

    number: int
    sender: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionControl:
    """What people want of a live session, beside its end.

    `freeze_number` grows with each freeze and resume; `frozen` is what holds now, `by`
    whom and why; `noted_frozen` is what the gateway has written so far. `messages` are
    those not shown yet, in order. `typist` is who types instead of the engineer;
    `typist_number` grows with each change, and `typist_noted` is the last one written
    as carried out. `typist_until` is when their own access ends.
    """

    session_id: uuid.UUID
    freeze_number: int
    frozen: bool
    noted_frozen: bool
    by: str
    reason: str
    messages: tuple[PendingMessage, ...] = ()
    typist_number: int = 0
    typist_noted: int = 0
    typist_id: uuid.UUID | None = None
    typist: str = ""
    typist_until: dt.datetime | None = None


def controls(*, gateway_id: uuid.UUID, now: dt.datetime) -> list[SessionControl]:
    """Return what is wanted of each live session of this gateway that somebody touched.

    Reads the state that holds, not the steps to it: asking again changes nothing.
    """
    unshown = SessionMessage.objects.filter(shown_at=None).select_related("sender")
    written_to = Exists(unshown.filter(session=OuterRef("pk")))
    touched = (
        Session.objects.live()
        .filter(gateway_id=gateway_id)
        .filter(Q(freeze_number__gt=0) | Q(typist_number__gt=0) | Q(written_to))
        .select_related("freeze_asked_by", "resumed_by", "typist")
        .prefetch_related(Prefetch("messages", unshown, to_attr="unshown"))
    )
    return [_control(session, now=now) for session in touched]


def _control(session: Session, *, now: dt.datetime) -> SessionControl:
    typist = session.typist
    frozen = session.freeze_asked_by is not None
    by = session.freeze_asked_by or session.resumed_by
    waiting: list[SessionMessage] = getattr(session, "unshown", [])
    return SessionControl(
        session_id=session.pk,
        freeze_number=session.freeze_number,
        frozen=frozen,
        noted_frozen=session.state == SessionState.FROZEN,
        by=by.username if by is not None else "",
        reason=session.freeze_reason,
        typist_number=session.typist_number,
        typist_noted=session.typist_noted,
        typist_id=session.typist_id,
        typist=typist.username if typist is not None else "",
        typist_until=typing_until(typist, session, now=now) if typist else None,
        messages=tuple(
            PendingMessage(
                number=message.number,
                sender=message.sender.username,
                text=message.text,
            )
            for message in waiting
        ),
    )


def heartbeats() -> dict[uuid.UUID, dt.datetime]:
    """Return when each running gateway said last that it lives, by its own clock."""
    return dict(running_gateways().values_list("pk", "seen_at"))


def running_gateways() -> QuerySet[GatewayNode]:
    """Return the gateways that have not stopped or been lost."""
    return GatewayNode.objects.filter(stopped_at=None)


def leases_to_withdraw(
    *, gateway_name: str, now: dt.datetime
) -> tuple[list[uuid.UUID], dt.datetime | None]:
    """Return the ended leases of this gateway's sessions that are due, and when the
    next one is.

    Also those of earlier processes of the same name, and those of gateways that have
    been gone for a while: any gateway may withdraw for them.
    """
    running = running_gateways().filter(name=OuterRef("session__gateway__name"))
    gone = Q(session__gateway__stopped_at__lte=now - _ADOPTED_AFTER) & ~Exists(running)
    waiting = (
        Lease.objects.filter(
            Q(session__gateway__name=gateway_name) | gone,
            state__in=[LeaseState.WITHDRAWING, LeaseState.OPEN],
        )
        .order_by(F("try_again_at").asc(nulls_first=True), "id")
        .values_list("pk", "try_again_at")
    )
    due, later = [], []
    for lease_id, at in waiting:
        if at is None or at <= now:
            due.append(lease_id)
        else:
            later.append(at)
    return due, min(later, default=None)
