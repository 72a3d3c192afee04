"""Every write to requests, approvals and grants."""

import datetime as dt
import uuid
from collections.abc import Iterable

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.access import queries
from apps.access.decisions import note_approval, note_decision
from apps.access.denials import Allowed, DenialCode, Denied
from apps.access.extensions import (
    approve_extension,
    ask_extension,
    deny_extension,
    lapse_extension,
)
from apps.access.lifecycle import REQUEST_TRANSITIONS, RequestState
from apps.access.models import AccessRequest, Approval, Grant, Verdict
from apps.access.policy import (
    RequestFacts,
    clip_minutes,
    decide_approval,
    decide_minutes,
    decide_request,
)
from apps.accounts.models import User
from apps.accounts.ssh_sign_in import end_graces
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.inventory.models import TargetAccount
from apps.inventory.queries import (
    requestable_assets,
)

__all__ = [
    "approve_extension",
    "approve_request",
    "ask_extension",
    "deny_extension",
    "deny_request",
    "expire_due_grants",
    "finish_grant",
    "lapse_requests",
    "revoke_grant",
    "submit_request",
    "withdraw_request",
]


@transaction.atomic
def submit_request(
    *,
    requester: User,
    asset_id: uuid.UUID,
    account_id: uuid.UUID,
    services: Iterable[str],
    minutes: int,
    reason: str,
    work_order: str,
    source_address: str,
    now: dt.datetime,
) -> AccessRequest | Denied:
    """Ask for one account on one asset; the approvers of its site decide."""
    person = User.objects.get(pk=requester.pk)
    asset = requestable_assets(person).filter(pk=asset_id).first()
    if asset is None:
        return Denied(DenialCode.UNKNOWN_ASSET)
    account = TargetAccount.objects.filter(pk=account_id, asset=asset).first()
    if account is None:
        return Denied(DenialCode.UNKNOWN_ACCOUNT)
    facts = RequestFacts(
        services=frozenset(services),
        minutes=minutes,
        reason=reason,
        work_order=work_order.strip(),
    )
    verdict = decide_request(
        queries.person_facts(person, asset.zone.site),
        queries.path_facts(asset),
        facts,
        queries.rules(),
        approvers=queries.approvers_for(asset, excluding=person).count(),
    )
    if (
        verdict
        and AccessRequest.objects.filter(
            requester=person,
            asset=asset,
            account=account,
            state=RequestState.PENDING,
        ).exists()
    ):
        verdict = Denied(DenialCode.REQUEST_PENDING_ALREADY)
    note_decision(
        question="request",
        verdict=verdict,
        user=person,
        asset_label=asset.name,
        asset_id=str(asset.pk),
        account_label=account.name,
        source_address=source_address,
        now=now,
    )
    if isinstance(verdict, Denied):
        audit.record(
            Kind.REQUEST_REFUSED,
            now=now,
            actor=person.party,
            subject=asset.party,
            source_address=source_address,
            outcome=Outcome.DENIED,
            data={"code": verdict.code, "account": account.name},
        )
        return verdict
    try:
        with transaction.atomic():
            request = AccessRequest.objects.create(
                requester=person,
                asset=asset,
                account=account,
                services=sorted(facts.services),
                minutes=minutes,
                reason=reason.strip(),
                work_order=facts.work_order,
                source_address=source_address,
                submitted_at=now,
                lapses_at=now + dt.timedelta(hours=settings.REQUEST_LAPSES_AFTER_HOURS),
            )
    except IntegrityError:
        # Two of the same at once: the constraint lets one through.
        return Denied(DenialCode.REQUEST_PENDING_ALREADY)
    audit.record(
        Kind.REQUEST_SUBMITTED,
        now=now,
        actor=person.party,
        subject=request.party,
        source_address=source_address,
        data={
            "asset": asset.name,
            "account": account.name,
            "minutes": minutes,
            "services": request.services,
            "reason": request.reason,
            "work_order": request.work_order,
        },
    )
    return request


def _locked_request(request_id: uuid.UUID) -> AccessRequest | None:
    return (
        AccessRequest.objects.select_for_update(of=("self",))
        .select_related("requester", "asset__zone__site", "account")
        .filter(pk=request_id)
        .first()
    )


