"""The safety net: gateways withdraw at the end of a session, this catches the rest."""

import datetime as dt
import logging

from celery import shared_task
from django.utils import timezone

from apps.vault import operations

logger = logging.getLogger(__name__)


@shared_task(name="vault.sweep", ignore_result=True)
def sweep(*, seconds: float = 15) -> None:
    """Withdraw every lease that is due; one that fails does not stop the others.

    Targets that do not answer take their time and other sweeps share the worker: what
    is left after `seconds` waits for the next sweep, oldest due first.
    """
    began = timezone.now()
    for lease_id in operations.due_withdrawals(now=began):
        if timezone.now() - began >= dt.timedelta(seconds=seconds):
            return
        try:
            operations.withdraw_lease(lease_id=lease_id, clock=timezone.now)
        except Exception:
            # Its claim runs out by itself, so the next sweep tries it again.
            logger.exception("Lease %s could not be withdrawn", lease_id)
