"""Reading held uploads: who may see which, who decides, what can be delivered."""

import uuid
from collections.abc import Collection

from django.db.models import Q, QuerySet

from apps.access.denials import Allowed, DenialCode, Denied
from apps.accounts.models import User
from apps.inventory.queries import is_member, sites_of
from apps.quarantine.lifecycle import HeldState
from apps.quarantine.models import HeldUpload
from apps.sessions.models import Session


def held_visible_to(user: User) -> QuerySet[HeldUpload]:
    """Return the uploads `user` may know of: own; approvers' and auditors', the
    site's."""
    if user.disabled_at is not None:
        return HeldUpload.objects.none()
    seen = Q(uploader=user)
    if user.is_approver or user.is_auditor:
        seen |= Q(session__asset__zone__site__in=sites_of(user))
    return HeldUpload.objects.select_related(
        "session__asset__zone__site",
        "session__account",
        "uploader",
        "decided_by",
        "tried_in",
    ).filter(seen)


def may_decide(user: User, held: HeldUpload) -> Allowed | Denied:
    """Say whether `user` may decide on it: an approver of its site, never its
    uploader."""
    if user.disabled_at is not None or not user.is_approver:
        return Denied(DenialCode.NOT_APPROVER)
    if user.pk == held.uploader_id:
        return Denied(DenialCode.OWN_REQUEST, "Nobody releases their own upload.")
    if not is_member(user, held.session.asset.zone.site):
        return Denied(DenialCode.NOT_APPROVER)
    return Allowed("approver of the site")


def awaiting_count(user: User) -> int:
    """Return how many uploads this approver can decide now."""
    if not user.is_approver:
        return 0
    return (
        held_visible_to(user)
        .filter(state=HeldState.HELD)
        .exclude(uploader=user)
        .count()
    )


def deliverable(
    session_ids: Collection[uuid.UUID],
) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Return released uploads and a live session of these that may carry each: of the
    same person to the same account."""
    from_rows = HeldUpload.objects.filter(
        Q(tried_in=None) | Q(tried_in__ended_at__isnull=False),
        state=HeldState.RELEASED,
        session__account__sessions__in=session_ids,
    ).values_list("pk", "uploader_id", "session__account_id")
    rows = list(from_rows.distinct())
    if not rows:
        return []
    sessions = _people_of(session_ids)
    return [
        (held_id, session_id)
        for held_id, uploader_id, account_id in rows
        for session_id, person_id, other_id in sessions
        if (person_id, other_id) == (uploader_id, account_id)
    ]


def _people_of(
    session_ids: Collection[uuid.UUID],
) -> list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]]:
    return list(
        Session.objects.filter(pk__in=session_ids).values_list(
            "pk", "person_id", "account_id"
        )
    )