def _may_decide(
    *,
    request: AccessRequest,
    version: int,
    approver: User,
    source_address: str,
    now: dt.datetime,
) -> Allowed | Denied:
    verdict = decide_approval(
        queries.person_facts(approver, request.asset.zone.site),
        is_requester=approver.pk == request.requester_id,
        is_pending=request.state == RequestState.PENDING and now < request.lapses_at,
        is_current=version == request.version,
    )
    note_approval(
        verdict=verdict,
        approver=approver,
        about=request,
        source_address=source_address,
        now=now,
    )
    return verdict


@transaction.atomic
def approve_request(
    *,
    request_id: uuid.UUID,
    version: int,
    approver: User,
    minutes: int,
    comment: str,
    source_address: str,
    now: dt.datetime,
) -> Grant | Denied:
    """Approve a request, for as long as was asked or shorter, and make its grant.

    `version` is that of the request the approver read. The path is decided again: what
    was true at the request need not be true now.
    """
    approver = User.objects.get(pk=approver.pk)
    request = _locked_request(request_id)
    if request is None:
        return Denied(DenialCode.REQUEST_NOT_PENDING)
    verdict = _may_decide(
        request=request,
        version=version,
        approver=approver,
        source_address=source_address,
        now=now,
    )
    if not verdict:
        return verdict
    granted = clip_minutes(request.minutes, minutes)
    duration = decide_minutes(granted, queries.rules())
    if not duration:
        return duration
    path = decide_request(
        queries.person_facts(request.requester, request.asset.zone.site),
        queries.path_facts(request.asset),
        RequestFacts(
            services=frozenset(request.services),
            minutes=granted,
            reason=request.reason,
            work_order=request.work_order,
        ),
        queries.rules(),
        approvers=1,
    )
    if not path:
        return path
    Approval.objects.create(
        request=request,
        request_version=request.version,
        requester=request.requester,
        approver=approver,
        verdict=Verdict.APPROVE,
        minutes=granted,
        comment=comment.strip(),
        source_address=source_address,
        at=now,
    )
    _move(request, RequestState.APPROVED, now=now)
    audit.record(
        Kind.REQUEST_APPROVED,
        now=now,
        actor=approver.party,
        subject=request.party,
        source_address=source_address,
        data={"minutes_asked": request.minutes, "minutes": granted, "comment": comment},
    )
    grant = Grant.objects.create(
        request=request,
        person=request.requester,
        asset=request.asset,
        account=request.account,
        services=request.services,
        starts_at=now,
        ends_at=now + dt.timedelta(minutes=granted),
    )
    audit.record(
        Kind.GRANT_MADE,
        now=now,
        actor=audit.system("access"),
        subject=grant.party,
        data={
            "person": request.requester.username,
            "asset": request.asset.name,
            "account": request.account.name,
            "starts_at": grant.starts_at,
            "ends_at": grant.ends_at,
            "services": grant.services,
        },
    )
    return grant


@transaction.atomic
def deny_request(
    *,
    request_id: uuid.UUID,
    version: int,
    approver: User,
    comment: str,
    source_address: str,
    now: dt.datetime,
) -> AccessRequest | Denied:
    """Deny a request with a reason the requester is shown."""
    approver = User.objects.get(pk=approver.pk)
    request = _locked_request(request_id)
    if request is None:
        return Denied(DenialCode.REQUEST_NOT_PENDING)
    verdict = _may_decide(
        request=request,
        version=version,
        approver=approver,
        source_address=source_address,
        now=now,
    )
    if not verdict:
        return verdict
    if not comment.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: the requester is shown it.")
    Approval.objects.create(
        request=request,
        request_version=request.version,
        requester=request.requester,
        approver=approver,
        verdict=Verdict.DENY,
        comment=comment.strip(),
        source_address=source_address,
        at=now,
    )
    _move(request, RequestState.DENIED, now=now)
    audit.record(
        Kind.REQUEST_DENIED,
        now=now,
        actor=approver.party,
        subject=request.party,
        source_address=source_address,
        data={"comment": comment.strip()},
    )
    return request


def _move(request: AccessRequest, state: RequestState, *, now: dt.datetime) -> None:
    """Move a locked request on; the table of transitions has the last word."""
    if state not in REQUEST_TRANSITIONS[RequestState(request.state)]:
        raise RuntimeError(f"a {request.state} request cannot become {state}")
    request.state = state
    request.decided_at = now
    request.save(update_fields=["state", "decided_at"])


