"""Periodic work on requests and grants; re-derived from rows at every run."""

import datetime as dt

from celery import shared_task

from apps.access import operations


@shared_task(name="access.sweep")
def sweep() -> None:
    """Note expired grants and lapse unanswered requests."""
    now = dt.datetime.now(dt.UTC)
    operations.expire_due_grants(now=now)
    operations.lapse_requests(now=now)
