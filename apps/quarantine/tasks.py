"""Periodic work on held uploads; re-derived from rows at every run."""

import datetime as dt

from celery import shared_task

from apps.quarantine import operations


@shared_task(name="quarantine.sweep")
def sweep() -> None:
    """Give up what lost sessions left behind; delete what nobody took in time."""
    now = dt.datetime.now(dt.UTC)
    operations.give_up_orphans(now=now)
    operations.expire_due(now=now)
