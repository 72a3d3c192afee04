"""Periodic work on sessions; re-derived from rows at every run."""

import datetime as dt

from celery import shared_task
from django.conf import settings

from apps.sessions import operations


@shared_task(name="sessions.sweep")
def sweep() -> None:
    """Close the sessions of lost gateways and end leases that were left behind."""
    now = dt.datetime.now(dt.UTC)
    operations.close_lost_gateways(
        now=now, lost_after=dt.timedelta(seconds=settings.GATEWAY_LOST_SECONDS)
    )
    operations.end_leases_of_ended_sessions(now=now)
