"""Periodic work on sessions; re-derived from rows at every run."""

import datetime as dt

from celery import shared_task

from apps.sessions import operations


@shared_task(name="sessions.sweep")
def sweep() -> None:
    """End leases that were left behind."""
    operations.end_leases_of_ended_sessions(now=dt.datetime.now(dt.UTC))
