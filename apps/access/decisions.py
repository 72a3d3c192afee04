"""The written record of every decision."""

import datetime as dt

from apps.access.denials import Allowed, Denied
from apps.access.models import Decision
from apps.accounts.models import User


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
