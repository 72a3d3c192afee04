"""Django's registration of the composition root: commands and checks."""

from django.apps import AppConfig

from jumpserver.checks import register_checks


class JumpserverConfig(AppConfig):
    """Registers the management commands and the promises of `check --deploy`."""

    name = "jumpserver"

    def ready(self) -> None:
        """Register our own system checks."""
        register_checks()
