"""More time for a grant that holds: asked for by its person, decided by an approver.

The end of a grant moves here and nowhere else, and only later. Locks are taken in the
order grant, extension, ledger.
"""

import datetime as dt
import uuid

from django.db import IntegrityError, transaction

from apps.access import queries
from apps.access.decisions import note_approval, note_decision
from apps.access.denials import Allowed, DenialCode, Denied
from apps.access.lifecycle import EXTENSION_TRANSITIONS, ExtensionState
from apps.access.models import Grant, GrantExtension
from apps.access.policy import (
    clip_minutes,
    decide_connection,
    decide_extension,
)
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome


@transaction.atomic
def ask_extension(
    *,
    grant_id: uuid.UUID,
    by: User,
    minutes: int,
    reason: str,
    source_address: str,
    now: dt.datetime,
) -> GrantExtension | Denied:
    """Ask for `minutes` more on one's own grant; the approvers of its site decide.

    The grant must hold at `now`, and may not become longer in all than the settings
    allow. One question at a time.
    """
    person = User.objects.get(pk=by.pk)
    grant = _locked_grant(grant_id)
    if grant is None or grant.person_id != person.pk:
        return Denied(DenialCode.NO_GRANT)
    verdict = _may_ask(person, grant, minutes, reason, now=now)
    note_decision(
        question="extension",
        verdict=verdict,
        user=person,
        asset_label=grant.asset.name,
        asset_id=str(grant.asset_id),
        account_label=grant.account.name,
        source_address=source_address,
        now=now,
    )
    if isinstance(verdict, Denied):
        audit.record(
            Kind.EXTENSION_REFUSED,
            now=now,
            actor=person.party,
            subject=grant.party,
            source_address=source_address,
            outcome=Outcome.DENIED,
            data={"code": verdict.code, "minutes": minutes},
        )
        return verdict
    try:
        with transaction.atomic():
            extension = GrantExtension.objects.create(
                grant=grant,
                requester=person,
                minutes=minutes,
                reason=reason.strip(),
                source_address=source_address,
                asked_at=now,
            )
    except IntegrityError:
        # Two questions at once: the constraint lets one through.
        return Denied(DenialCode.EXTENSION_PENDING_ALREADY)
    audit.record(
        Kind.EXTENSION_ASKED,
        now=now,
        actor=person.party,
        subject=grant.party,
        source_address=source_address,
        data={"minutes": minutes, "reason": extension.reason, "ends_at": grant.ends_at},
    )
    return extension


def _may_ask(
    person: User, grant: Grant, minutes: int, reason: str, *, now: dt.datetime
) -> Allowed | Denied:
    verdict = _decide(grant, minutes, now=now)
    if not verdict:
        return verdict
    if not reason.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: the approver is shown it.")
    if grant.extensions.filter(state=ExtensionState.PENDING).exists():
        return Denied(DenialCode.EXTENSION_PENDING_ALREADY)
    if not queries.approvers_for(grant.asset, excluding=person).exists():
        return Denied(DenialCode.NO_APPROVER)
    return verdict


def _decide(grant: Grant, minutes: int, *, now: dt.datetime) -> Allowed | Denied:
    """Say whether the grant holds, and may end `minutes` later."""
    verdict = decide_connection(
        queries.person_facts(grant.person, grant.asset.zone.site),
        queries.path_facts(grant.asset),
        queries.grant_facts(grant),
        now=now,
    )
    if verdict and grant.expiry_noted_at is not None:
        return Denied(DenialCode.GRANT_EXPIRED)
    return verdict and decide_extension(
        queries.grant_facts(grant), minutes, queries.rules()
    )


