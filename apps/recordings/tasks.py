"""Periodic work on recordings; re-derived from rows at every run."""

import datetime as dt

from celery import shared_task

from apps.recordings import operations


@shared_task(name="recordings.verify_sealed")
def verify_sealed() -> None:
    """Seal what a lost gateway left behind, then read back what was sealed."""
    now = dt.datetime.now(dt.UTC)
    operations.recover_orphans(now=now)
    operations.verify_due(now=now)
