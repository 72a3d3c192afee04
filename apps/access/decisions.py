"""The written record of every decision."""

import datetime as dt

from apps.access.denials import Allowed, Denied
from apps.access.models import AccessRequest, Decision, Grant
from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome


def note_decision(
    *,
    question: str,
    verdict: Allowed | Denied,
    user: User,
    asset_label: str,
    asset_id: str,
    account_label: str,
    source_address: str,
    now: dt.datetime,
) -> None:
    """Write down what the policy decision point said, allowed or denied."""
    Decision.objects.create(
        at=now,
        question=question,
        person_id=str(user.pk),
        person_label=user.username,
        asset_id=asset_id,
        asset_label=asset_label[:64],
        account_label=account_label[:64],
        source_address=source_address,
        allowed=bool(verdict),
        code="" if isinstance(verdict, Allowed) else verdict.code.value,
        rule=verdict.rule[:120] if isinstance(verdict, Allowed) else "",
    )


def note_approval(
    *,
    verdict: Allowed | Denied,
    approver: User,
    about: AccessRequest | Grant,
    source_address: str,
    now: dt.datetime,
) -> None:
    """Write down whether somebody may decide on a request, or on more of a grant."""
    note_decision(
        question="approval",
        verdict=verdict,
        user=approver,
        asset_label=about.asset.name,
        asset_id=str(about.asset_id),
        account_label=about.account.name,
        source_address=source_address,
        now=now,
    )
    if isinstance(verdict, Denied):
        audit.record(
            Kind.APPROVAL_REFUSED,
            now=now,
            actor=approver.party,
            subject=about.party,
            source_address=source_address,
            outcome=Outcome.DENIED,
            data={"code": verdict.code},
        )
