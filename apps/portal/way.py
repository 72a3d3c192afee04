"""The way of a request so far, as steps: asked, decided, used, ended, proved."""

import datetime as dt
from dataclasses import dataclass

from apps.access.lifecycle import GrantState, RequestState
from apps.access.models import AccessRequest, Approval, Grant, Verdict
from apps.access.queries import approvers_for
from apps.accounts.models import User
from apps.portal.templatetags.sluice import duration
from apps.sessions.models import Session
from apps.vault.models import Lease, LeaseState


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; `state` is done, now, next or stopped."""

    state: str
    title: str
    detail: str = ""
    at: dt.datetime | None = None


def waiting_for(request: AccessRequest) -> list[User]:
    """Return who could decide on `request`."""
    return list(approvers_for(request.asset, excluding=request.requester))


def names(people: list[User]) -> str:
    """Return full names as a list in words."""
    return ", ".join(person.full_name or person.username for person in people)


def way_of(request: AccessRequest, *, now: dt.datetime) -> list[Step]:
    """Return the steps of `request` in order, the ones to come included."""
    steps = [
        Step(
            state="done",
            title="Requested",
            detail=f"by {request.requester.username} from {request.source_address}",
            at=request.submitted_at,
        ),
        *_decision(request, now=now),
    ]
    grant = Grant.objects.filter(request=request).select_related("revoked_by").first()
    if grant is not None:
        steps += _grant(grant, now=now)
    return steps


def _decision(request: AccessRequest, *, now: dt.datetime) -> list[Step]:
    approval = (
        Approval.objects.filter(request=request).select_related("approver").last()
    )
    if approval is not None:
        return [_verdict(request, approval)]
    if request.state == RequestState.WITHDRAWN:
        return [Step(state="stopped", title="Withdrawn", at=request.decided_at)]
    if request.state == RequestState.LAPSED or now >= request.lapses_at:
        return [
            Step(
                state="stopped",
                title="Lapsed",
                detail="nobody answered in time",
                at=request.decided_at or request.lapses_at,
            )
        ]
    return [
        Step(
            state="now",
            title="Waiting for an approver",
            detail=names(waiting_for(request)) or "nobody can approve this any more",
        ),
        Step(
            state="next",
            title="Grant",
            detail="a credential for each session only, every session recorded",
        ),
    ]


def _verdict(request: AccessRequest, approval: Approval) -> Step:
    approver = approval.approver.full_name or approval.approver.username
    said = f"“{approval.comment}”" if approval.comment else ""
    if approval.verdict == Verdict.DENY:
        return Step(
            state="stopped", title=f"Denied by {approver}", detail=said, at=approval.at
        )
    shortened = (
        f"shortened from {request.minutes} to {approval.minutes} min"
        if approval.minutes != request.minutes
        else f"for {approval.minutes} min"
    )
    return Step(
        state="done",
        title=f"Approved by {approver}",
        detail=f"{shortened} {said}".strip(),
        at=approval.at,
    )


def _grant(grant: Grant, *, now: dt.datetime) -> list[Step]:
    sessions = list(
        Session.objects.filter(grant=grant)
        .select_related("lease__receipt")
        .order_by("opened_at")
    )
    steps = [step for session in sessions for step in session_steps(session)]
    state = grant.state(now)
    if state == GrantState.ACTIVE:
        return [
            *steps,
            Step(state="now", title="Grant active, until", at=grant.ends_at),
        ]
    if state == GrantState.REVOKED:
        by = grant.revoked_by.username if grant.revoked_by else "somebody"
        end = Step(
            state="stopped",
            title=f"Revoked by {by}",
            detail=f"“{grant.revoke_reason}”",
            at=grant.revoked_at,
        )
    elif state == GrantState.FINISHED:
        end = Step(state="done", title="Given back", at=grant.finished_at)
    else:
        end = Step(state="done", title="The time was up", at=grant.ends_at)
    found = [*steps, end]
    found.sort(key=lambda step: step.at or now)
    return found


def session_steps(session: Session) -> list[Step]:
    """Return the steps of one session: opened, ended, credential proved dead."""
    steps = [
        Step(
            state="done",
            title=f"Session {session.short_id} opened",
            detail=f"by {'ssh' if session.door == 'ssh' else 'browser terminal'} "
            f"from {session.source_address}",
            at=session.opened_at,
        )
    ]
    if session.ended_at is not None:
        steps.append(
            Step(
                state="done",
                title=f"Session {session.short_id} ended",
                detail=session.end_detail or session.end_sentence,
                at=session.ended_at,
            )
        )
    return [*steps, *_credential(session.lease)]


def _credential(lease: Lease | None) -> list[Step]:
    """Return what became of a leased credential, once that is known."""
    if lease is None:
        return []
    receipt = getattr(lease, "receipt", None)
    if receipt is not None:
        latency = dt.timedelta(milliseconds=receipt.latency_ms)
        return [
            Step(
                state="done",
                title=f"Credential proved dead after {duration(latency)}",
                detail=f"{receipt.how}, tried with {receipt.proved_by}",
                at=receipt.proved_at,
            )
        ]
    if lease.state == LeaseState.OPEN:
        return [
            Step(
                state="stopped",
                title="Credential not proved dead yet",
                detail=lease.last_error,
                at=lease.ended_at,
            )
        ]
    return []