@transaction.atomic
def withdraw_request(*, request_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Take one's own pending request back; False when not theirs or decided."""
    request = _locked_request(request_id)
    if (
        request is None
        or request.requester_id != by.pk
        or request.state != RequestState.PENDING
    ):
        return False
    _move(request, RequestState.WITHDRAWN, now=now)
    audit.record(Kind.REQUEST_WITHDRAWN, now=now, actor=by.party, subject=request.party)
    return True


@transaction.atomic
def revoke_grant(
    *, grant_id: uuid.UUID, by: User, reason: str, now: dt.datetime
) -> Allowed | Denied:
    """Revoke a grant: its sessions end, wherever they are, in well under a second."""
    person = User.objects.get(pk=by.pk)
    grant = (
        Grant.objects.select_for_update(of=("self",))
        .select_related("person", "asset__zone__site", "account")
        .filter(pk=grant_id)
        .first()
    )
    if grant is None:
        return Denied(DenialCode.NOT_PERMITTED)
    verdict = queries.may_revoke(person, grant)
    if not verdict:
        return verdict
    if not grant.is_active(now):
        return Denied(DenialCode.GRANT_EXPIRED, "The grant has ended already.")
    if not reason.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: the engineer is told it.")
    grant.revoked_at, grant.revoked_by = now, person
    grant.revoke_reason = reason.strip()
    grant.save(update_fields=["revoked_at", "revoked_by", "revoke_reason"])
    # Whoever loses a grant by somebody's hand shows that it is they, with every factor.
    end_graces(
        user_id=grant.person_id, because=Kind.GRANT_REVOKED, by=person.party, now=now
    )
    lapse_extension(grant, now=now)
    audit.record(
        Kind.GRANT_REVOKED,
        now=now,
        actor=person.party,
        subject=grant.party,
        data={"reason": grant.revoke_reason},
    )
    return verdict


@transaction.atomic
def finish_grant(*, grant_id: uuid.UUID, by: User, now: dt.datetime) -> bool:
    """Give one's own grant back early; False when it is not active or theirs."""
    changed = (
        Grant.objects.active(at=now)
        .filter(pk=grant_id, person=by)
        .update(finished_at=now)
    )
    if changed != 1:
        return False
    grant = Grant.objects.select_related("person", "account__asset").get(pk=grant_id)
    lapse_extension(grant, now=now)
    audit.record(Kind.GRANT_FINISHED, now=now, actor=by.party, subject=grant.party)
    return True


def expire_due_grants(*, now: dt.datetime) -> int:
    """Note in the ledger which grants have reached their end; returns how many.

    Only a note: the gateway's own timers have ended the sessions on time already.
    """
    due = (
        Grant.objects.filter(
            ends_at__lte=now, expiry_noted_at=None, revoked_at=None, finished_at=None
        )
        .order_by("ends_at")
        .values_list("pk", flat=True)[:200]
    )
    noted = 0
    for grant_id in list(due):
        with transaction.atomic():
            changed = Grant.objects.filter(
                pk=grant_id,
                # It may have been extended since it was found.
                ends_at__lte=now,
                expiry_noted_at=None,
                revoked_at=None,
                finished_at=None,
            ).update(expiry_noted_at=now)
            if changed != 1:
                continue
            grant = Grant.objects.select_related("person", "account__asset").get(
                pk=grant_id
            )
            lapse_extension(grant, now=now)
            audit.record(
                Kind.GRANT_EXPIRED,
                now=now,
                actor=audit.system("access"),
                subject=grant.party,
                data={"ends_at": grant.ends_at},
            )
            noted += 1
    return noted


def lapse_requests(*, now: dt.datetime) -> int:
    """Lapse the requests nobody answered in time; returns how many."""
    due = (
        AccessRequest.objects.filter(state=RequestState.PENDING, lapses_at__lte=now)
        .order_by("lapses_at")
        .values_list("pk", flat=True)[:200]
    )
    lapsed = 0
    for request_id in list(due):
        with transaction.atomic():
            request = _locked_request(request_id)
            if request is None or request.state != RequestState.PENDING:
                continue
            _move(request, RequestState.LAPSED, now=now)
            audit.record(
                Kind.REQUEST_LAPSED,
                now=now,
                actor=audit.system("access"),
                subject=request.party,
            )
            lapsed += 1
    return lapsed
