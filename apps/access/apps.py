"""Django's registration of the access context."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    """Registers `apps.access`."""

    name = "apps.access"
