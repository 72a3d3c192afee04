"""Django's registration of the gateway context."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Registers `apps.gateway`."""

    name = "apps.gateway"
