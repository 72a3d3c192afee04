"""The audit context: the ledger."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Registers the ledger."""

    name = "apps.audit"
