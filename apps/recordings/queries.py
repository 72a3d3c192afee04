"""Reading recordings: who may see which."""

from django.db.models import QuerySet

from apps.access.denials import Allowed, DenialCode, Denied
from apps.accounts.models import User
from apps.inventory.queries import is_member, sites_of
from apps.recordings.models import Recording


def recordings_visible_to(user: User) -> QuerySet[Recording]:
    """Return the recordings `user` may open: an auditor's, of the sites they belong to.

    Nobody opens a recording by being an administrator, an approver or its engineer.
    """
    if not user.is_auditor or user.disabled_at is not None:
        return Recording.objects.none()
    return Recording.objects.select_related(
        "session__person",
        "session__asset__zone__site",
        "session__account",
        "session__lease",
        "signed_with",
    ).filter(session__asset__zone__site__in=sites_of(user))


def may_view(user: User, recording: Recording) -> Allowed | Denied:
    """Say whether `user` may open this recording: an auditor of its site may."""
    if user.disabled_at is not None or not user.is_auditor:
        return Denied(DenialCode.NOT_PERMITTED)
    if user.pk == recording.session.person_id:
        # Nobody audits themselves.
        return Denied(DenialCode.NOT_PERMITTED)
    if not is_member(user, recording.session.asset.zone.site):
        return Denied(DenialCode.NOT_PERMITTED)
    return Allowed("auditor of the site")