@transaction.atomic
def approve_extension(
    *,
    extension_id: uuid.UUID,
    approver: User,
    minutes: int,
    comment: str,
    source_address: str,
    now: dt.datetime,
) -> Grant | Denied:
    """Let the grant end later, by as much as was asked for or less.

    Whether it still holds is asked under its lock: of an approval and the end of the
    grant, one comes first. The path is decided again.
    """
    approver = User.objects.get(pk=approver.pk)
    extension = _locked_extension(extension_id)
    if extension is None:
        return Denied(DenialCode.REQUEST_NOT_PENDING)
    grant = extension.grant
    granted = clip_minutes(extension.minutes, minutes)
    verdict = _may_decide(extension, approver, source_address, now=now)
    if verdict:
        verdict = _decide(grant, granted, now=now)
    if isinstance(verdict, Denied):
        return verdict
    before = grant.ends_at
    grant.ends_at = before + dt.timedelta(minutes=granted)
    grant.save(update_fields=["ends_at"])
    _move(extension, ExtensionState.APPROVED, now=now)
    extension.decided_by, extension.comment = approver, comment.strip()
    extension.minutes_granted = granted
    extension.save()
    audit.record(
        Kind.GRANT_EXTENDED,
        now=now,
        actor=approver.party,
        subject=grant.party,
        source_address=source_address,
        data={
            "minutes_asked": extension.minutes,
            "minutes": granted,
            "ends_at_before": before,
            "ends_at": grant.ends_at,
            "comment": extension.comment,
        },
    )
    return grant


@transaction.atomic
def deny_extension(
    *,
    extension_id: uuid.UUID,
    approver: User,
    comment: str,
    source_address: str,
    now: dt.datetime,
) -> GrantExtension | Denied:
    """Deny more time, with a reason the engineer is shown. The grant stays."""
    approver = User.objects.get(pk=approver.pk)
    extension = _locked_extension(extension_id)
    if extension is None:
        return Denied(DenialCode.REQUEST_NOT_PENDING)
    verdict = _may_decide(extension, approver, source_address, now=now)
    if not verdict:
        return verdict
    if not comment.strip():
        return Denied(DenialCode.REASON_MISSING, "Say why: the engineer is shown it.")
    _move(extension, ExtensionState.DENIED, now=now)
    extension.decided_by, extension.comment = approver, comment.strip()
    extension.save()
    audit.record(
        Kind.EXTENSION_DENIED,
        now=now,
        actor=approver.party,
        subject=extension.grant.party,
        source_address=source_address,
        data={"minutes": extension.minutes, "comment": extension.comment},
    )
    return extension


def lapse_extension(grant: Grant, *, now: dt.datetime) -> bool:
    """Lapse what waits for a grant that has ended, in the caller's transaction."""
    extension = (
        GrantExtension.objects.select_for_update(of=("self",))
        .filter(grant=grant, state=ExtensionState.PENDING)
        .first()
    )
    if extension is None:
        return False
    _move(extension, ExtensionState.LAPSED, now=now)
    extension.save()
    audit.record(
        Kind.EXTENSION_LAPSED,
        now=now,
        actor=audit.system("access"),
        subject=grant.party,
        data={"minutes": extension.minutes},
    )
    return True


def _locked_grant(grant_id: uuid.UUID) -> Grant | None:
    return (
        Grant.objects.select_for_update(of=("self",))
        .select_related("person", "asset__zone__site", "account__asset")
        .filter(pk=grant_id)
        .first()
    )


def _locked_extension(extension_id: uuid.UUID) -> GrantExtension | None:
    """Return the extension with its grant; the grant is locked first."""
    grant_id = (
        GrantExtension.objects.filter(pk=extension_id)
        .values_list("grant_id", flat=True)
        .first()
    )
    grant = _locked_grant(grant_id) if grant_id is not None else None
    if grant is None:
        return None
    extension = GrantExtension.objects.select_for_update(of=("self",)).get(
        pk=extension_id
    )
    extension.grant = grant
    return extension


def _may_decide(
    extension: GrantExtension,
    approver: User,
    source_address: str,
    *,
    now: dt.datetime,
) -> Allowed | Denied:
    verdict = queries.may_decide_extension(approver, extension, now=now)
    note_approval(
        verdict=verdict,
        approver=approver,
        about=extension.grant,
        source_address=source_address,
        now=now,
    )
    return verdict


def _move(
    extension: GrantExtension, state: ExtensionState, *, now: dt.datetime
) -> None:
    """Move a locked extension on; the table of transitions has the last word."""
    if state not in EXTENSION_TRANSITIONS[ExtensionState(extension.state)]:
        raise RuntimeError(f"an extension that is {extension.state} is not {state}")
    extension.state, extension.decided_at = state, now
