"""Django's registration of the quarantine context."""

from django.apps import AppConfig


class QuarantineConfig(AppConfig):
    """Registers `apps.quarantine`."""

    name = "apps.quarantine"
