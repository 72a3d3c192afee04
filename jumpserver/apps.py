"""Django's registration of the composition root: commands and checks."""

from django.apps import AppConfig


class JumpserverConfig(AppConfig):
    """Registers the management commands and the promises of `check --deploy`."""

    name = "jumpserver"
