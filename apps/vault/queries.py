"""Reading the vault: which leases are due or open, and which authority counts."""

import datetime as dt
import uuid

from django.db.models import Q, QuerySet

from apps.inventory.models import Site
from apps.vault.models import (
    CertificateAuthority,
    Lease,
    LeaseState,
    ServiceKey,
)


def due_withdrawals(*, now: dt.datetime) -> list[uuid.UUID]:
    """Return the ended leases to be withdrawn or tried again now, oldest due first."""
    return list(
        Lease.objects.filter(
            Q(try_again_at=None) | Q(try_again_at__lte=now),
            state__in=[LeaseState.WITHDRAWING, LeaseState.OPEN],
        )
        .order_by("try_again_at", "id")
        .values_list("pk", flat=True)
    )


def next_try_at(lease_id: uuid.UUID) -> dt.datetime | None:
    """Return when to call `withdraw_lease` next; None when there is nothing to do."""
    return (
        Lease.objects.filter(
            pk=lease_id, state__in=[LeaseState.WITHDRAWING, LeaseState.OPEN]
        )
        .values_list("try_again_at", flat=True)
        .first()
    )


def open_leases() -> QuerySet[Lease]:
    """Return the leases whose credential could not be proved dead: an alarm each."""
    return Lease.objects.select_related("account__asset").filter(state=LeaseState.OPEN)


def authority_of(site: Site) -> CertificateAuthority | None:
    """Return the SSH user authority that the hosts of `site` have to trust."""
    return CertificateAuthority.objects.filter(site=site, retired_at=None).first()


def service_key_lines(purpose: str) -> list[str]:
    """Return the public lines of every key that ever had this purpose, newest first."""
    return list(
        ServiceKey.objects.filter(purpose=purpose)
        .order_by("-created_at")
        .values_list("public_line", flat=True)
    )
