"""Django's registration of the portal context."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Registers `apps.portal`."""

    name = "apps.portal"
